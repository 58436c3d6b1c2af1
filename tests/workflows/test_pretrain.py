"""Pretraining leaves a transformer that can be trusted, killed, resumed, and drawn maps with."""

import json
import os
import shutil
import signal
from multiprocessing import get_context

import numpy as np
import pytest
import torch
import yaml
from torch.testing import assert_close

from lamina.errors import BundleError, ConfigError, TrainingError
from lamina.files import read_json, write_json
from lamina.folders.transformer import read_vit, write_vit
from lamina.inference.attention_maps import MapMaker
from lamina.models.vit import ViTConfig
from lamina.training.checkpoints import LAST, read_checkpoint
from lamina.workflows.attention_maps import draw_maps
from lamina.workflows.pretrain import pretrain
from lamina.workflows.runs import compare_runs
from lamina.workflows.train import train

SETTINGS = {
    "vit": {"token_size": 8, "width": 12, "depth": 1, "num_heads": 6},
    "views": {"global_size": 16, "local_size": 8},
    "num_outputs": 16,
    "head_width": 8,
    "batch_size": 16,
    "epochs": 2,
    "collapse_patience": 0,
    "checkpoint_every_s": 0.0,
}


@pytest.fixture(scope="module")
def whole(tiny_work, tmp_path_factory):
    """A run that nothing stopped."""
    out = tmp_path_factory.mktemp("pretraining") / "whole"
    return pretrain(tiny_work, out, SETTINGS)


def history(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "elapsed_s"} for line in lines]


def assert_same_run(ours, theirs):
    left, right = (read_checkpoint(out / "checkpoints" / LAST) for out in (ours, theirs))
    for part in ("state_dict", "optimizer_states"):
        assert_close(left[part], right[part], rtol=0, atol=0)
    assert read_vit(ours).key() == read_vit(theirs).key()
    assert history(ours) == history(theirs)


def test_a_run_leaves_the_teacher_its_history_and_where_it_comes_from(tiny_work, whole):
    assert (whole.epochs, whole.stopped_because) == (2, "")
    assert read_json(whole.out / "manifest.json")["outcome"]["state"] == "finished"
    maker = read_vit(whole.out)
    state = read_checkpoint(whole.out / "checkpoints" / LAST)["state_dict"]
    assert torch.equal(maker.vit.cls_token, state["teacher.vit.cls_token"])
    assert maker.vit.config == ViTConfig(image_size=16, **SETTINGS["vit"])
    origin = {name: maker.origin[name] for name in ("start", "fold", "epochs")}
    assert origin == {"start": "scratch", "fold": 0, "epochs": 2}
    assert 0 < maker.mean[0] < 1
    measured = {"loss", "entropy", "mean_entropy", "kl", "feature_std"}
    assert all(measured < line.keys() for line in history(whole.out))
    train = read_json(tiny_work / "splits.json")[0]["train"]
    shown = {name: np.load(tiny_work / "cases" / name / "image.npy").shape[-1] for name in train}
    assert 0 < whole.slices <= sum(shown.values())


def test_its_transformer_draws_maps(tiny_work, whole, tmp_path):
    work = shutil.copytree(tiny_work, tmp_path / "work")
    made = draw_maps(work, whole.out, size=32)
    assert (made.drawn, made.num_heads, made.from_scratch) == (6, 6, True)


def pretrain_and_die(work, out, resume, step):
    def on_step(done, *_):
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    pretrain(work, out, None if resume else SETTINGS, resume=resume, on_step=on_step)


def test_killed_and_resumed_run_gives_the_same_weights(tiny_work, whole, tmp_path):
    context, out = get_context("forkserver"), tmp_path / "run"
    context.set_forkserver_preload(["lamina.workflows.pretrain"])
    for step, resume in ((1, False), (3, True)):
        arguments = tiny_work, out, resume, step
        process = context.Process(target=pretrain_and_die, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (out / "vit.safetensors").exists()
    assert pretrain(tiny_work, out, resume=True).epochs == 2
    assert_same_run(out, whole.out)


def test_a_run_starts_from_a_given_transformer_as_it_was_made(tiny_work, tmp_path):
    torch.manual_seed(5)
    given = MapMaker(vit=ViTConfig(image_size=32, **SETTINGS["vit"]).build())
    write_vit(given, tmp_path / "given.safetensors")
    frozen = SETTINGS | {"vit": {}, "epochs": 1, "teacher_momentum": 0.999999, "lr": 1e-9}
    out = tmp_path / "run"
    pretrain(tiny_work, out, frozen, start=tmp_path / "given.safetensors")
    made = read_vit(out)
    assert_close(made.vit.state_dict(), given.vit.state_dict(), rtol=0, atol=1e-6)
    assert made.mean == given.mean
    assert made.origin["start"] == "given.safetensors"
    assert not made.from_scratch
    again = {"resume": True, "start": tmp_path / "given.safetensors"}
    assert pretrain(tiny_work, out, **again).epochs == 1
    with pytest.raises(TrainingError, match="did not begin from these weights"):
        pretrain(tiny_work, out, resume=True, start=out)
    (tmp_path / "given.safetensors").unlink()
    assert pretrain(tiny_work, out, {"epochs": 2}, resume=True).epochs == 2
    with pytest.raises(ConfigError, match="Leave out vit, or the transformer"):
        pretrain(tiny_work, tmp_path / "other", SETTINGS, start=out)


def test_a_collapsed_run_leaves_no_transformer(tiny_work, tmp_path):
    settings = SETTINGS | {"teacher_temp": 50.0, "collapse_patience": 1}
    with pytest.raises(TrainingError, match=r"has collapsed: the teacher gives .*lower lr"):
        pretrain(tiny_work, tmp_path / "run", settings)
    assert not (tmp_path / "run" / "vit.safetensors").exists()
    outcome = read_json(tmp_path / "run" / "manifest.json")["outcome"]
    assert outcome["state"] == "failed"
    assert "has collapsed" in outcome["why"]


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({}, {}, "already holds a run"),
        ({"lr": 0.5}, {"resume": True}, "lr cannot change when a run is resumed"),
        ({}, {"resume": True, "fold": 1}, "is a run of fold 0, not 1"),
    ],
)
def test_a_finished_run_is_not_written_over(tiny_work, whole, settings, options, message):
    before = (whole.vit.read_bytes(), history(whole.out))
    with pytest.raises(TrainingError, match=message):
        pretrain(tiny_work, whole.out, settings, **options)
    assert (whole.vit.read_bytes(), history(whole.out)) == before


def test_a_run_that_another_process_finished_meanwhile_is_left_alone(tiny_work, whole, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match="another process has been at work there meanwhile"):
        pretrain(
            tiny_work,
            out,
            SETTINGS | {"seed": 1},
            progress=lambda *about: shutil.copytree(whole.out, out, dirs_exist_ok=True),
        )
    assert_same_run(out, whole.out)


def test_a_run_from_before_a_setting_goes_on_with_its_default(tiny_work, whole, tmp_path):
    out = shutil.copytree(whole.out, tmp_path / "run")
    settings = yaml.safe_load((out / "config.yaml").read_text())
    del settings["seed"], settings["views"]["multicrop"]
    (out / "config.yaml").write_text(yaml.safe_dump(settings))
    assert pretrain(tiny_work, out, resume=True).epochs == 2
    with pytest.raises(TrainingError, match="seed cannot change when a run is resumed"):
        pretrain(tiny_work, out, {"seed": 1}, resume=True)


def test_a_run_of_a_gpu_goes_on_without_one_when_asked_to(tiny_work, whole, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    out = shutil.copytree(whole.out, tmp_path / "run")
    settings = yaml.safe_load((out / "config.yaml").read_text())
    (out / "config.yaml").write_text(
        yaml.safe_dump(settings | {"device": "cuda", "precision": "fp16"})
    )
    with pytest.raises(ConfigError, match="device cuda: torch finds 0 GPUs here"):
        pretrain(tiny_work, out, {"epochs": 3}, resume=True)
    assert pretrain(tiny_work, out, {"epochs": 3, "device": "cpu"}, resume=True).epochs == 3
    assert read_json(out / "manifest.json")["config"]["precision"] == "fp32"


def test_a_run_is_resumed_on_its_own_scans_alone(tiny_work, whole, tmp_path):
    work = shutil.copytree(tiny_work, tmp_path / "work")
    plan = read_json(work / "plan.json")
    write_json(work / "plan.json", plan | {"target_spacing": [2.0, 2.0, 2.0]})
    with pytest.raises(TrainingError, match="it was prepared anew"):
        pretrain(work, whole.out, resume=True)


def test_a_pretraining_is_not_taken_for_a_training(tiny_work, whole):
    told = r"holds a pretraining, not a run of one fold\. .*a folder that lamina train wrote"
    with pytest.raises(TrainingError, match=told):
        train(tiny_work, whole.out, resume=True)
    assert "holds a pretraining" in compare_runs([whole.out]).unreadable[str(whole.out)]


def test_wrong_requests_leave_nothing_behind(tiny_work, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(ConfigError, match="did you mean num_outputs"):
        pretrain(tiny_work, out, {"num_output": 3})
    with pytest.raises(ConfigError, match=r"token_size = 'abc': Input should"):
        pretrain(tiny_work, out, SETTINGS | {"vit": {"token_size": "abc"}})
    with pytest.raises(ConfigError, match=r"views.global_size = 20: must be a multiple of 8"):
        pretrain(
            tiny_work, out, SETTINGS | {"views": {"global_size": 20}, "vit": {"token_size": 8}}
        )
    with pytest.raises(BundleError, match="no such file"):
        pretrain(tiny_work, out, {}, start=tmp_path / "none.safetensors")
    with pytest.raises(TrainingError, match="holds no training run"):
        pretrain(tiny_work, out, resume=True)
    assert not out.exists()
    write_json(out / "manifest.json", {"fold": 0})
    with pytest.raises(TrainingError, match="holds a run of one fold, not a pretraining"):
        pretrain(tiny_work, out, resume=True)


def test_the_program_pretrains_and_says_what_comes_next(cli, tiny_work, tmp_path):
    settings = ["vit.depth=1", "vit.width=12", "vit.token_size=8", "num_outputs=16", "head_width=8"]
    settings += ["views.global_size=16", "views.local_size=8"]
    flags = [part for setting in settings for part in ("--set", setting)]
    common = ("pretrain", tiny_work, "--out", tmp_path / "vit")
    said = cli(*common, "--small", "--epochs", 1, "--seed", 3, "--device", "cpu", *flags)
    assert (said.exit_code, said.stderr) == (0, "")
    assert "Next: lamina attention-maps" in said.stdout
    assert "KL" in said.stdout
    more = cli(*common, "--resume", "--epochs", 2, "--json")
    assert json.loads(more.stdout)["epochs"] == 2
    manifest = read_json(tmp_path / "vit" / "manifest.json")
    assert (manifest["config"]["batch_size"], manifest["seed"]) == (16, 3)
    assert manifest["config"]["device"] == "cpu"
    refused = cli(*common)
    assert refused.exit_code == 2
    assert "already holds a run" in refused.stderr

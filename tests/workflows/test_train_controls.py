"""What recipes and users can decide about a run reaches the plan, the loop and the record."""

import shutil
from dataclasses import replace

import pytest
import yaml
from torch import nn

from lamina.bundle import load_bundle, save_bundle
from lamina.data.cache import open_cases
from lamina.errors import ConfigError
from lamina.files import read_json
from lamina.folders.run import RunFolder, read_history
from lamina.folders.work import WorkFolder
from lamina.training.checkpoints import LAST, read_checkpoint
from lamina.training.config import TrainConfig
from lamina.workflows.cross_validation import cross_validate
from lamina.workflows.cross_validation.ensembles import ensemble
from lamina.workflows.steps.validation import validation_steps, validator_of
from lamina.workflows.train import train

PLAIN = {"anchors": False, "lspm": False, "router": False}
SETTINGS = {
    "model_options": PLAIN | {"channels": [4, 4, 4, 4, 8]},
    "patch_size": [16, 16, 16],
    "steps_per_epoch": 1,
    "epochs": 1,
}


@pytest.fixture(scope="module")
def short(tiny_work, tmp_path_factory):
    run = RunFolder(tmp_path_factory.mktemp("short") / "run")
    train(tiny_work, run.root, SETTINGS)
    return run


def test_settings_of_inference_become_those_of_the_plan(tiny_work, tmp_path):
    chosen = {"roi_size": [32, 32, 16], "overlap": 0.25, "blending": "constant"}
    train(tiny_work, tmp_path / "run", SETTINGS | chosen)
    plan = load_bundle(tmp_path / "run" / "model.lamina").plan
    assert (plan.roi_size, plan.overlap, plan.blending) == ((32, 32, 16), 0.25, "constant")
    assert plan.reasons["overlap"] == plan.reasons["blending"] == "Set by hand."
    with pytest.raises(ConfigError, match=r"roi_size = \(32, 32\): 3 sizes are needed"):
        train(tiny_work, tmp_path / "other", SETTINGS | {"roi_size": [32, 32]})


def test_a_model_knows_which_mirror_images_it_was_shown(tiny_work, tmp_path):
    for name, augmentation, shown in (
        ("more", {"mirror_axes": [0, 2]}, (0, 2)),
        ("none", {"p_mirror": 0.0}, ()),
    ):
        train(tiny_work, tmp_path / name, SETTINGS | {"augmentation": augmentation})
        plan = load_bundle(tmp_path / name / "model.lamina").plan
        assert plan.mirror_axes == shown
        assert plan.reasons["mirror_axes"] == "Set by hand."
    with pytest.raises(ConfigError, match=r"mirror_axes = \(0, 3\): a patch has 3 axes"):
        train(tiny_work, tmp_path / "run", SETTINGS | {"augmentation": {"mirror_axes": [0, 3]}})
    assert not (tmp_path / "run").exists()


def test_an_epoch_can_be_so_many_passes_over_the_cases(tiny_work, tmp_path):
    cases = len(read_json(tiny_work / "splits.json")[0]["train"])
    passes = {"steps_per_epoch": None, "passes_per_epoch": 1.5, "batch_size": 4}
    train(tiny_work, tmp_path / "run", SETTINGS | passes)
    (line,) = read_history(RunFolder(tmp_path / "run"))
    assert line["step"] == -(-1.5 * cases // 4)


def test_the_best_epoch_can_be_that_of_best_iou(tiny_work, tmp_path):
    train(tiny_work, tmp_path / "run", SETTINGS | {"select_by": "iou", "balance": "class"})
    (line,) = read_history(RunFolder(tmp_path / "run"))
    assert 0 <= line["iou"] <= line["dice"]


def test_a_file_called_stop_in_the_run_folder_ends_the_run(tiny_work, tmp_path):
    out = tmp_path / "run"
    result = train(
        tiny_work,
        out,
        SETTINGS | {"epochs": 9},
        on_step=lambda step, *_: step == 2 and (out / "stop").touch(),
    )
    assert result.stopped_because == "stop file"
    assert not (out / "stop").exists()
    assert result.epochs == 3


def test_a_run_from_before_a_setting_existed_is_resumed(tiny_work, short, tmp_path):
    shutil.copytree(short.root, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    recorded = yaml.safe_load(run.config_file.read_text())
    del recorded["balance"], recorded["optimiser"]["kind"], recorded["channels_last"]
    run.config_file.write_text(yaml.safe_dump(recorded))
    assert train(tiny_work, run.root, {"epochs": 2}, resume=True).epochs == 2


def test_a_run_in_half_precision_of_a_gpu_is_resumed_without_one(tiny_work, short, tmp_path):
    shutil.copytree(short.root, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    recorded = yaml.safe_load(run.config_file.read_text())
    run.config_file.write_text(yaml.safe_dump(recorded | {"precision": "fp16"}))
    assert train(tiny_work, run.root, {"epochs": 2, "device": "cpu"}, resume=True).epochs == 2


def test_a_run_can_begin_from_another_model_and_keep_parts_of_it(
    tiny_work, short, tmp_path, caplog
):
    weights = load_bundle(short.bundle_file).weights
    names = [name for name in weights if name.startswith("stem")]
    assert names
    run = RunFolder(tmp_path / "run")
    train(tiny_work, run.root, SETTINGS | {"frozen": ["stem*"]}, start=short.bundle_file)
    after = read_checkpoint(run.checkpoints / LAST)["state_dict"]
    assert all((after[f"network.{name}"] == weights[name]).all() for name in names)
    told = run.manifest()["start"]
    assert set(told["loaded"]) == set(weights)
    assert told["missing"] == told["reshaped"] == told["left_over"] == []
    assert caplog.text == ""


def test_validation_leaves_frozen_parts_in_their_mode_and_is_guessed_by_its_voxels(tiny_work):
    folder = WorkFolder(tiny_work)
    plan, fold = folder.plan(), folder.fold(0)
    cases = open_cases(folder.cache, fold.val)
    network = nn.Sequential(nn.BatchNorm3d(1), nn.Conv3d(1, plan.num_outputs, 1), nn.Dropout())
    network[0].eval()
    validator_of(plan, cases, "dice")(network)
    assert [part.training for part in network] == [False, True, True]
    plan = replace(plan, roi_size=cases[0].label.shape[1:], overlap=0.0)
    config = TrainConfig(patch_size=plan.roi_size, batch_size=2)
    assert validation_steps(config, plan, cases[:1]) == 0.2  # two fifths of half a step


def test_what_does_not_fit_is_named(tiny_work, short, tmp_path, caplog):
    other = {"model_options": PLAIN | {"channels": [4, 4, 4, 4, 12]}}
    train(tiny_work, tmp_path / "run", SETTINGS | other, start=short.bundle_file)
    told = RunFolder(tmp_path / "run").manifest()["start"]
    assert told["loaded"]
    assert told["reshaped"]
    assert told["reshaped"][0] in caplog.text


def test_settings_that_do_not_suit_the_dataset_leave_no_run_behind(tiny_work, tmp_path):
    for wrong, fault in (
        ({"loss": "boundary_dice_ce", "loss_options": {"class_weights": [1, 2]}}, "3 numbers"),
        ({"deep_supervision": [1.0, 0.5]}, "has 1 head"),
    ):
        for begin in (train, cross_validate):
            with pytest.raises(ConfigError, match=fault):
                begin(tiny_work, tmp_path / "run", SETTINGS | wrong)
            assert not (tmp_path / "run" / "manifest.json").exists()


def test_an_ensemble_is_no_start(tiny_work, short, tmp_path):
    both = tmp_path / "both.lamina"
    save_bundle(ensemble([short, short], {}), both)
    fault = "both.lamina: is an ensemble of 2 networks. Give the model of one fold"
    with pytest.raises(ConfigError, match=fault):
        train(tiny_work, tmp_path / "run", SETTINGS, start=both)
    with pytest.raises(ConfigError, match=fault):
        cross_validate(tiny_work, tmp_path / "run", SETTINGS, start=both)
    assert not (tmp_path / "run").exists()


def test_a_recipe_trains_from_the_command_line(cli, tiny_work, short, tmp_path):
    out = tmp_path / "run"
    short_ones = {"patch_size": "[16,16,16]", "roi_size": "null", "batch_size": "2", "epochs": "1"}
    thin = {f"model_options.{name}": "false" for name in PLAIN}
    wanted = short_ones | thin | {"model_options.channels": "[4,4,4,4,8]", "balance": "class"}
    options = [f"--set={name}={value}" for name, value in wanted.items()]
    recipe = ["--recipe", "lightmedseg-acdc", "--strict-paper"]
    done = cli("train", tiny_work, "--out", out, *recipe, *options, "--from", short.bundle_file)
    assert done.exit_code == 0, done.stderr
    config = yaml.safe_load(RunFolder(out).config_file.read_text())
    assert (config["loss"], config["augmentation"]["p_noise"]) == ("boundary_dice_ce", 0.3)
    assert config["steps_per_epoch"] == 2


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        (["--strict-paper"], "--strict-paper: needs a --recipe"),
        (["--strict-paper", "--recipe", "auto"], "strict_paper: recipe 'auto' has no such section"),
        (["--recipe", "lightmedsec-acdc"], "did you mean lightmedseg-acdc"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(cli, tiny_work, tmp_path, options, fault):
    done = cli("train", tiny_work, "--out", tmp_path / "run", *options)
    assert done.exit_code
    assert fault in " ".join(done.stderr.split())
    assert not (tmp_path / "run").exists()

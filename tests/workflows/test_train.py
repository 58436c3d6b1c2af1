"""Training leaves a run that can be trusted, killed, resumed, read and shipped."""

import json
import os
import shutil
import signal
import subprocess
import sys
from multiprocessing import get_context

import pytest
import torch
import yaml
from torch.testing import assert_close

from lamina import load
from lamina.bundle import load_bundle
from lamina.errors import ConfigError, DatasetError, FileError, TrainingError
from lamina.files import read_json
from lamina.folders.run import RunFolder, read_history
from lamina.training.checkpoints import BEST, LAST, read_checkpoint
from lamina.workflows.train import train

PLAIN = {"anchors": False, "lspm": False, "router": False}
SETTINGS = {
    "model_options": PLAIN | {"channels": [4, 4, 4, 4, 8]},
    "optimiser": {"lr": 0.01, "ema_decay": 0.8},
    "patch_size": [16, 16, 16],
    "steps_per_epoch": 4,
}
LONG = SETTINGS | {"epochs": 3}
SHORT = SETTINGS | {"epochs": 1, "steps_per_epoch": 1}


@pytest.fixture(scope="module")
def whole(tiny_work, tmp_path_factory):
    """A run that nothing stopped."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(tiny_work, out, LONG)
    return RunFolder(out)


@pytest.fixture
def short(tiny_work, tmp_path):
    train(tiny_work, tmp_path / "run", SHORT)
    return RunFolder(tmp_path / "run")


def assert_same_run(ours, theirs):
    """Compare two runs' weights, averages, optimisers, best epochs and histories, bit for bit."""
    for name in (LAST, BEST):
        left, right = (read_checkpoint(run.checkpoints / name) for run in (ours, theirs))
        for part in ("state_dict", "optimizer_states"):
            assert_close(left[part], right[part], rtol=0, atol=0)
        assert untimed(left["run"]) == untimed(right["run"])
    left, right = (load_bundle(run.bundle_file) for run in (ours, theirs))
    assert_close(left.weights, right.weights, rtol=0, atol=0)
    assert left.metrics == right.metrics
    left, right = ([untimed(line) for line in read_history(run)] for run in (ours, theirs))
    assert left == right


def untimed(record):
    timed = ("waiting", "ending")
    return {n: value for n, value in record.items() if not n.endswith("_s") and n not in timed}


def train_and_die(work, out, settings, resume, moment, number):
    """Train until a moment, then kill this process as the kernel would."""

    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    def on_step(step, *_):
        if (moment, number) == ("step", step):
            die()

    def on_epoch(report):
        if (moment, number) == ("epoch", report.epoch):
            die()

    def save(content, path):
        if (moment, number) == ("save", int(content["state_dict"]["steps_done"])):
            path.write_bytes(b"half a checkpoint")
            die()
        write(content, path)

    write, torch.save = torch.save, save
    train(work, out, settings, resume=resume, on_step=on_step, on_epoch=on_epoch)


def test_killed_and_resumed_run_gives_the_same_weights(tiny_work, whole, tmp_path):
    """SIGKILL in the middle of epochs, of a write, and between history and checkpoint."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["lamina.workflows.train"])
    run = RunFolder(tmp_path / "run")

    def kill(moment, number, *, resume=True, **settings):
        arguments = tiny_work, run.root, LONG | settings, resume, moment, number
        process = context.Process(target=train_and_die, args=arguments)
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL

    def steps_saved():
        return int(read_checkpoint(run.checkpoints / LAST)["state_dict"]["steps_done"])

    kill("step", 2, resume=False)
    assert steps_saved() == 0
    kill("step", 7)
    assert steps_saved() == 4
    kill("epoch", 1)
    assert [line["step"] for line in read_history(run)] == [4, 8]
    assert steps_saved() == 4
    kill("save", 6, checkpoint_every_s=0.0)
    assert steps_saved() == 5
    kill("step", 10, checkpoint_every_s=0.0)
    assert steps_saved() == 10
    result = train(tiny_work, run.root, resume=True)
    assert (result.epochs, result.stopped_because) == (3, "")
    assert_same_run(run, whole)
    assert sorted(path.name for path in run.checkpoints.iterdir()) == [BEST, LAST]


CTRL_C = """
import os, signal
from lamina.cli import main
from lamina.training.supervised import Supervised

def training_step(self, *batch):
    if self.steps_done == 5:
        os.killpg(0, signal.SIGINT)
    return step(self, *batch)

step, Supervised.training_step = Supervised.training_step, training_step
main()
"""


def test_ctrl_c_leaves_a_model_and_the_run_can_go_on(tiny_work, whole, tmp_path):
    """In the middle of a step; loader processes get the signal too, as they do in a terminal."""
    run = RunFolder(tmp_path / "run")
    settings = [f"--set={name}={json.dumps(value)}" for name, value in LONG.items()]
    program = [sys.executable, "-c", CTRL_C, "train", tiny_work, "--out", run.root, *settings]
    done = subprocess.run(
        [*program, "--set=workers=1"],
        cwd=tmp_path,
        start_new_session=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "SIGINT" in done.stdout
    (told,) = (line for line in done.stderr.splitlines() if not line.startswith("Epoch "))
    assert told.endswith("Stopping after this step (SIGINT); --resume goes on from here.")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert load(run.bundle_file)
    assert int(read_checkpoint(run.checkpoints / LAST)["state_dict"]["steps_done"]) == 6
    train(tiny_work, run.root, resume=True)
    assert_same_run(run, whole)


def test_training_says_nothing_that_is_no_concern_of_its_user(tiny_work, tmp_path, capfd, caplog):
    train(tiny_work, tmp_path / "run", SHORT)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []


def test_training_learns(tiny_work, tmp_path):
    wider = {"model_options": PLAIN | {"channels": [8] * 5}, "optimiser": {"lr": 0.02}}
    result = train(tiny_work, tmp_path / "run", wider | {"steps_per_epoch": 12, "epochs": 4})
    lines = read_history(RunFolder(result.run))
    assert lines[-1]["loss"] < 0.7 * lines[0]["loss"]
    assert result.best_dice == max(line["dice"] for line in lines) > 0.3


def test_the_plan_in_a_run_says_what_was_done(tiny_work, whole):
    plan = read_json(whole.manifest_file)["plan"]
    reasons = read_json(tiny_work / "plan.json")["reasons"]
    assert plan["patch_size"] == plan["roi_size"] == [16, 16, 16]
    assert plan["reasons"] == reasons | dict.fromkeys(("patch_size", "roi_size"), "Set by hand.")


def test_a_folder_that_holds_a_run_is_left_alone(tiny_work, short):
    before = {path: path.read_bytes() for path in short.root.rglob("*") if path.is_file()}
    with pytest.raises(TrainingError, match=r"run: already holds a run\. Add --resume"):
        train(tiny_work, short.root, SHORT)
    assert {path: path.read_bytes() for path in before} == before


def test_resuming_takes_the_same_settings_and_refuses_others(tiny_work, short):
    same = SHORT | {"model_options": PLAIN | {"channels": (4, 4, 4, 4, 8)}}
    assert train(tiny_work, short.root, same, resume=True).epochs == 1
    assert train(tiny_work, short.root, {"precision": "auto"}, resume=True).epochs == 1
    with pytest.raises(TrainingError, match=r"run: optimiser, seed cannot change when") as caught:
        train(tiny_work, short.root, {"optimiser": {"lr": 0.5}, "seed": 3}, resume=True)
    assert "epochs" in caught.value.remedy
    assert train(tiny_work, short.root, {"epochs": 2}, resume=True).epochs == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="The run's GPU is here.")
def test_a_run_from_a_gpu_goes_on_where_there_is_none(tiny_work, short):
    recorded = yaml.safe_load(short.config_file.read_text("utf-8"))
    short.config_file.write_text(yaml.safe_dump(recorded | {"device": "cuda"}), "utf-8")
    with pytest.raises(ConfigError, match="torch finds 0 GPUs here"):
        train(tiny_work, short.root, resume=True)
    assert train(tiny_work, short.root, {"device": "cpu"}, resume=True).epochs == 1


def test_a_network_that_finds_nothing_is_told_of(tiny_work, tmp_path, caplog, monkeypatch):
    score = {"dice": 0.0}
    monkeypatch.setattr("lamina.workflows.train.validator_of", lambda *_: lambda _: score)
    train(tiny_work, tmp_path / "vain", SHORT)
    assert "finds nothing in the validation cases" in caplog.text
    caplog.clear()
    score["dice"] = 0.1
    train(tiny_work, tmp_path / "well", SHORT)
    assert "finds nothing" not in caplog.text


def test_resuming_nothing_is_refused(tiny_work, tmp_path):
    with pytest.raises(TrainingError, match="none: holds no training run"):
        train(tiny_work, tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()


def test_a_run_is_resumed_on_its_own_fold(tiny_work, tmp_path):
    """On another, it would learn from the very cases that it is validated on."""
    settings, run, other = SHORT | {"epochs": 2}, tmp_path / "run", tmp_path / "other"
    with pytest.raises(ZeroDivisionError):
        train(tiny_work, run, settings, fold=2, on_epoch=lambda report: 1 / 0)
    with pytest.raises(TrainingError, match="run: is a run of fold 2, not 1"):
        train(tiny_work, run, fold=1, resume=True)
    train(tiny_work, run, resume=True)
    train(tiny_work, other, settings, fold=2)
    assert_same_run(RunFolder(run), RunFolder(other))
    val = {case.case_id for case in RunFolder(run).cases("val")}
    assert val == set(read_json(tiny_work / "splits.json")[2]["val"])
    with pytest.raises(DatasetError, match="fold 9: .* has folds 0 to 2"):
        train(tiny_work, tmp_path / "third", SHORT, fold=9)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"optimiser": {"lr": -1}, "epoch": 3}, "2 settings are wrong:"),
        ({"patch_size": [16, 16]}, r"patch_size = \(16, 16\): 3 sizes are needed"),
        ({"model_options": {"channels": [4, 5]}}, "channels"),
        ({"loss_options": {"smoothness": 1}}, "smoothness"),
    ],
)
def test_wrong_settings_are_refused_before_anything_is_written(
    tiny_work, tmp_path, settings, fault
):
    with pytest.raises(ConfigError, match=fault):
        train(tiny_work, tmp_path / "run", SHORT | settings)
    assert not (tmp_path / "run").exists()


def test_a_case_that_vanishes_during_training_leaves_the_last_checkpoint(
    tiny_work, tmp_path, whole
):
    work, run = tmp_path / "work", RunFolder(tmp_path / "run")
    shutil.copytree(tiny_work, work)

    def lose(report):
        if report.epoch == 0:
            (work / "cases").rename(work / "lost")

    with pytest.raises(FileError, match=r"cases/ball_00\d/\w+\.npy: missing or damaged"):
        train(work, run.root, LONG, on_epoch=lose)
    (work / "lost").rename(work / "cases")
    train(work, run.root, resume=True)
    assert_same_run(run, whole)


FILL = """
import sys
from contextlib import suppress
from pathlib import Path
from lamina.errors import FileError
from lamina.training.checkpoints import LAST, read_checkpoint
from lamina.workflows.train import train
work, out, settings = Path(sys.argv[1]), Path(sys.argv[2]), eval(sys.argv[3])
filler = out / "filler"

def fill(report):
    if report.epoch == 1:
        with filler.open("wb", buffering=0) as stream, suppress(OSError):
            while stream.write(bytes(1 << 12)):
                pass

try:
    train(work, out / "run", settings, on_epoch=fill)
except FileError as error:
    print(error)
checkpoints = out / "run" / "checkpoints"
print(int(read_checkpoint(checkpoints / LAST)["state_dict"]["steps_done"]))
print(sorted(path.name for path in checkpoints.iterdir()))
filler.unlink()
print(train(work, out / "run", resume=True).epochs)
"""


def test_a_full_disk_ends_the_run_with_its_last_checkpoint_whole(tiny_work, tmp_path):
    """On a real file system of eight megabytes, filled up while the run goes on."""
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=8m tmpfs {tmp_path}"
    if not shutil.which("unshare") or subprocess.run([*inside, mount], check=False).returncode:
        pytest.skip("this system lets no ordinary user mount a file system of its own")
    script = f'{mount} && exec "$0" -W error -c "$@"'
    arguments = [sys.executable, FILL, str(tiny_work), str(tmp_path), repr(LONG)]
    done = subprocess.run(
        [*inside, script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    error, steps, names, epochs = done.stdout.splitlines()
    assert ": no space left on the disk. Free some space" in error
    assert (steps, epochs) == ("4", "3")
    assert names == str([BEST, LAST])


def test_folders_that_no_run_wrote_are_left_alone(tiny_work, tmp_path):
    (tmp_path / "config.yaml").write_text("mine: true")
    (tmp_path / "notes.txt").touch()
    with pytest.raises(TrainingError, match="holds files that no run wrote"):
        train(tiny_work, tmp_path)
    assert (tmp_path / "config.yaml").read_text() == "mine: true"


def test_every_fold_is_not_a_fold(tiny_work, tmp_path):
    with pytest.raises(ConfigError, match=r"fold = 'all': must be a number\. .*cross_validate"):
        train(tiny_work, tmp_path / "run", fold="all")
    assert not (tmp_path / "run").exists()

"""Several processes train as one would, and none outlives another that fails."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from torch.testing import assert_close

from lamina.bundle import load_bundle
from lamina.errors import ConfigError
from lamina.folders.run import RunFolder, read_history
from lamina.training.checkpoints import LAST, read_checkpoint
from lamina.workflows.cross_validation import cross_validate
from lamina.workflows.train import train

SETTINGS = {
    "model_options": {"channels": [4, 4, 4, 4, 8]},
    # Not Adam, which makes steps of the rounding in gradients that are truly zero.
    "optimiser": {"kind": "sgd", "lr": 0.1, "ema_decay": 0.8, "schedule": "constant", "warmup": 0},
    "patch_size": [16, 16, 16],
    "steps_per_epoch": 3,
    "epochs": 2,
    "device": "cpu",
}
LOCAL = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
TORCHRUN = "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nproc-per-node=2"


def start(work, out, *flags, launcher=(), **settings):
    """Begin a run of the program, as a launcher or a person would."""
    told = [f"--set={name}={value}" for name, value in (SETTINGS | settings).items()]
    modules = [part for name in (*launcher, "lamina") for part in _as_module(name)]
    return subprocess.Popen(
        [sys.executable, *modules, "train", work, "--out", out, *flags, *told],
        env=os.environ | LOCAL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _as_module(name):
    return [name] if name.startswith("--") else ["-m", name]


def assert_same_run(ours, theirs, steps):
    """Compare two runs up to rounding."""
    left, right = (read_checkpoint(run.checkpoints / LAST) for run in (ours, theirs))
    assert left["state_dict"]["steps_done"] == steps
    assert_close(left["state_dict"], right["state_dict"], rtol=1e-4, atol=1e-6)
    left, right = ([untimed(line) for line in read_history(run)] for run in (ours, theirs))
    assert left == [pytest.approx(line, rel=1e-5) for line in right]
    left, right = (load_bundle(run.bundle_file) for run in (ours, theirs))
    assert_close(left.weights, right.weights, rtol=1e-4, atol=1e-6)


def untimed(line):
    return {name: line[name] for name in line if name not in ("elapsed_s", "waiting")}


def test_two_processes_train_as_one(tiny_work, tmp_path):
    alone, both = RunFolder(tmp_path / "alone"), RunFolder(tmp_path / "both")
    process = start(tiny_work, both.root, "--json", launcher=TORCHRUN)
    train(tiny_work, alone.root, SETTINGS)
    said, complaints = process.communicate()
    assert process.returncode == 0, complaints
    assert said.count('"best_dice"') == 1
    assert_same_run(both, alone, steps=6)
    assert both.manifest()["outcome"]["state"] == "finished"
    (board,) = (both.root / "tensorboard").glob("events*")
    assert b"validation/" in board.read_bytes()
    process = start(tiny_work, both.root, "--resume", "--devices=2", epochs=3)
    train(tiny_work, alone.root, {"epochs": 3}, resume=True)
    _, complaints = process.communicate()
    assert process.returncode == 0, complaints
    assert_same_run(both, alone, steps=9)


def test_a_killed_process_ends_the_others_with_one_error(tiny_work, tmp_path):
    run = RunFolder(tmp_path / "run")
    process = start(tiny_work, run.root, "--devices=2", epochs=10**6)

    def steps_saved():
        last = run.checkpoints / LAST
        return int(read_checkpoint(last)["state_dict"]["steps_done"]) if last.is_file() else 0

    while steps_saved() < 3 and process.poll() is None:
        time.sleep(0.2)
    first = psutil.Process(process.pid)
    (other,) = (p for p in first.children() if p.environ().get("LOCAL_RANK") == "1")
    other.send_signal(signal.SIGKILL)
    said, complaints = process.communicate(timeout=30)
    assert (process.returncode, said) == (2, "")
    assert complaints.count("Error: ") == 1
    assert "Error: Another process of this run failed or was killed." in complaints
    assert steps_saved() >= 3
    assert run.manifest()["config"]["devices"] == 2
    assert run.manifest()["outcome"]["state"] == "failed"


def test_all_folds_at_once_are_refused_several_processes(tiny_work, tmp_path):
    with pytest.raises(ConfigError, match="^--fold all: cannot share its steps among several"):
        cross_validate(tiny_work, tmp_path / "run", {"devices": 2})
    assert not (tmp_path / "run").exists()

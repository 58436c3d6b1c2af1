"""Runs repeat bit for bit, stop and resume anywhere, and survive what goes wrong on the way."""

import errno
import signal
from unittest.mock import Mock

import psutil
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch.testing import assert_close

from lamina.data.cache import PreparedCase
from lamina.errors import ConfigError, FileError
from lamina.training import fit as fit_module
from lamina.training.checkpoints import BEST, LAST, read_checkpoint
from lamina.training.config import Optimiser
from lamina.training.device import resolve_precision


@pytest.mark.parametrize("settings", [{}, {"optimiser": Optimiser(ema_decay=0)}])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(new_run, settings):
    first, again = new_run("first")(**settings), new_run("again")(**settings)
    first.assert_same_bits(again)
    other = new_run("other", seed=1)(seed=1, **settings)
    with pytest.raises(AssertionError, match="not equal"):
        first.assert_same_bits(other)
    assert first.steps != other.steps


def test_random_numbers_within_the_network_follow_the_seed(new_run, whole):
    run = new_run("seeded")(seed=1)  # same initial weights, same patches, other dropout
    assert run.steps[0][2] != whole.steps[0][2]


def test_loader_processes_change_nothing_and_go_on_after_ctrl_c(new_run):
    """A terminal sends it to them too, while the main process still needs their patches."""

    def ctrl_c(done, *_):
        if done == 2:  # each of them has been heard of
            for child in psutil.Process().children():
                child.send_signal(signal.SIGINT)

    alone, helped = new_run("alone")(epochs=4), new_run("helped")
    helped(epochs=4, workers=2, on_step=ctrl_c).assert_same_bits(alone)


@pytest.mark.parametrize("step", range(1, 7))
def test_a_run_that_breaks_after_any_step_resumes_to_the_same_bits(new_run, whole, step):
    run = new_run()
    run.crash_after(step)
    run.network = new_run(seed=5).network  # a new process starts from other weights
    run(resume=True)
    run.assert_same_bits(whole)
    assert run.history == whole.history
    assert_close(
        read_checkpoint(run.folder / BEST)["state_dict"],
        read_checkpoint(whole.folder / BEST)["state_dict"],
        rtol=0,
        atol=0,
    )


def test_a_run_that_breaks_in_its_first_minutes_goes_on_with_the_weights_it_began_with(
    new_run, whole
):
    run = new_run()
    run.crash_after(2, checkpoint_every_s=300)
    run.network = new_run(seed=9).network  # those that a run began with may be gone
    run(resume=True).assert_same_bits(whole)


def test_a_run_without_its_last_checkpoint_goes_on_from_the_best(new_run, whole):
    run = new_run()
    run.crash_after(5, validate=lambda network: {"dice": 0.5})
    (run.folder / LAST).unlink()
    run.steps.clear()
    run(resume=True).assert_same_bits(whole)
    assert [step for step, *_ in run.steps] == [4, 5, 6]


def test_a_finished_run_stays_as_it_is_and_can_be_made_longer(new_run):
    run, longer = new_run(), new_run("longer")
    constant = Optimiser(warmup=0, final_lr=1)  # the schedule would end with the shorter run
    run(epochs=1, optimiser=constant)
    before = run.last
    state = run.state
    assert run(epochs=1, resume=True, optimiser=constant).state == state
    assert_close(run.last["state_dict"], before["state_dict"], rtol=0, atol=0)
    longer(epochs=2, optimiser=constant)
    run(epochs=2, resume=True, optimiser=constant).assert_same_bits(longer)


def test_images_train_as_volumes_do(new_run, flat_cases):
    first = new_run("first", scans=flat_cases, patch_size=(16, 16))()
    assert first.state.epochs_done == 2
    new_run("again", scans=flat_cases, patch_size=(16, 16))().assert_same_bits(first)


@pytest.mark.parametrize("where", [BEST, LAST])
def test_a_full_disk_is_one_clear_error_and_the_earlier_checkpoint_serves(
    new_run, whole, monkeypatch, where
):
    run, save = new_run(), torch.save

    def full(content, path, **kwargs):
        if content["run"]["epochs_done"] == 2 and path.name.endswith(where):
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(content, path, **kwargs)

    monkeypatch.setattr(torch, "save", full)
    rising = iter([0.1, 0.2])
    with pytest.raises(FileError, match=rf"{where}: no space left on the disk"):
        run(validate=lambda network: {"dice": next(rising)})
    monkeypatch.undo()
    assert sorted(path.name for path in run.folder.iterdir()) == [BEST, LAST]
    assert int(run.last["state_dict"]["steps_done"]) == 5
    run(resume=True).assert_same_bits(whole)


def test_a_scan_that_vanishes_during_training_is_named(new_run, tmp_path):
    run = new_run(scans=[PreparedCase(tmp_path / "gone")])
    with pytest.raises(FileError, match=r"gone/label\.npy: missing or damaged"):
        run()


def test_a_resumed_run_goes_on_with_the_scale_of_its_half_precision_gradients():
    def trainer():
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
        return Mock(precision_plugin=MixedPrecision("16-mixed", "cpu", scaler))

    before, after = trainer(), trainer()
    before.precision_plugin.scaler.load_state_dict(
        before.precision_plugin.state_dict() | {"scale": 2.0**9}
    )
    checkpoint = {"MixedPrecision": before.precision_plugin.state_dict()}
    start = fit_module._Start(checkpoint, None, lambda: None)
    start.on_train_start(after, None)
    assert after.precision_plugin.state_dict() == before.precision_plugin.state_dict()
    after.strategy.load_optimizer_state_dict.assert_called_once_with(checkpoint)


def test_half_precision_floats_need_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_precision("auto", "cpu") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
    with pytest.raises(ConfigError, match="precision = 'fp16': needs a GPU"):
        resolve_precision("fp16", "cpu")


def test_bfloat16_trains_too(new_run, whole):
    run = new_run()(precision="bf16")
    assert run.state.epochs_done == 2
    losses = [loss for _, _, loss, _ in run.steps]
    assert losses == pytest.approx([loss for _, _, loss, _ in whole.steps], rel=0.05)
    assert losses != [loss for _, _, loss, _ in whole.steps]

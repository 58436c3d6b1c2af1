"""Runs repeat bit for bit, stop and resume anywhere, and survive what goes wrong on the way."""

import errno
import os
import signal
import threading
from dataclasses import asdict

import psutil
import pytest
import torch
from torch.testing import assert_close

from lamina.data.cache import PreparedCase
from lamina.errors import ConfigError, FileError, TrainingError
from lamina.losses import build_loss
from lamina.training.checkpoints import BEST, LAST, read_checkpoint
from lamina.training.config import Optimiser
from lamina.training.fit import resolve_precision
from lamina.training.history import HistoryLogger
from lamina.training.schedule import learning_rate

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Break(Exception):
    """Ends a run from inside, as a crash would."""


def break_at(step):
    def on_step(done, *_):
        if done == step:
            raise Break

    return on_step


def recorded(run):
    """Return what a run says of its epochs, without the clock."""
    kept = {report.epoch: asdict(report) | {"elapsed_s": 0} for report in run.reports}
    return list(kept.values())


@pytest.fixture
def whole(new_run):
    """A run that nothing stopped."""
    return new_run("whole")()


@pytest.mark.parametrize("settings", [{}, {"optimiser": Optimiser(ema_decay=0)}])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(new_run, settings):
    first, again = new_run("first")(**settings), new_run("again")(**settings)
    first.assert_same_bits(again)
    other = new_run("other", seed=1)(seed=1, **settings)
    with pytest.raises(AssertionError, match="not equal"):
        first.assert_same_bits(other)
    assert first.steps != other.steps


def test_the_seed_alone_decides_patches_and_dropout(new_run, whole):
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
    with pytest.raises(Break):
        run(on_step=break_at(step))
    run.network = new_run(seed=5).network  # a new process starts from other weights
    run(resume=True)
    run.assert_same_bits(whole)
    assert recorded(run) == recorded(whole)
    assert_close(
        read_checkpoint(run.folder / BEST)["state_dict"],
        read_checkpoint(whole.folder / BEST)["state_dict"],
        rtol=0,
        atol=0,
    )


def test_a_run_that_breaks_before_its_first_checkpoint_starts_again(new_run, whole):
    run = new_run()
    with pytest.raises(Break):
        run(on_step=break_at(2), checkpoint_every_s=300)
    assert not list(run.folder.glob("*"))
    run.network = new_run().network
    run(resume=True).assert_same_bits(whole)


def test_a_run_without_its_last_checkpoint_goes_on_from_the_best(new_run, whole):
    run = new_run()
    with pytest.raises(Break):
        run(on_step=break_at(5), validate=lambda network: {"dice": 0.5})
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


def test_epochs_report_loss_rate_and_step(whole):
    losses = [loss for _, _, loss, _ in whole.steps]
    assert [step for step, *_ in whole.steps] == [1, 2, 3, 4, 5, 6]
    assert [progress for _, progress, *_ in whole.steps] == pytest.approx(
        [n / 6 for n in range(1, 7)]
    )
    first, second = whole.reports
    assert (first.epoch, first.step, second.epoch, second.step) == (0, 3, 1, 6)
    assert first.loss == pytest.approx(sum(losses[:3]) / 3)
    assert second.loss == pytest.approx(sum(losses[3:]) / 3)
    assert first.lr == learning_rate(Optimiser(), 2 / 6)
    assert second.lr == learning_rate(Optimiser(), 5 / 6)
    assert (first.skipped_steps, second.skipped_steps) == (0, 0)


def test_the_best_epoch_is_kept_and_the_last_one_too(new_run):
    dice = iter([0.3, 0.7, 0.7, 0.6])
    run = new_run()(epochs=4, validate=lambda network: {"dice": next(dice)})
    assert (run.state.best_dice, run.state.best_epoch, run.state.epochs_done) == (0.7, 1, 4)
    assert int(read_checkpoint(run.folder / BEST)["state_dict"]["steps_done"]) == 6
    assert int(run.last["state_dict"]["steps_done"]) == 12
    assert [report.scores["dice"] for report in run.reports] == [0.3, 0.7, 0.7, 0.6]


def test_patience_ends_a_run_that_gets_no_better(new_run):
    dice = iter([0.3, 0.7, 0.6, 0.7, 0.9])
    run = new_run()(epochs=9, patience=2, validate=lambda network: {"dice": next(dice)})
    assert (run.state.epochs_done, run.state.best_epoch) == (4, 1)
    assert run.state.stopped_because == "no better Dice for 2 epochs"
    assert int(run.last["state_dict"]["steps_done"]) == 12


def test_a_dice_of_zero_is_better_than_none(new_run):
    run = new_run()(epochs=1, validate=lambda network: {"dice": 0.0})
    assert (run.state.best_epoch, run.state.best_dice) == (0, 0.0)


class FakeTime:
    """A clock that moves when it is told to."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now

    def pass_(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    fake = FakeTime()
    for module in ("fit", "callbacks", "schedule"):
        monkeypatch.setattr(f"lamina.training.{module}.time", fake)
    return fake


def test_a_time_budget_ends_the_run_with_the_rate_near_zero(new_run, clock):
    def validate(network):
        clock.pass_(2)
        return {"dice": 0.5}

    run = new_run()(
        epochs=None, time_budget_s=40, validate=validate, on_step=lambda *_: clock.pass_(1)
    )
    assert clock.now - 1000 <= 40  # the last validation included
    assert clock.now - 1000 >= 36
    assert run.reports[-1].lr < 0.01 * Optimiser().lr
    assert run.reports[-1].step == run.steps[-1][0]
    assert run.steps[-1][1] == 1
    rates = [report.lr for report in run.reports]
    assert rates == sorted(rates, reverse=True)


def test_a_resumed_run_does_not_get_its_time_anew(new_run, clock):
    run = new_run()
    timed = {"epochs": None, "time_budget_s": 20}

    def on_step(done, *_):
        clock.pass_(1)
        break_at(8)(done)

    with pytest.raises(Break):
        run(on_step=on_step, **timed)
    clock.pass_(1000)  # while nothing ran
    run(on_step=lambda *_: clock.pass_(1), resume=True, **timed)
    assert 18 <= run.state.elapsed_s <= 22
    assert 18 <= run.steps[-1][0] <= 22


def test_a_resumed_run_still_keeps_time_for_its_last_validation(new_run, clock):
    def validate(network):
        clock.pass_(4)
        return {"dice": 0.5}

    def on_step(done, *_):
        clock.pass_(1)
        break_at(27)(done)

    run = new_run()
    timed = {"epochs": None, "steps_per_epoch": 12, "time_budget_s": 40, "validate": validate}
    with pytest.raises(Break):
        run(on_step=on_step, **timed)  # after 34 of 40 seconds
    run(on_step=lambda *_: clock.pass_(1), resume=True, **timed)
    assert run.reports[-1].step == 30


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("step", [2, 5])
def test_a_signal_stops_after_the_step_and_the_run_resumes_to_the_same_bits(
    new_run, whole, caplog, number, step
):
    before = [signal.getsignal(n) for n in SIGNALS]
    run = new_run()
    seldom = {"checkpoint_every_s": 300.0}
    run(on_step=lambda done, *_: done == step and os.kill(os.getpid(), number), **seldom)
    assert run.state.stopped_because == signal.Signals(number).name
    assert "--resume goes on from here" in caplog.text
    assert [signal.getsignal(n) for n in SIGNALS] == before
    assert run.state.best_epoch == 0  # there is a model, even before the first epoch's end
    assert read_checkpoint(run.folder / BEST)
    assert step <= int(run.last["state_dict"]["steps_done"]) <= step + 1
    run.network = new_run(seed=5).network
    run(resume=True).assert_same_bits(whole)
    assert run.state.stopped_because == ""
    assert recorded(run) == recorded(whole)


def test_a_file_called_stop_ends_the_run(new_run, whole):
    run = new_run()
    run.folder.mkdir()
    (run.folder / "stop").touch()  # left over from an earlier time: does not count
    run(on_step=lambda done, *_: done == 4 and (run.folder / "stop").touch())
    assert run.state.stopped_because == "stop file"
    assert not (run.folder / "stop").exists()
    assert len(run.steps) == 5
    run(resume=True).assert_same_bits(whole)


def test_an_impatient_ctrl_c_is_a_keyboard_interrupt_and_leaves_the_signals_alone(new_run, whole):
    before = [signal.getsignal(n) for n in SIGNALS]
    run = new_run()

    def twice(done, *_):
        if done == 4:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        run(on_step=twice)
    assert [signal.getsignal(n) for n in SIGNALS] == before
    run(resume=True).assert_same_bits(whole)


def test_ctrl_c_before_the_first_step_is_a_keyboard_interrupt_too(new_run):
    class Slow(HistoryLogger):
        @property
        def experiment(self):
            os.kill(os.getpid(), signal.SIGINT)

    before = [signal.getsignal(n) for n in SIGNALS]
    run = new_run()
    with pytest.raises(KeyboardInterrupt):
        run(loggers=[Slow(run.folder / "metrics.jsonl")])
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_a_crash_leaves_the_signals_as_they_were(new_run):
    before = [signal.getsignal(n) for n in SIGNALS]
    with pytest.raises(Break):
        new_run()(on_step=break_at(1))
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_training_works_outside_the_main_thread(new_run, whole):
    run = new_run()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    run.assert_same_bits(whole)


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


def test_half_precision_floats_need_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_precision("auto") == "fp32"
    assert resolve_precision("bf16") == "bf16"
    with pytest.raises(ConfigError, match="precision = 'fp16': needs a GPU"):
        resolve_precision("fp16")


def test_bfloat16_trains_too(new_run, whole):
    run = new_run()(precision="bf16")
    assert run.state.epochs_done == 2
    losses = [loss for _, _, loss, _ in run.steps]
    assert losses == pytest.approx([loss for _, _, loss, _ in whole.steps], rel=0.05)
    assert losses != [loss for _, _, loss, _ in whole.steps]


class Faulty:
    """A loss that goes wrong at some calls."""

    def __init__(self, how, calls):
        self.loss, self.how, self.calls, self.count = build_loss("dice_ce"), how, calls, 0

    def __call__(self, logits, target):
        self.count += 1
        loss = self.loss(logits, target)
        return loss + self.how(logits) if self.count in self.calls else loss


FAULTS = {
    "nan": lambda logits: logits.sum() * float("nan"),
    "infinite, gradient finite": lambda logits: float("inf"),
    "gradient nan, loss finite": lambda logits: (logits - logits).sum().sqrt(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_step_that_is_not_finite_changes_no_weight_and_is_counted(new_run, fault):
    run = new_run(loss=Faulty(FAULTS[fault], {3}))
    seen = []

    def look(average):
        copied = [[p.detach().clone() for p in net.parameters()] for net in (run.network, average)]
        seen.append(copied)
        return {"dice": 0.5}

    run(steps_per_epoch=1, epochs=4, validate=look)
    assert_close(seen[2], seen[1], rtol=0, atol=0)
    with pytest.raises(AssertionError):
        assert_close(seen[3], seen[2], rtol=0, atol=0)
    assert [report.skipped_steps for report in run.reports] == [0, 0, 1, 1]
    assert all(torch.isfinite(p).all() for nets in seen for net in nets for p in net)
    assert all(report.loss == report.loss for report in run.reports)


def test_skipped_steps_are_remembered_by_a_resumed_run(new_run):
    run = new_run(loss=Faulty(FAULTS["nan"], {2}))
    with pytest.raises(Break):
        run(on_step=break_at(4))
    run(resume=True)
    assert [report.skipped_steps for report in run.reports] == [1, 1]


def test_numbers_that_stay_nan_end_the_run_with_advice(new_run):
    run = new_run(loss=Faulty(FAULTS["nan"], range(4, 100)))
    with pytest.raises(TrainingError, match="26 times in a row; stopped at step 28") as caught:
        run(epochs=20)
    assert "optimiser.lr" in caught.value.remedy
    assert int(run.last["state_dict"]["steps_done"]) == 28
    run.loss = build_loss("dice_ce")
    run(resume=True, epochs=10)
    assert run.state.epochs_done == 10

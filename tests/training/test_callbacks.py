"""Epochs, the end of a run, and stopping before it."""

import os
import signal
import threading
from itertools import pairwise

import pytest
from lightning.pytorch.loggers.logger import DummyLogger

from lamina.losses import build_loss
from lamina.training.callbacks import RunState
from lamina.training.checkpoints import BEST, read_checkpoint
from lamina.training.config import Optimiser, TrainConfig
from lamina.training.fit import fit
from lamina.training.schedule import learning_rate

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@pytest.fixture(autouse=True)
def heeded():
    """Signals act as in a terminal, also where whatever started the tests had some ignored."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


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


def test_a_run_that_diverges_says_so_once(new_run, caplog):
    new_run("well")(epochs=2, validate=lambda network: {"dice": 0.0})
    assert not caplog.text
    wild = Optimiser(lr=1e3, warmup=0.5, max_grad_norm=None, ema_decay=0)
    new_run("wild")(epochs=6, optimiser=wild, validate=lambda network: {"dice": 0.1})
    assert "training diverges. Lower optimiser.lr, which is 1000" in caplog.records[0].message
    losses = [float(record.args[1]) for record in caplog.records]
    assert all(later > 5 * sooner for sooner, later in pairwise(losses))


def test_patience_ends_a_run_that_gets_no_better(new_run):
    dice = iter([0.3, 0.7, 0.6, 0.7, 0.9])
    run = new_run()(epochs=9, patience=2, validate=lambda network: {"dice": next(dice)})
    assert (run.state.epochs_done, run.state.best_epoch) == (4, 1)
    assert run.state.stopped_because == "no better Dice for 2 epochs"
    assert int(run.last["state_dict"]["steps_done"]) == 12
    run(epochs=9, patience=2, resume=True, validate=lambda network: pytest.fail("went on"))
    assert (run.state.epochs_done, run.state.stopped_because[:9]) == (4, "no better")
    run(epochs=9, patience=3, resume=True, validate=lambda network: {"dice": 0.6})
    assert run.state.epochs_done == 5


def test_another_score_can_decide_which_epoch_is_best(new_run):
    scores = iter(
        [{"dice": 0.8, "iou": 0.5}, {"dice": 0.7, "iou": 0.6}, {"dice": 0.9, "iou": 0.55}]
    )
    run = new_run()
    run(epochs=2, select_by="iou", validate=lambda network: next(scores))
    assert (run.state.best_epoch, run.state.best_score, run.state.best_dice) == (1, 0.6, 0.7)
    run(epochs=3, select_by="iou", patience=1, resume=True, validate=lambda network: next(scores))
    assert run.state.best_epoch == 1
    assert run.state.stopped_because == "no better IoU for 1 epochs"


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
    for module in ("fit", "schedule"):
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


def test_a_time_budget_holds_a_first_validation_that_is_its_last_one(new_run, clock):
    def validate(network):
        clock.pass_(8)
        return {"dice": 0.5}

    timed = {"epochs": None, "steps_per_epoch": 99, "time_budget_s": 40, "validation_steps": 8}
    run = new_run()(validate=validate, on_step=lambda *_: clock.pass_(1), **timed)
    assert clock.now - 1000 <= 40
    assert run.reports[-1].step >= 27


def test_a_validation_near_the_end_of_the_time_is_left_to_the_end(new_run, clock):
    def validate(network):
        clock.pass_(10)
        return {"dice": 0.5}

    timed = {"epochs": None, "steps_per_epoch": 12, "time_budget_s": 56}
    run = new_run()(validate=validate, on_step=lambda *_: clock.pass_(1), **timed)
    assert [report.step for report in run.reports] == [12, run.steps[-1][0]]
    assert run.steps[-1][0] >= 30
    assert run.reports[-1].lr < 0.02 * Optimiser().lr
    assert clock.now - 1000 <= 56


def test_a_guess_that_is_far_too_high_costs_no_validation_and_no_time(new_run, clock):
    timed = {"epochs": None, "steps_per_epoch": 12, "time_budget_s": 60, "validation_steps": 40}
    run = new_run()(on_step=lambda *_: clock.pass_(1), **timed)
    assert run.reports[0].step == 12
    assert clock.now - 1000 >= 54


def test_a_run_that_died_before_its_first_step_begins_though_its_time_is_over(new_run, clock):
    run, timed = new_run(), {"epochs": None, "time_budget_s": 20}
    run.crash_after(1, checkpoint_every_s=300, began=clock.now - 30, **timed)
    run(resume=True, **timed)
    assert run.state.best_epoch == 0


def test_a_time_budget_holds_on_a_machine_that_has_become_slower(new_run, clock):
    steps = 0

    def pace():
        return 3 if steps >= 24 else 1

    def loss(logits, target):
        nonlocal steps
        steps += 1
        clock.pass_(pace())
        return build_loss("dice_ce")(logits, target)

    def validate(network):
        clock.pass_(4 * pace())
        return {"dice": 0.5}

    timed = {"epochs": None, "steps_per_epoch": 20, "time_budget_s": 75, "validate": validate}
    run = new_run(loss=loss)(**timed)
    assert run.reports[0].step == 20
    assert len(run.reports) == 2
    assert 65 <= clock.now - 1000 <= 75


def test_what_comes_before_the_first_step_is_within_the_time_budget(new_run, clock):
    timed = {"epochs": None, "time_budget_s": 20, "began": clock.now - 12}
    run = new_run()(on_step=lambda *_: clock.pass_(1), **timed)
    assert 7 <= run.steps[-1][0] <= 9
    assert 18 <= run.state.elapsed_s <= 20


def test_a_run_killed_in_its_last_validation_is_validated_when_it_is_resumed(new_run, clock):
    def die(network):
        raise RuntimeError("killed")

    run = new_run()
    timed = {"epochs": None, "steps_per_epoch": 99, "on_step": lambda *_: clock.pass_(1)}
    with pytest.raises(RuntimeError, match="killed"):
        run(validate=die, time_budget_s=10, **timed)
    run(resume=True, time_budget_s=6, **timed)
    assert run.state.best_epoch == 0
    assert read_checkpoint(run.folder / BEST)
    steps = run.last["state_dict"]["steps_done"]
    run(resume=True, time_budget_s=6, validate=die, **timed)  # now there is nothing to do
    assert run.last["state_dict"]["steps_done"] == steps


def test_a_checkpoint_of_another_version_is_gone_on_with():
    state = RunState.of({"elapsed_s": 3.0, "reserve_s": 2.0})
    assert (state.elapsed_s, state.ending) == (3.0, {})


def test_a_resumed_run_does_not_get_its_time_anew(new_run, clock):
    run = new_run()
    timed = {"epochs": None, "time_budget_s": 20}

    run.crash_after(8, on_step=lambda *_: clock.pass_(1), **timed)
    clock.pass_(1000)  # while nothing ran
    run(on_step=lambda *_: clock.pass_(1), resume=True, **timed)
    assert 18 <= run.state.elapsed_s <= 22
    assert 18 <= run.steps[-1][0] <= 22


def test_a_resumed_run_still_keeps_time_for_its_last_validation(new_run, clock):
    def validate(network):
        clock.pass_(4)
        return {"dice": 0.5}

    run = new_run()
    timed = {"epochs": None, "steps_per_epoch": 12, "time_budget_s": 40, "validate": validate}
    timed["on_step"] = lambda *_: clock.pass_(1)
    run.crash_after(27, **timed)  # after 34 of 40 seconds
    run(resume=True, **timed)
    assert run.reports[-1].step == 29
    assert run.state.elapsed_s <= 40


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
    assert run.history == whole.history


def test_a_file_called_stop_ends_the_run(new_run, whole):
    run = new_run()
    run.folder.mkdir()
    (run.folder / "stop").touch()  # left over from an earlier time: does not count
    run(on_step=lambda done, *_: done == 4 and (run.folder / "stop").touch())
    assert run.state.stopped_because == "stop file"
    assert not (run.folder / "stop").exists()
    assert len(run.steps) == 5
    run(resume=True).assert_same_bits(whole)


def test_the_stop_file_can_lie_elsewhere(new_run, tmp_path):
    run = new_run()
    fit(
        run.network,
        run.loss,
        run.patches,
        TrainConfig(epochs=2, steps_per_epoch=3, batch_size=2),
        run.folder,
        validate=lambda network: {"dice": 0.5},
        stop_file=tmp_path / "halt",
        on_step=lambda done, *_: done == 1 and (tmp_path / "halt").touch(),
    )
    assert int(run.last["state_dict"]["steps_done"]) == 2
    assert not (tmp_path / "halt").exists()


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
    class Slow(DummyLogger):
        @property
        def experiment(self):
            os.kill(os.getpid(), signal.SIGINT)

    before = [signal.getsignal(n) for n in SIGNALS]
    run = new_run()
    with pytest.raises(KeyboardInterrupt):
        run(loggers=[Slow()])
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_a_crash_leaves_the_signals_as_they_were(new_run):
    before = [signal.getsignal(n) for n in SIGNALS]
    new_run().crash_after(1)
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_training_works_outside_the_main_thread(new_run, whole):
    run = new_run()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    run.assert_same_bits(whole)

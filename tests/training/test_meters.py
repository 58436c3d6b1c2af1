"""Time spent waiting for patches is told from time spent on training."""

import pytest
from torch.utils.data import Dataset

from lamina.training.meters import TimedLoader, Waits


class FakeTime:
    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    fake = FakeTime()
    for module in ("meters", "schedule"):  # waits, and what a validation takes
        monkeypatch.setattr(f"lamina.training.{module}.time", fake)
    return fake


class Slow(Dataset):
    """Ten numbers, each of which takes two seconds to get."""

    def __init__(self, clock):
        self.clock = clock

    def __len__(self):
        return 10

    def __getitem__(self, number):
        self.clock.now += 2
        return number


def test_a_loader_counts_what_it_lets_wait_and_not_what_is_done_with_its_batches(clock):
    loader, seen = TimedLoader(Slow(clock), batch_size=2), []
    for batch in loader:
        seen += batch.tolist()
        clock.now += 100
    assert seen == list(range(10))
    assert loader.waited_s == 20


def test_the_share_is_that_of_steps_alone_epoch_by_epoch(clock):
    loader = TimedLoader(Slow(clock))
    waits = Waits(training_s=100, waited_s=50)

    def step(waited, worked):
        waits.begin_step()
        loader.waited_s += waited
        clock.now += waited + worked
        waits.end_step(loader)
        clock.now += 1000  # validation

    step(1, 3)
    step(2, 2)
    assert waits.close_epoch() == 3 / 8
    step(0, 5)
    assert waits.close_epoch() == 0
    assert waits.close_epoch() == 0
    assert (waits.training_s, waits.waited_s) == (113, 53)


def test_a_run_tells_its_share_and_a_resumed_one_goes_on_counting(new_run, clock):
    run = new_run()
    cut = type(run.patches).__getitem__

    def slow_cut(patches, number):
        clock.now += 1
        return cut(patches, number)

    loss = run.loss

    def slow_loss(*given):
        clock.now += 6
        return loss(*given)

    def slow_validation(network):
        clock.now += 500
        return {"dice": 0.5}

    run.loss = slow_loss
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(run.patches), "__getitem__", slow_cut)
        run(epochs=2, validate=slow_validation)
        assert [report.waiting for report in run.reports] == [0.25, 0.25]  # two patches a step
        assert run.reports[0].flat()["waiting"] == 0.25
        run(epochs=3, validate=slow_validation, resume=True)
    assert (run.state.training_s, run.state.waited_s) == (9 * 8, 9 * 2)
    assert run.state.waiting == 0.25

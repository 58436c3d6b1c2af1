"""How far a run has come, and the learning rate there."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.training import schedule
from lamina.training.config import Optimiser, Stages
from lamina.training.schedule import Clock, Ending, learning_rate, staged

optimisers = st.builds(
    Optimiser,
    lr=st.floats(1e-6, 1.0),
    schedule=st.sampled_from(["cosine", "polynomial", "step", "constant"]),
    power=st.floats(0.1, 5),
    stages=st.builds(Stages, factor=st.floats(0.01, 1), count=st.integers(1, 50)),
    warmup=st.floats(0, 0.9),
    final_lr=st.floats(0, 1),
)
shares = st.floats(0, 1)


@settings(deadline=None)
@given(optimisers, shares)
def test_the_rate_stays_between_zero_and_its_peak(optimiser, progress):
    assert 0 <= learning_rate(optimiser, progress) <= optimiser.lr * (1 + 1e-12)


@settings(deadline=None)
@given(optimisers, shares, shares)
def test_the_rate_rises_until_the_warm_up_ends_and_falls_afterwards(optimiser, one, other):
    early, late = sorted((one, other))
    first, second = learning_rate(optimiser, early), learning_rate(optimiser, late)
    if late <= optimiser.warmup:
        assert first <= second * (1 + 1e-12)
    elif early >= optimiser.warmup:
        assert first >= second * (1 - 1e-12)


@settings(deadline=None)
@given(optimisers)
def test_the_rate_peaks_after_the_warm_up_and_ends_where_it_should(optimiser):
    assert learning_rate(optimiser, optimiser.warmup) == pytest.approx(optimiser.lr)
    just_before = learning_rate(optimiser, optimiser.warmup * (1 - 1e-9))
    assert just_before == pytest.approx(optimiser.lr, rel=1e-6)
    ends = {
        "step": optimiser.stages.factor ** (optimiser.stages.count - 1),
        "constant": 1,
    }
    end = optimiser.lr * ends.get(optimiser.schedule, optimiser.final_lr)
    assert learning_rate(optimiser, 1.0) == pytest.approx(end, abs=1e-12)


def test_the_rate_follows_half_a_cosine():
    optimiser = Optimiser(lr=2.0, warmup=0.2, final_lr=0.1)
    assert learning_rate(optimiser, 0.1) == pytest.approx(1.0)
    assert learning_rate(optimiser, 0.6) == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    quarter = 2.0 * (0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert learning_rate(optimiser, 0.4) == pytest.approx(quarter)


def test_the_rate_follows_a_power_of_what_is_left():
    """LGMSNet's and DAI-Net's."""
    optimiser = Optimiser(lr=0.02, schedule="polynomial", warmup=0)
    for step in (0, 1, 13999):
        expected = 0.02 * (1 - step / 14000) ** 0.9
        assert learning_rate(optimiser, step / 14000) == pytest.approx(expected)


def test_the_rate_falls_in_steps_that_end_exactly_where_they_should():
    """MPU-Net's: it is halved every 100 of 600 epochs of 88 steps."""
    optimiser = Optimiser(lr=1e-4, schedule="step", warmup=0, stages=Stages(factor=0.5, count=6))
    for epoch in range(600):
        for step in (88 * epoch, 88 * epoch + 87):
            rate = learning_rate(optimiser, step / (88 * 600))
            assert rate == 1e-4 * 0.5 ** (epoch // 100), step


@pytest.mark.parametrize("count", [3, 7, 49, 107])
def test_rounding_makes_no_part_late(count):
    stages = Stages(factor=0.5, count=count)
    assert all(staged(stages, k / count) == 0.5**k for k in range(count))
    assert staged(stages, 1.0) == 0.5 ** (count - 1)


def test_a_constant_rate_stays_after_the_warm_up():
    optimiser = Optimiser(lr=0.5, schedule="constant", warmup=0.1)
    assert [learning_rate(optimiser, x) for x in (0.05, 0.1, 0.7, 1)] == [0.25, 0.5, 0.5, 0.5]


@pytest.fixture
def now(monkeypatch):
    """Return a function that sets what the clock reads."""

    class Time:
        reading = 0.0

        def monotonic(self):
            return self.reading

    fake = Time()
    monkeypatch.setattr(schedule, "time", fake)
    return lambda reading: setattr(fake, "reading", reading)


def test_progress_by_steps():
    clock = Clock(max_steps=200, time_budget_s=None, started=0.0)
    assert [clock.progress(step) for step in (0, 50, 200, 300)] == [0, 0.25, 1, 1]


def test_progress_by_time_leaves_room_for_the_end_of_the_run(now):
    clock = Clock(max_steps=None, time_budget_s=100, started=50.0)
    now(75.0)
    assert clock.progress(10**6) == 0.25
    clock.ending = Ending(validation_s=12, saving_s=1)  # 18 s: three files, and a fifth more
    now(91.0)
    assert clock.progress(0) == pytest.approx(0.5)
    now(132.0)
    assert clock.progress(0) == 1


def test_a_validation_longer_than_the_budget_ends_the_run(now):
    clock = Clock(max_steps=None, time_budget_s=10, started=0.0, ending=Ending(validation_s=50))
    now(1.0)
    assert clock.progress(1) == 1


def take_steps(clock, now, begins):
    for began, ended in zip(begins, begins[1:], strict=False):
        now(began)
        clock.begin_step()
        now(ended)
        clock.end_step()


def test_the_first_validation_is_foreseen_by_the_pace_of_steps(now):
    clock = Clock(max_steps=None, time_budget_s=100, started=0.0, ending=Ending(steps=10))
    take_steps(clock, now, [0.0, 2.0, 4.0])
    assert clock.progress(2) == pytest.approx(4 / (100 - 2 - 1.2 * 20))
    now(9.0)
    clock.validated(since_s=4.0)  # it took a quarter of the guess
    assert clock.progress(2) == pytest.approx(9 / (100 - 2 - 1.2 * 5))


def test_a_guess_leaves_half_of_the_time_for_steps(now):
    clock = Clock(max_steps=None, time_budget_s=100, started=0.0, ending=Ending(steps=1000))
    take_steps(clock, now, [0.0, 2.0])
    assert clock.progress(1) == pytest.approx(2 / 50)


def test_where_steps_become_slower_so_does_the_validation_that_is_foreseen(now):
    clock = Clock(max_steps=None, time_budget_s=1000, started=0.0)
    take_steps(clock, now, [float(n) for n in range(17)])
    now(20.0)
    clock.validated(since_s=16.0)  # as long as four steps
    take_steps(clock, now, [20.0 + 3 * n for n in range(17)])
    assert clock.progress(32) == pytest.approx(68 / (1000 - 3 - 1.2 * 4 * 3))


def test_what_comes_before_the_first_step_is_no_progress(now):
    clock = Clock(max_steps=None, time_budget_s=100, started=0.0)
    now(20.0)
    clock.begin_training()
    assert clock.progress(0) == 0
    now(60.0)
    assert clock.progress(1) == pytest.approx(0.5)
    assert clock.remaining_s(1) == pytest.approx(40)
    now(100.0)
    assert clock.progress(2) == 1


def test_a_validation_that_would_end_the_run_is_left_to_its_end(now):
    """Of an hour, a validation of 1068 s after 1500 s would leave no time for a further step."""
    ending = Ending(validation_s=1068)
    clock = Clock(max_steps=None, time_budget_s=3600, started=0.0, ending=ending)
    now(900.0)
    assert not clock.is_near_end
    now(1500.0)
    assert clock.is_near_end
    assert clock.progress(500) < 1
    assert not Clock(max_steps=10, time_budget_s=None, started=0.0, ending=ending).is_near_end


def test_progress_is_the_larger_of_steps_and_time(now):
    clock = Clock(max_steps=100, time_budget_s=100, started=0.0)
    now(30.0)
    assert clock.progress(10) == 0.3
    assert clock.progress(40) == 0.4


def test_the_time_to_go_is_what_the_present_pace_leaves(now):
    clock = Clock(max_steps=100, time_budget_s=None, started=0.0)
    assert clock.remaining_s(0) is None
    now(30.0)
    assert clock.remaining_s(25) == pytest.approx(90)
    assert clock.remaining_s(100) == 0

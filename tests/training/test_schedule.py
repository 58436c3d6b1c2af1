"""How far a run has come, and the learning rate there."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lamina.training import schedule
from lamina.training.config import Optimiser
from lamina.training.schedule import Clock, learning_rate

optimisers = st.builds(
    Optimiser,
    lr=st.floats(1e-6, 1.0),
    warmup=st.floats(0, 0.9),
    final_lr=st.floats(0, 1),
)
shares = st.floats(0, 1)


@given(optimisers, shares)
def test_the_rate_stays_between_zero_and_its_peak(optimiser, progress):
    assert 0 <= learning_rate(optimiser, progress) <= optimiser.lr * (1 + 1e-12)


@given(optimisers, shares, shares)
def test_the_rate_rises_until_the_warm_up_ends_and_falls_afterwards(optimiser, one, other):
    early, late = sorted((one, other))
    first, second = learning_rate(optimiser, early), learning_rate(optimiser, late)
    if late <= optimiser.warmup:
        assert first <= second * (1 + 1e-12)
    elif early >= optimiser.warmup:
        assert first >= second * (1 - 1e-12)


@given(optimisers)
def test_the_rate_peaks_after_the_warm_up_and_ends_where_it_should(optimiser):
    assert learning_rate(optimiser, optimiser.warmup) == pytest.approx(optimiser.lr)
    just_before = learning_rate(optimiser, optimiser.warmup * (1 - 1e-9))
    assert just_before == pytest.approx(optimiser.lr, rel=1e-6)
    end = optimiser.lr * optimiser.final_lr
    assert learning_rate(optimiser, 1.0) == pytest.approx(end, abs=1e-12)


def test_the_rate_follows_half_a_cosine():
    optimiser = Optimiser(lr=2.0, warmup=0.2, final_lr=0.1)
    assert learning_rate(optimiser, 0.1) == pytest.approx(1.0)
    assert learning_rate(optimiser, 0.6) == pytest.approx(2.0 * (0.1 + 0.9 / 2))
    quarter = 2.0 * (0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert learning_rate(optimiser, 0.4) == pytest.approx(quarter)


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


def test_progress_by_time_keeps_a_reserve_for_the_last_validation(now):
    clock = Clock(max_steps=None, time_budget_s=100, started=50.0)
    now(75.0)
    assert clock.progress(10**6) == 0.25
    clock.reserve_s = 20
    now(90.0)
    assert clock.progress(0) == 0.5
    now(130.0)
    assert clock.progress(0) == 1


def test_a_validation_longer_than_the_budget_ends_the_run(now):
    clock = Clock(max_steps=None, time_budget_s=10, started=0.0, reserve_s=60)
    now(1.0)
    assert clock.progress(1) == 1


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

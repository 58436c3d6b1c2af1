"""Friedman, Nemenyi and rank stability: published values, by hand, and what must hold."""

import math

import numpy as np
import pytest

from lamina.evaluation.statistics.ranking import critical_difference, friedman, nemenyi, stability

PUBLISHED_Q = {
    **{2: 1.960, 3: 2.343, 4: 2.569, 5: 2.728, 6: 2.850, 7: 2.949},
    **{8: 3.031, 9: 3.102, 10: 3.164},
}
"""Demsar (2006), table 5a, at 5 %; his quantiles were rounded before they were divided."""

PUBLISHED_RANKS = np.array(
    [
        [4, 1, 4, 4, 4, 1, 3, 2.5, 4, 2.5, 4, 3, 4, 3],
        [3, 2, 1, 1, 2, 2.5, 2, 2.5, 3, 2.5, 2.5, 2, 1, 1],
        [2, 3, 2, 3, 3, 4, 4, 4, 2, 2.5, 1, 4, 2, 4],
        [1, 4, 3, 2, 1, 2.5, 1, 1, 1, 2.5, 2.5, 1, 3, 2],
    ]
)
"""Demsar (2006), table 6: four classifiers on 14 data sets."""


@pytest.mark.parametrize(("k", "q"), PUBLISHED_Q.items())
def test_critical_differences_are_those_of_the_published_table(k, q):
    found = critical_difference(k, 25)
    assert found / math.sqrt(k * (k + 1) / 150) == pytest.approx(q, abs=1e-3)


def test_the_published_example():
    """Mean ranks, critical difference 1.25 and the pairs that it tells apart (section 3.2.2)."""
    found = friedman(PUBLISHED_RANKS, higher_is_better=False)
    assert found.mean_ranks == pytest.approx((3.143, 2.000, 2.893, 1.964), abs=5e-4)
    assert found.critical_difference == pytest.approx(1.25, abs=0.005)
    uncorrected = 12 * 14 / 20 * (sum(r**2 for r in found.mean_ranks) - 25)
    assert uncorrected == pytest.approx(9.28, abs=0.005)
    assert found.statistic >= uncorrected  # the correction for ties only adds


def test_friedman_by_hand():
    """Four patients who agree: 12 / (4 * 3 * 4) * (4^2 + 8^2 + 12^2) - 3 * 4 * 4 = 8."""
    values = np.array([[0.9, 0.8, 0.7, 0.6], [0.5, 0.5, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4]])
    found = friedman(values, higher_is_better=True)
    assert found.mean_ranks == (1, 2, 3)
    assert found.statistic == pytest.approx(8)
    assert found.p == pytest.approx(math.exp(-4))  # two degrees of freedom


def test_nemenyi_agrees_with_its_critical_difference():
    apart = critical_difference(4, 14)
    p = nemenyi((1.0, 1.0 + apart, 1.0 + 2 * apart, 1.0), 14)
    assert p[0, 1] == pytest.approx(0.05, abs=1e-6)
    assert p[0, 2] < 0.001
    assert p[0, 3] == pytest.approx(1)
    assert (p == p.T).all()


def test_methods_that_never_differ_are_no_evidence():
    found = friedman(np.full((3, 5), 0.7), higher_is_better=True)
    assert (found.statistic, found.p, found.mean_ranks) == (0, 1, (2, 2, 2))


def test_a_method_that_always_wins_always_holds_the_first_rank():
    rng = np.random.default_rng(0)
    base = rng.uniform(0.4, 0.6, 12)
    values = np.stack([base, base + 0.2, base - rng.uniform(0.01, 0.02, 12)])
    second, first, third = stability(values, higher_is_better=True)
    assert (first.rank, second.rank, third.rank) == (1, 2, 3)
    assert first.shares == (1, 0, 0)
    assert (first.low, first.high) == (1, 1)
    last, *_ = reversed(stability(-values, higher_is_better=False))
    assert last.shares == (0, 0, 1)


def test_shares_of_ranks_are_those_of_all_resamples():
    """Two patients, drawn twice: means differ by +3 or -1, or by +1 half of the time."""
    values = np.array([[3.0, 0.0], [0.0, 1.0]])
    first, second = stability(values, higher_is_better=True)
    assert first.shares[0] == pytest.approx(0.75, abs=0.02)
    assert second.shares == pytest.approx(first.shares[::-1])
    assert (first.low, first.high) == (1, 2)


def test_equal_methods_share_the_better_rank():
    values = np.array([[0.5, 0.7, 0.1], [0.5, 0.7, 0.1], [0.1, 0.1, 0.0]])
    found = stability(values, higher_is_better=True)
    assert [one.rank for one in found] == [1, 1, 3]
    assert [one.shares[0] for one in found] == [1, 1, 0]

"""Bootstrap intervals of a mean: against a restatement, by coverage, and where none exists."""

import math

import numpy as np
import pytest
from scipy.stats import norm

from lamina.evaluation.statistics import intervals
from lamina.evaluation.statistics.intervals import mean_interval

SKEWED = np.random.default_rng(5).beta(12, 2, 25)


def restated_bca(values, resamples=200_000):
    """The interval by Efron's formulas, from another stream of random numbers."""
    n = len(values)
    means = np.concatenate(
        [
            values[np.random.default_rng(i).integers(0, n, (resamples // 20, n))].mean(axis=1)
            for i in range(20)
        ]
    )
    left_out = (values.sum() - values) / (n - 1)
    apart = left_out.mean() - left_out
    acceleration = (apart**3).sum() / (6 * (apart**2).sum() ** 1.5)
    bias = norm.ppf((means < values.mean()).mean())
    shifted = bias + norm.ppf([0.025, 0.975])
    return np.quantile(means, norm.cdf(bias + shifted / (1 - acceleration * shifted)))


def test_agrees_with_the_formulas():
    found = mean_interval(SKEWED)
    assert found.mean == pytest.approx(SKEWED.mean())
    assert found.n == 25
    assert (found.low, found.high) == pytest.approx(restated_bca(SKEWED), abs=0.001)


def test_the_same_values_give_the_same_interval():
    assert mean_interval(SKEWED) == mean_interval(SKEWED.copy())


def test_covers_the_true_mean_about_as_often_as_it_says(monkeypatch):
    monkeypatch.setattr(intervals, "RESAMPLES", 499)
    rng = np.random.default_rng(1)
    samples = rng.beta(40, 5, (400, 40))
    found = [mean_interval(sample) for sample in samples]
    covered = np.mean([one.low <= 40 / 45 <= one.high for one in found])
    assert 0.91 < covered < 0.98


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([], "0 patients"),
        ([0.5], "a single patient"),
        ([0.5, 0.6, 0.4, 0.5], "4 patients"),
        ([0.5] * 9, "all values are the same"),
        ([0.5] * 8 + [np.nextafter(0.5, 1)], "all values are the same"),
    ],
)
def test_there_is_no_interval_of_few_patients_or_where_nothing_varies(values, why):
    found = mean_interval(np.array(values))
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.missing == why
    assert math.isnan(found.mean) if not values else found.mean == pytest.approx(0.5)


def test_five_values_bound_their_mean():
    found = mean_interval(np.array([0.2, 0.6, 0.3, 0.4, 0.5]))
    assert 0.2 <= found.low <= 0.4 <= found.high <= 0.6

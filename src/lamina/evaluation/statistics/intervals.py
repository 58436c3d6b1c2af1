"""Confidence intervals of means by the bootstrap: patients are drawn again, with replacement."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

from lamina.evaluation.statistics import DIGITS, LEVEL, SEED

FEWEST = 5
"""Patients; there is no interval of the mean of fewer."""
FEW = 20
"""Below, bootstrap intervals cover clearly less than they promise; see docs/statistics.md."""
FEW_TOLD = (
    f"Intervals, and all else that tells of spread, are too narrow with fewer than {FEW} patients: "
    f"the few there are stand for all others. With fewer than {FEWEST} there is no interval."
)

RESAMPLES = 9999
_VALUES_AT_ONCE = 1 << 22
"""Resampled values that are held in memory together."""


def caution_of(counts: Iterable[int]) -> str:
    """Return what to know of intervals where any is of few patients; empty otherwise.

    Args:
        counts: Patients of each interval.
    """
    return FEW_TOLD if any(n < FEW for n in counts) else ""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean and the interval that covers the true one in 95 of 100 studies."""

    mean: float
    """NaN without any value."""
    low: float
    """NaN, as is ``high``, where ``missing`` says why there is no interval."""
    high: float
    n: int
    missing: str = ""


def mean_interval(values: NDArray[np.float64]) -> Interval:
    """Return the mean of values ``(N,)``, none of them NaN, and its BCa bootstrap interval.

    Bias-corrected and accelerated (Efron, JASA 82(397), 1987), as scipy computes it. A few values,
    or values that are all the same, rounding aside, say nothing about how far others would lie:
    there is no interval.
    """
    n = len(values)
    mean = float(values.mean()) if n else math.nan
    if n < FEWEST or np.ptp(np.round(values, DIGITS)) == 0:
        missing = f"{n} patients" if n != 1 else "a single patient"
        missing = missing if n < FEWEST else "all values are the same"
        return Interval(mean=mean, low=math.nan, high=math.nan, n=n, missing=missing)
    found = bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, _VALUES_AT_ONCE // n),
        confidence_level=LEVEL,
        method="BCa",
        random_state=np.random.default_rng(SEED),
    ).confidence_interval
    return Interval(mean=mean, low=float(found.low), high=float(found.high), n=n)

"""Several methods on the same patients: Friedman, Nemenyi, and how stable a ranking is."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import friedmanchisquare, rankdata, studentized_range

from lamina.evaluation.statistics import ALPHA, DIGITS, LEVEL, SEED
from lamina.evaluation.statistics.paired import patients_needed

Values = NDArray[np.float64]

RESAMPLES = 5000


@dataclass(frozen=True, kw_only=True)
class Friedman:
    """Whether the methods differ at all, and by how many ranks two of them must."""

    mean_ranks: tuple[float, ...]
    """Of each method over the patients; 1 is best."""
    statistic: float
    p: float
    critical_difference: float | None
    """Nemenyi's: two methods whose mean ranks lie further apart differ at 5 %. It is of many
    patients: None of so few that no signed-rank test of a pair can come out significant."""


@dataclass(frozen=True, kw_only=True)
class Stability:
    """What ranks a method takes when the patients are drawn again."""

    rank: int
    """By its mean over the patients; equal means share the better rank."""
    shares: tuple[float, ...]
    """Share of the resamples in which it holds rank 1, 2, ..."""
    low: int
    """The ranks from ``low`` to ``high`` hold 95 % of the resamples."""
    high: int


def friedman(values: Values, higher_is_better: bool) -> Friedman:
    """Compare three or more methods by their ranks on each patient.

    Friedman's test with scipy's correction for ties, then Nemenyi's critical difference (Demsar,
    JMLR 7, 2006, section 3.2.2).

    Args:
        values: ``(methods, patients)``.
        higher_is_better: Whether the highest value of a patient ranks first.
    """
    ranks = _ranks(values, higher_is_better, "average")
    num_methods, num_patients = values.shape
    enough = num_patients >= patients_needed(math.comb(num_methods, 2))
    alike = bool((ranks == ranks[0]).all())
    statistic, p = (0.0, 1.0) if alike else friedmanchisquare(*ranks)
    return Friedman(
        mean_ranks=tuple(float(rank) for rank in ranks.mean(axis=1)),
        statistic=float(statistic),
        p=float(p),
        critical_difference=critical_difference(*values.shape) if enough else None,
    )


def critical_difference(num_methods: int, num_patients: int) -> float:
    """Return by how many mean ranks two methods must differ at 5 % (Demsar, section 3.2.2)."""
    q = studentized_range.ppf(1 - ALPHA, num_methods, np.inf) / math.sqrt(2)
    return float(q) * math.sqrt(num_methods * (num_methods + 1) / (6 * num_patients))


def nemenyi(mean_ranks: tuple[float, ...], num_patients: int) -> Values:
    """Return Nemenyi's p-value of every pair of methods ``(methods, methods)``."""
    k = len(mean_ranks)
    apart = np.abs(np.subtract.outer(mean_ranks, mean_ranks))
    unit = math.sqrt(k * (k + 1) / (6 * num_patients))
    p: Values = studentized_range.sf(math.sqrt(2) * apart / unit, k, np.inf)
    return np.minimum(p, 1.0)


def stability(values: Values, higher_is_better: bool) -> list[Stability]:
    """Rank methods by their means, again and again, on patients drawn with replacement.

    Idea of challengeR (Wiesenfarth et al., Sci Rep 11, 2369, 2021): first the mean, then the rank.

    Args:
        values: ``(methods, patients)``.
        higher_is_better: Whether the highest mean ranks first.
    """
    num_methods, n = values.shape
    drawn = np.random.default_rng(SEED).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    held = _ranks(values @ drawn.T / n, higher_is_better, "min").astype(np.intp)
    now = _ranks(values.mean(axis=1, keepdims=True), higher_is_better, "min")[:, 0]
    tails = 100 * (1 - LEVEL) / 2, 100 * (1 + LEVEL) / 2
    ends = np.percentile(held, tails, axis=1, method="inverted_cdf").astype(int)
    return [
        Stability(
            rank=int(now[method]),
            shares=tuple(float((held[method] == r).mean()) for r in range(1, num_methods + 1)),
            low=int(ends[0, method]),
            high=int(ends[1, method]),
        )
        for method in range(num_methods)
    ]


def _ranks(values: Values, higher_is_better: bool, ties: str) -> Values:
    """Rank the methods (first axis) in every column, 1 for the best."""
    signed = -values if higher_is_better else values
    ranks: Values = rankdata(np.round(signed, DIGITS), method=ties, axis=0)
    return ranks

"""Two methods on the same patients: the signed-rank test, its effect size, Holm's correction."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from lamina.evaluation.statistics import ALPHA, DIGITS

Values = NDArray[np.float64]

_EXACT_UP_TO = 200
"""Patients; beyond, the normal approximation is the same to many digits."""


@dataclass(frozen=True, kw_only=True)
class SignedRank:
    """What the Wilcoxon signed-rank test finds in paired differences."""

    p: float
    """Two-sided; 1 where no difference is other than zero."""
    rank_biserial: float
    """Share of the ranks that are positive minus the share that are negative, -1..1."""
    positive: int
    zero: int
    negative: int


def signed_rank(differences: Values) -> SignedRank:
    """Test whether differences ``(N,)`` lie symmetrically around zero.

    Wilcoxon (Biometrics Bulletin 1(6), 1945): zeros are left out, ties share their mean rank, and p
    counts all ways to give these very ranks signs, so that it is exact with ties as well. The
    effect is the matched-pairs rank-biserial correlation (Kerby, Comprehensive Psychology 3, 2014).
    """
    rounded = np.round(differences, DIGITS)
    kept = rounded[rounded != 0]
    ranks = rankdata(np.abs(kept))
    above, below = float(ranks[kept > 0].sum()), float(ranks[kept < 0].sum())
    count = _exact_p if len(kept) <= _EXACT_UP_TO else _normal_p
    return SignedRank(
        p=count(ranks, min(above, below)) if len(kept) else 1.0,
        rank_biserial=(above - below) / (above + below) if len(kept) else 0.0,
        positive=int((kept > 0).sum()),
        zero=len(rounded) - len(kept),
        negative=int((kept < 0).sum()),
    )


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm, Scand J Statist 6(2), 1979).

    The smallest is multiplied by the number of tests, the next by one less, and so on; none becomes
    smaller than the one before, or larger than 1.
    """
    order = np.argsort(p, kind="stable")
    factors = np.arange(len(p), 0, -1)
    corrected = np.empty(len(p))
    corrected[order] = np.minimum(np.maximum.accumulate(factors * np.asarray(p)[order]), 1)
    return [float(value) for value in corrected]


def patients_needed(num_tests: int) -> int:
    """Return how many patients a signed-rank test takes to come out significant at all.

    With N differences of one sign, p is 2 / 2^N; Holm's correction multiplies it by ``num_tests``.
    """
    return math.ceil(math.log2(2 * num_tests / ALPHA))


def _exact_p(ranks: Values, smaller: float) -> float:
    """Return twice the chance that random signs give a sum as small as the smaller one, or 1."""
    halves = np.rint(2 * ranks).astype(np.intp)  # mean ranks are whole or half numbers
    chances = np.zeros(halves.sum() + 1)
    chances[0] = 1.0
    for half in halves:
        chances[half:] = chances[half:] + chances[:-half]
        chances /= 2
    tail = chances[: round(2 * smaller) + 1].sum()
    return min(1.0, 2 * float(tail))


def _normal_p(ranks: Values, smaller: float) -> float:
    z = (smaller - ranks.sum() / 2) / math.sqrt((ranks**2).sum() / 4)
    return min(1.0, 2 * float(norm.cdf(z)))

"""One score, and what several of them amount to."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamina.evaluation.comparison import EmptyCase


@dataclass(frozen=True, kw_only=True)
class Score:
    """One metric of one structure or region in one case."""

    case: str
    label: str
    metric: str
    """Such as ``hd95``, or ``hd95_px`` where lengths are in pixels."""
    value: float
    """NaN when the metric does not apply."""
    rule: EmptyCase
    """Which masks were empty; the metric's rule for that case then decided the value."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """One metric of one structure or region over all cases it applies to; NaN if there are none.

    Missed and invented structures count with what the metric's rule says, but not in what is
    conditional.
    """

    mean: float
    std: float
    """Sample standard deviation; NaN for a single value."""
    median: float
    min: float
    max: float
    n: int
    """Values that the figures above rest on."""
    not_applicable: int
    missed: int
    """Cases that have the structure and a prediction without any of it."""
    invented: int
    """Cases that lack the structure and a prediction with some of it."""
    conditional_mean: float
    """Mean over the cases in which neither mask is empty."""
    conditional_std: float
    conditional_n: int


def summarise(rows: Sequence[Score]) -> Summary:
    """Return what the rows of one metric and one structure or region amount to."""
    applying = [row for row in rows if not math.isnan(row.value)]
    values = np.array([row.value for row in applying])
    found = np.array([row.value for row in applying if not row.rule])
    n = len(values)
    return Summary(
        mean=_mean(values),
        std=_std(values),
        median=float(np.median(values)) if n else math.nan,
        min=float(values.min()) if n else math.nan,
        max=float(values.max()) if n else math.nan,
        n=n,
        not_applicable=len(rows) - n,
        missed=sum(row.rule == "prediction empty" for row in rows),
        invented=sum(row.rule == "reference empty" for row in rows),
        conditional_mean=_mean(found),
        conditional_std=_std(found),
        conditional_n=len(found),
    )


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if len(values) else math.nan


def _std(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 else math.nan

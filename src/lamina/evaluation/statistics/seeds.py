"""Several trainings of one method: how far they lie apart, beside how far patients do."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class SeedSpread:
    """Spread of the values of one method over its seeds and patients."""

    means: tuple[float, ...]
    """Of each seed over the patients."""
    between: float
    """Standard deviation of ``means``."""
    within: float
    """Standard deviation over the patients, pooled over the seeds."""
    seed: float
    """Part of a value's standard deviation that a seed adds for all patients alike."""
    patient: float
    """Part that a patient adds for all seeds alike."""
    rest: float
    """Part that is of one seed on one patient; NaN, as the other parts, for a single patient."""


def seed_spread(values: NDArray[np.float64]) -> SeedSpread:
    """Divide the spread of values ``(seeds, patients)``, of two or more seeds, by its origin.

    ``seed``, ``patient`` and ``rest`` are the square roots of the variance components of a two-way
    layout without replication, both factors random, from its mean squares (Searle, Casella and
    McCulloch, Variance Components, 1992, chapter 4); a component below zero counts as zero.
    """
    num_seeds, n = values.shape
    of_seed, of_patient = values.mean(axis=1), values.mean(axis=0)
    parts = (math.nan,) * 3
    if n > 1:
        left = values - of_seed[:, None] - of_patient[None] + values.mean()
        rest = float((left**2).sum()) / ((num_seeds - 1) * (n - 1))
        seed = max(0.0, float(of_seed.var(ddof=1)) - rest / n)
        patient = max(0.0, float(of_patient.var(ddof=1)) - rest / num_seeds)
        parts = (math.sqrt(seed), math.sqrt(patient), math.sqrt(rest))
    return SeedSpread(
        means=tuple(float(mean) for mean in of_seed),
        between=float(of_seed.std(ddof=1)),
        within=math.sqrt(values.var(axis=1, ddof=1).mean()) if n > 1 else math.nan,
        seed=parts[0],
        patient=parts[1],
        rest=parts[2],
    )

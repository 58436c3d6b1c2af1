"""Expected calibration error (Guo et al., ICML 2017), of one structure against all else."""

import numpy as np

from lamina.evaluation.calibration import probabilities_around
from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, Metric, when_wrong

BINS = 20
"""Bins of equal width between 0 and 1."""


def ece(comparison: Comparison) -> float:
    """Return the mean gap, weighted by voxels, between probability and frequency in each bin."""
    probability, there = comparison.part(probabilities_around)
    bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    gaps = np.bincount(bins, probability - there, minlength=BINS)
    return float(np.abs(gaps).sum() / len(probability))


METRICS.register("ece")(
    Metric(
        name="ece",
        title="ECE",
        unit="",
        higher_is_better=False,
        definition=f"Mean gap between the structure's probability and its frequency, in {BINS} "
        "bins of probability, over the smallest box around both masks.",
        empty=when_wrong(1.0),
        function=ece,
        needs_probability=True,
    )
)

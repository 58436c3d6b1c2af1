"""Brier score (Brier, Monthly Weather Review 78, 1950), of one structure against all else."""

import numpy as np

from lamina.evaluation.calibration import probabilities_around
from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, Metric, when_wrong


def brier(comparison: Comparison) -> float:
    """Return the mean squared difference between probability and truth, from 0 to 1."""
    probability, there = comparison.part(probabilities_around)
    return float(np.mean(np.square(probability - there)))


METRICS.register("brier")(
    Metric(
        name="brier",
        title="Brier",
        unit="",
        higher_is_better=False,
        definition="Mean squared difference between the structure's probability and its presence, "
        "over the smallest box around both masks.",
        empty=when_wrong(1.0),
        function=brier,
        needs_probability=True,
    )
)

"""Brier score (Brier, Monthly Weather Review 78, 1950), of one structure against all else."""

import numpy as np

from lamina.evaluation.calibration import WHERE, probabilities_around
from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, Metric, when_wrong


def brier(comparison: Comparison) -> float:
    """Return the squared differences of probability and truth per voxel, from 0 to 1.

    No false voxel improves it.
    """
    around = comparison.part(probabilities_around)
    return around.per_voxel(float(np.square(around.probability - around.there).sum()))


METRICS.register("brier")(
    Metric(
        name="brier",
        title="Brier",
        unit="",
        higher_is_better=False,
        definition="Sum of squared differences between the structure's probability and its "
        f"presence, {WHERE}",
        empty=when_wrong(1.0),
        function=brier,
        needs_probability=True,
    )
)

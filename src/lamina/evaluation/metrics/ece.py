"""Expected calibration error (Guo et al., ICML 2017), of one structure against all else."""

import numpy as np

from lamina.evaluation.calibration import BINS, WHERE, probabilities_around, reliability
from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, Metric, when_wrong


def ece(comparison: Comparison) -> float:
    """Return the gap, weighted by voxels, between probability and frequency in each bin, 0 to 1."""
    around = comparison.part(probabilities_around)
    _, likely, frequent = reliability(around)
    return around.per_voxel(float(np.abs(likely - frequent).sum()))


METRICS.register("ece")(
    Metric(
        name="ece",
        title="ECE",
        unit="",
        higher_is_better=False,
        definition="Sum of gaps between the structure's probability and its frequency, in "
        f"{BINS} bins of probability, {WHERE}",
        empty=when_wrong(1.0),
        function=ece,
        needs_probability=True,
    )
)

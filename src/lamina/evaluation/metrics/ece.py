"""Expected calibration error (Guo et al., ICML 2017), of one structure against all else."""

import numpy as np

from lamina.evaluation.calibration import BINS, probabilities_around, reliability
from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, Metric, when_wrong


def ece(comparison: Comparison) -> float:
    """Return the mean gap, weighted by voxels, between probability and frequency in each bin."""
    probability, there = comparison.part(probabilities_around)
    _, likely, frequent = reliability(probability, there)
    return float(np.abs(likely - frequent).sum() / len(probability))


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

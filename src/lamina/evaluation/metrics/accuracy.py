"""Accuracy: the share of all voxels that are right, most of them background."""

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, ZERO_WHEN_WRONG, Metric


def accuracy(comparison: Comparison) -> float:
    """Return ``(TP + TN) / (TP + TN + FP + FN)`` over the whole grid, from 0 to 1."""
    return (comparison.tp + comparison.tn) / comparison.num_voxels


METRICS.register("accuracy")(
    Metric(
        name="accuracy",
        title="Accuracy",
        unit="",
        higher_is_better=True,
        definition="Voxels on which both masks agree over all voxels of the grid.",
        empty=ZERO_WHEN_WRONG,
        function=accuracy,
        counts_background=True,
    )
)

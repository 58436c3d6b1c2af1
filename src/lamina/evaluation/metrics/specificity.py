"""Specificity: how much of the background was left alone.

It grows with the grid around a structure and says little where structures are small.
"""

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, ZERO_WHEN_WRONG, Metric


def specificity(comparison: Comparison) -> float:
    """Return ``TN / (TN + FP)`` over the whole grid, from 0 to 1; 1 if there is no background."""
    background = comparison.num_voxels - comparison.referenced
    return comparison.tn / background if background else 1.0


METRICS.register("specificity")(
    Metric(
        name="specificity",
        title="Specificity",
        unit="",
        higher_is_better=True,
        definition="Voxels in neither mask over those outside the reference, on the whole grid.",
        empty=ZERO_WHEN_WRONG,
        function=specificity,
        counts_background=True,
    )
)

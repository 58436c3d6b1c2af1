"""Intersection over union (Jaccard, New Phytologist 11, 1912)."""

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, ZERO_WHEN_WRONG, Metric


def iou(comparison: Comparison) -> float:
    """Return ``|P and R| / |P or R|``, from 0 to 1; the spacing cancels out."""
    return comparison.tp / (comparison.predicted + comparison.fn)


METRICS.register("iou")(
    Metric(
        name="iou",
        title="IoU",
        unit="",
        higher_is_better=True,
        definition="The shared volume over the volume of the union.",
        empty=ZERO_WHEN_WRONG,
        function=iou,
    )
)

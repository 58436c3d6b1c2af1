"""Intersection over union (Jaccard, New Phytologist 11, 1912)."""

from collections.abc import Sequence

import numpy as np

from lamina.evaluation.metrics import METRICS, ZERO_WHEN_WRONG, Mask, Metric


def iou(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> float:
    """Return ``|P and R| / |P or R|``, from 0 to 1; the spacing cancels out."""
    return np.count_nonzero(prediction & reference) / np.count_nonzero(prediction | reference)


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

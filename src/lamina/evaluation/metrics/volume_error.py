"""Signed volume error: how much too large or too small a structure was measured."""

import math
from collections.abc import Sequence

import numpy as np

from lamina.evaluation.metrics import METRICS, EmptyRule, Mask, Metric

MM3_PER_ML = 1000.0


_ALWAYS = EmptyRule(prediction_empty="computed", reference_empty="computed", both_empty="computed")


def volume_error_ml(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> float:
    """Return predicted minus reference volume in ml; a 2D image counts as a slice 1 mm thick."""
    surplus = np.count_nonzero(prediction) - np.count_nonzero(reference)
    return surplus * math.prod(spacing) / MM3_PER_ML


def volume_error_px(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> float:
    """Return predicted minus reference number of pixels, whatever the spacing."""
    return float(np.count_nonzero(prediction) - np.count_nonzero(reference))


METRICS.register("volume_error_ml")(
    Metric(
        name="volume_error_ml",
        title="Volume error",
        unit="ml",
        higher_is_better=None,
        definition="Predicted minus reference volume; a 2D image counts as a slice 1 mm thick.",
        empty=_ALWAYS,
        function=volume_error_ml,
        in_pixels=Metric(
            name="volume_error_px",
            title="Size error",
            unit="px",
            higher_is_better=None,
            definition="Predicted minus reference number of pixels.",
            empty=_ALWAYS,
            function=volume_error_px,
        ),
    )
)

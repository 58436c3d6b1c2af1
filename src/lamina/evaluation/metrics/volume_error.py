"""Signed volume error: how much too large or too small a structure was measured."""

import math
from collections.abc import Sequence

import numpy as np

from lamina.evaluation.metrics import METRICS, EmptyRule, Mask, Metric

MM3_PER_ML = 1000.0


def volume_error_ml(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> float:
    """Return predicted minus reference volume in ml; a 2D image counts as a slice 1 mm thick."""
    surplus = np.count_nonzero(prediction) - np.count_nonzero(reference)
    return surplus * math.prod(spacing) / MM3_PER_ML


METRICS.register("volume_error_ml")(
    Metric(
        name="volume_error_ml",
        title="Volume error",
        unit="ml",
        higher_is_better=None,
        definition="Predicted minus reference volume; a 2D image counts as a slice 1 mm thick.",
        empty=EmptyRule(
            prediction_empty="computed", reference_empty="computed", both_empty="computed"
        ),
        function=volume_error_ml,
    )
)

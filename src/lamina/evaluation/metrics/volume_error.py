"""Signed volume error: how much too large or too small a structure was measured."""

from dataclasses import replace

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, EmptyRule, Metric

_COMPUTED = EmptyRule(prediction_empty="computed", reference_empty="computed")
_OF_THE_REFERENCE = EmptyRule(prediction_empty="computed", reference_empty="not applicable")


def volume_error_ml(comparison: Comparison) -> float:
    """Return predicted minus reference volume in ml; a 2D image counts as a slice 1 mm thick."""
    return (comparison.predicted - comparison.referenced) * comparison.voxel_ml


def volume_error_px(comparison: Comparison) -> float:
    """Return predicted minus reference number of pixels, whatever the spacing."""
    return float(comparison.predicted - comparison.referenced)


def volume_error_percent(comparison: Comparison) -> float:
    """Return predicted minus reference volume in percent of the reference; -100 if missed."""
    return 100 * (comparison.predicted / comparison.referenced - 1)


_IN_ML = Metric(
    name="volume_error_ml",
    title="Volume error",
    unit="ml",
    higher_is_better=None,
    definition="Predicted minus reference volume; a 2D image counts as a slice 1 mm thick.",
    empty=_COMPUTED,
    function=volume_error_ml,
)
_IN_PIXELS = replace(
    _IN_ML,
    name="volume_error_px",
    title="Size error",
    unit="px",
    definition="Predicted minus reference number of pixels.",
    function=volume_error_px,
)
METRICS.register("volume_error_ml")(replace(_IN_ML, in_pixels=_IN_PIXELS))
METRICS.register("volume_error_percent")(
    Metric(
        name="volume_error_percent",
        title="Volume error, relative",
        unit="%",
        higher_is_better=None,
        definition="Predicted minus reference volume, in percent of the reference volume.",
        empty=_OF_THE_REFERENCE,
        function=volume_error_percent,
    )
)

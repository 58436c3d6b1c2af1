"""Absolute volume error: how far a measured volume is off, in either direction."""

from dataclasses import replace

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, Metric, when_wrong


def absolute_volume_error_ml(comparison: Comparison) -> float:
    """Return the difference of both volumes in ml; a 2D image counts as a slice 1 mm thick."""
    return absolute_volume_error_px(comparison) * comparison.voxel_ml


def absolute_volume_error_px(comparison: Comparison) -> float:
    """Return the difference of both numbers of pixels, whatever the spacing."""
    return float(abs(comparison.predicted - comparison.referenced))


def relative_volume_error(comparison: Comparison) -> float:
    """Return the difference of both volumes over their mean, from 0 to 2.

    Over the reference alone, no prediction that misses a structure would exceed 1, and many that
    find it would.
    """
    volumes = comparison.predicted + comparison.referenced
    return 2 * abs(comparison.predicted - comparison.referenced) / volumes


_IN_ML = Metric(
    name="absolute_volume_error_ml",
    title="|Volume error|",
    unit="ml",
    higher_is_better=False,
    definition="Difference of both volumes, without its sign.",
    empty=when_wrong("grid volume"),
    function=absolute_volume_error_ml,
)
_IN_PIXELS = replace(
    _IN_ML,
    name="absolute_volume_error_px",
    title="|Size error|",
    unit="px",
    definition="Difference of both numbers of pixels, without its sign.",
    function=absolute_volume_error_px,
)
METRICS.register("absolute_volume_error_ml")(replace(_IN_ML, in_pixels=_IN_PIXELS))
METRICS.register("relative_volume_error")(
    Metric(
        name="relative_volume_error",
        title="|Volume error| / mean",
        unit="",
        higher_is_better=False,
        definition="Difference of both volumes, without its sign, over the mean of both.",
        empty=when_wrong(2.0),
        function=relative_volume_error,
    )
)

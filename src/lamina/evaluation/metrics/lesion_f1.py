"""Lesion-wise F1: how many lesions were found, and how many invented, whatever their size."""

from dataclasses import replace

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.lesions import WIDENING, lesions
from lamina.evaluation.metrics import METRICS, ZERO_WHEN_WRONG, Metric


def lesion_f1(comparison: Comparison) -> float:
    """Return ``2 TP / (2 TP + FP + FN)`` of lesions, from 0 to 1."""
    found = comparison.part(lesions)
    hits = int(found.found.sum())
    misses = len(found.sizes) - hits
    return 2 * hits / (2 * hits + found.invented + misses)


_IN_MM = Metric(
    name="lesion_f1",
    title="Lesion F1",
    unit="",
    higher_is_better=True,
    definition="F1 of lesions, found where a predicted part reaches them; lesions are widened by "
    f"{WIDENING} mm for this, and those that then meet are one.",
    empty=ZERO_WHEN_WRONG,
    function=lesion_f1,
)
_IN_PIXELS = replace(
    _IN_MM, name="lesion_f1_px", definition=_IN_MM.definition.replace(" mm", " pixels")
)
METRICS.register("lesion_f1")(replace(_IN_MM, in_pixels=_IN_PIXELS))

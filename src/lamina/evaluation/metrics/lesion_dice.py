"""Lesion-wise Dice (BraTS 2023): every lesion counts alike, a missed or invented one as 0.

BraTS leaves out reference lesions below a size that each challenge sets; here all count.
"""

from dataclasses import replace

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.lesions import WIDENING, lesions
from lamina.evaluation.metrics import METRICS, ZERO_WHEN_WRONG, Metric


def lesion_dice(comparison: Comparison) -> float:
    """Return the mean Dice of each lesion with the parts that reach it, from 0 to 1.

    Predicted parts that reach no lesion take part in the mean as 0.
    """
    found = comparison.part(lesions)
    scores = 2 * found.shared / (found.sizes + found.predicted)
    return float(scores.sum() / (len(scores) + found.invented))


_IN_MM = Metric(
    name="lesion_dice",
    title="Lesion Dice",
    unit="",
    higher_is_better=True,
    definition="Mean over lesions of their Dice with the predicted parts that reach them, other "
    f"parts as 0; lesions are widened by {WIDENING} mm for this, and those that then meet are one.",
    empty=ZERO_WHEN_WRONG,
    function=lesion_dice,
)
_IN_PIXELS = replace(
    _IN_MM, name="lesion_dice_px", definition=_IN_MM.definition.replace(" mm", " pixels")
)
METRICS.register("lesion_dice")(replace(_IN_MM, in_pixels=_IN_PIXELS))

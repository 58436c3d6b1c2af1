"""LGMSNet's protocol in 2D (repository ``cq-dong/LGMSNet``): per image, then the mean over images.

Small numbers keep divisors from 0 and pull every score a little. All but IoU and Dice take the
largest value of the reference for its foreground: a reference without any becomes foreground all
over.
"""

from collections.abc import Callable

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import EmptyRule, Metric
from lamina.evaluation.protocols import PROTOCOLS, Protocol

IOU_SMOOTHING = 1e-5
RATE_SMOOTHING = 1e-6

_COMPUTED = EmptyRule(
    prediction_empty="computed", reference_empty="computed", both_empty="computed"
)


def smoothed_iou(comparison: Comparison) -> float:
    """Return IoU with ``IOU_SMOOTHING`` above and below; 1 where both masks are empty."""
    union = comparison.predicted + comparison.fn
    return (comparison.tp + IOU_SMOOTHING) / (union + IOU_SMOOTHING)


def smoothed_dice(comparison: Comparison) -> float:
    """Return the Dice that follows from the smoothed IoU."""
    iou = smoothed_iou(comparison)
    return 2 * iou / (iou + 1)


def smoothed_recall(comparison: Comparison) -> float:
    """Return recall, of the whole grid where the reference is empty."""
    tp, _, fn, _ = _counts(comparison)
    return tp / (tp + fn + RATE_SMOOTHING)


def smoothed_precision(comparison: Comparison) -> float:
    """Return precision; nearly 1 where the reference is empty and the prediction is not."""
    tp, fp, _, _ = _counts(comparison)
    return tp / (tp + fp + RATE_SMOOTHING)


def smoothed_f1(comparison: Comparison) -> float:
    """Return F1 of the smoothed recall and precision."""
    recall, precision = smoothed_recall(comparison), smoothed_precision(comparison)
    return 2 * recall * precision / (recall + precision + RATE_SMOOTHING)


def smoothed_specificity(comparison: Comparison) -> float:
    """Return specificity; 0 where the reference is empty."""
    _, fp, _, tn = _counts(comparison)
    return tn / (tn + fp + RATE_SMOOTHING)


def quirky_accuracy(comparison: Comparison) -> float:
    """Return accuracy, against foreground all over where the reference is empty."""
    tp, fp, fn, tn = _counts(comparison)
    return (tp + tn) / (tp + fp + fn + tn)


def _counts(comparison: Comparison) -> tuple[int, int, int, int]:
    """Return TP, FP, FN and TN, with an empty reference taken for a full one."""
    if not comparison.referenced:
        return comparison.predicted, 0, comparison.num_voxels - comparison.predicted, 0
    return comparison.tp, comparison.fp, comparison.fn, comparison.tn


def _metric(name: str, title: str, function: Callable[[Comparison], float]) -> Metric:
    overlap = name in ("iou", "dice")
    return Metric(
        name=f"lgmsnet_{name}",
        title=title,
        unit="",
        higher_is_better=True,
        definition=f"{title} of LGMSNet's program, "
        + (
            f"smoothed by {IOU_SMOOTHING:g}."
            if overlap
            else "with an empty reference taken for a full one."
        ),
        empty=_COMPUTED,
        function=function,
        counts_background=not overlap,
    )


PROTOCOLS.register("lgmsnet")(
    Protocol(
        name="lgmsnet",
        paper="LGMSNet in 2D",
        quirks="IoU and rates are smoothed; an empty reference counts as 1 in IoU if rightly left "
        "empty, and as foreground all over in recall, precision, F1, specificity and accuracy.",
        metrics=(
            _metric("iou", "IoU", smoothed_iou),
            _metric("f1", "F1", smoothed_f1),
            _metric("dice", "Dice", smoothed_dice),
            _metric("recall", "Recall", smoothed_recall),
            _metric("precision", "Precision", smoothed_precision),
            _metric("specificity", "Specificity", smoothed_specificity),
            _metric("accuracy", "Accuracy", quirky_accuracy),
        ),
    )
)

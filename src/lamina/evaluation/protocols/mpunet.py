"""MPU-Net's protocol (Yu and Han, arXiv 2307.05799): whole volumes, then the mean over them.

Its program exchanges false positives and false negatives. Dice, IoU, accuracy and MCC do not
notice; precision and specificity become other measures. Every scan it was used on holds a liver, so
that nothing is known of empty masks: our own rules apply.
"""

from collections.abc import Callable
from dataclasses import replace

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import ZERO_WHEN_WRONG, Metric, when_wrong
from lamina.evaluation.metrics.accuracy import accuracy
from lamina.evaluation.metrics.dice import dice
from lamina.evaluation.metrics.iou import iou
from lamina.evaluation.metrics.mcc import mcc
from lamina.evaluation.metrics.recall import recall
from lamina.evaluation.protocols import PROTOCOLS, Protocol


def negative_predictive_value(comparison: Comparison) -> float:
    """Return ``TN / (TN + FN)`` over the whole grid; 1 where nothing was left out."""
    left_out = comparison.tn + comparison.fn
    return comparison.tn / left_out if left_out else 1.0


def _metric(
    name: str, title: str, definition: str, function: Callable[[Comparison], float]
) -> Metric:
    return Metric(
        name=f"mpunet_{name}",
        title=title,
        unit="",
        higher_is_better=True,
        definition=definition,
        empty=ZERO_WHEN_WRONG,
        function=function,
        counts_background=name in ("accuracy", "specificity", "mcc"),
    )


PROTOCOLS.register("mpunet")(
    Protocol(
        name="mpunet",
        paper="MPU-Net",
        quirks='False positives and negatives are exchanged: "precision" is recall, and '
        '"specificity" the negative predictive value.',
        metrics=(
            _metric("dice", "Dice", "Twice the shared volume over the sum of both.", dice),
            _metric("accuracy", "Accuracy", "Voxels on which both masks agree.", accuracy),
            _metric(
                "precision",
                '"Precision" (recall)',
                "What MPU-Net prints as precision: the shared volume over the reference volume.",
                recall,
            ),
            _metric(
                "specificity",
                '"Specificity" (NPV)',
                "What MPU-Net prints as specificity: voxels in neither mask over those outside the "
                "prediction.",
                negative_predictive_value,
            ),
            _metric("iou", "IoU", "The shared volume over the volume of the union.", iou),
            replace(
                _metric("mcc", "MCC", "Correlation of both masks over all voxels.", mcc),
                empty=when_wrong(-1.0),
            ),
        ),
    )
)

"""Recall, or sensitivity: how much of the structure was found."""

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, ZERO_WHEN_WRONG, Metric


def recall(comparison: Comparison) -> float:
    """Return ``TP / (TP + FN)``, from 0 to 1."""
    return comparison.tp / comparison.referenced


METRICS.register("recall")(
    Metric(
        name="recall",
        title="Recall",
        unit="",
        higher_is_better=True,
        definition="The shared volume over the reference volume.",
        empty=ZERO_WHEN_WRONG,
        function=recall,
    )
)

"""Precision, or positive predictive value: how much of what was marked is right."""

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, ZERO_WHEN_WRONG, Metric


def precision(comparison: Comparison) -> float:
    """Return ``TP / (TP + FP)``, from 0 to 1."""
    return comparison.tp / comparison.predicted


METRICS.register("precision")(
    Metric(
        name="precision",
        title="Precision",
        unit="",
        higher_is_better=True,
        definition="The shared volume over the predicted volume.",
        empty=ZERO_WHEN_WRONG,
        function=precision,
    )
)

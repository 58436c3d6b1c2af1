"""Dice similarity coefficient (Dice, Ecology 26, 1945)."""

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, ZERO_WHEN_WRONG, Metric


def dice(comparison: Comparison) -> float:
    """Return ``2 |P and R| / (|P| + |R|)``, from 0 to 1; the spacing cancels out."""
    return 2 * comparison.tp / (comparison.predicted + comparison.referenced)


METRICS.register("dice")(
    Metric(
        name="dice",
        title="Dice",
        unit="",
        higher_is_better=True,
        definition="Twice the shared volume over the sum of both volumes.",
        empty=ZERO_WHEN_WRONG,
        function=dice,
    )
)

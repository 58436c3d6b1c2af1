"""Dice similarity coefficient (Dice, Ecology 26, 1945)."""

from collections.abc import Sequence

import numpy as np

from lamina.evaluation.metrics import METRICS, ZERO_WHEN_WRONG, Mask, Metric


def dice(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> float:
    """Return ``2 |P and R| / (|P| + |R|)``, from 0 to 1; the spacing cancels out."""
    shared = np.count_nonzero(prediction & reference)
    return 2 * shared / (np.count_nonzero(prediction) + np.count_nonzero(reference))


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

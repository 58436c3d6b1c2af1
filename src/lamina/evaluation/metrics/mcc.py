"""Matthews correlation coefficient (Matthews, Biochim Biophys Acta 405, 1975)."""

import math

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS, Metric, when_wrong


def mcc(comparison: Comparison) -> float:
    """Return the correlation of both masks over the whole grid, from -1 to 1.

    A mask that fills the grid correlates with nothing: 0, but 1 if the other one fills it too.
    """
    tp, fp, fn, tn = comparison.tp, comparison.fp, comparison.fn, comparison.tn
    if not fp and not fn:
        return 1.0
    spread = math.sqrt((tp + fp) * (tn + fn)) * math.sqrt((tp + fn) * (tn + fp))
    return (tp * tn - fp * fn) / spread if spread else 0.0


METRICS.register("mcc")(
    Metric(
        name="mcc",
        title="MCC",
        unit="",
        higher_is_better=True,
        definition="Correlation of both masks over all voxels of the grid, from -1 to 1.",
        empty=when_wrong(-1.0),
        function=mcc,
        counts_background=True,
    )
)

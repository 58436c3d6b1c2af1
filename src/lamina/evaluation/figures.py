"""What of scores is shown first, and how their figures are printed."""

import math
from collections.abc import Sequence

from lamina.evaluation.metrics import METRICS, Metric
from lamina.evaluation.scores import Scores

HEADLINE = ("dice", "hd95", "nsd", "volume_error_ml")
"""Metrics that are shown of many unless others are asked for; the files hold all. IoU follows from
Dice case by case."""
_FEW_METRICS = 5
"""So many metrics, and no more, are all shown, those of calibration aside."""


def shown_metrics(scores: Scores, every: bool = False) -> Sequence[Metric]:
    """Return the headline metrics of the scores, and the others if asked for or few in all."""
    if scores.protocol:
        return scores.measures
    names = [METRICS.get(name).measured_in(scores.unit).name for name in HEADLINE]
    found = {metric.name: metric for metric in scores.measures}
    headline = [found.pop(name) for name in names if name in found]
    others = [*found.values()]
    if headline and not every:  # calibration has a place of its own
        few = len(scores.measures) <= _FEW_METRICS
        others = [metric for metric in others if few and not metric.needs_probability]
    return [*headline, *others]


def cell(mean: float, std: float, metric: Metric) -> str:
    """Return mean and standard deviation as printed; a dash where the metric never applied."""
    shown = number(mean, metric)
    return shown if math.isnan(std) else f"{shown} ± {std:.{_decimals(mean, metric)}f}"


def number(value: float, metric: Metric) -> str:
    """Return a value of a metric with the digits that matter; what rounds to zero has no sign."""
    if math.isnan(value):
        return "–"
    sign = "+" if metric.higher_is_better is None else ""
    text = f"{value:{sign}.{_decimals(value, metric)}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def _decimals(value: float, metric: Metric) -> int:
    if not metric.unit:
        return 3
    return 2 if abs(value) < 100 else 0

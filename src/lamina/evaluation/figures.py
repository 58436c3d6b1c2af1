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
_MOST_DECIMALS = 5


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
    if math.isnan(std):
        return number(mean, metric)
    # A mean far below its deviation keeps its sign and two decimals.
    places = max(decimals(max(abs(mean), std), metric.unit), 2 if abs(mean) < 100 else 0)
    return f"{number(mean, metric, places)} ± {number(std, metric, places).lstrip('+')}"


def number(value: float, metric: Metric, places: int | None = None) -> str:
    """Return a value of a metric with the digits that matter; what rounds to zero has no sign.

    Args:
        value: NaN is a dash.
        metric: Its unit and direction count.
        places: Decimals; by default those of :func:`decimals`.
    """
    if math.isnan(value):
        return "–"
    sign = "+" if metric.higher_is_better is None else ""
    return fixed(value, decimals(value, metric.unit) if places is None else places, sign)


def fixed(value: float, places: int, sign: str = "") -> str:
    """Return a number of so many decimals; ``sign="+"`` marks those above zero, zero has none."""
    text = f"{value:{sign}.{places}f}"
    return text.lstrip("+-") if float(text) == 0 else text.replace("-", "−")


def decimals(value: float, unit: str) -> int:
    """Return the decimals of a value: three without a unit, else for three digits that matter.

    These are at least two below 100, and no more than five.
    """
    if not unit:
        return 3
    size = round(abs(value), _MOST_DECIMALS)
    if not size or not math.isfinite(size):
        return 2
    return min(_MOST_DECIMALS, max(2 if size < 100 else 0, 2 - math.floor(math.log10(size))))

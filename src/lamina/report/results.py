"""One page about a trained network or an evaluation: scores, cases, volumes, plan, provenance.

The page stands alone: styles, pictures, surfaces and the script that turns them are within it.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.evaluation.figures import number, shown_metrics
from lamina.evaluation.metrics import Metric
from lamina.evaluation.scores import Scores
from lamina.evaluation.statistics.means import MEAN as OF_ALL
from lamina.evaluation.summary import Summary
from lamina.files import atomic_path, write_text
from lamina.report.agreement import agreement_chart
from lamina.report.cases import Pair, ranked_by, show
from lamina.report.charts import MUTED, Chart, curve_chart, score_chart
from lamina.report.overlay import css_colours
from lamina.report.page import render
from lamina.report.reliability import reliability_chart
from lamina.report.tables import (
    MEAN,
    Intervals,
    between,
    cautions_told,
    counts_told,
    faults,
    has_interval,
    occurring,
    score_rows,
)

Facts = Mapping[str, str]
"""What -> how it is, in words and with units."""

_MOST_AGREEMENTS = 12
_FEWEST_PAIRS = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Results:
    """All that a report is made of; what is empty is left out of it."""

    title: str
    subtitle: str
    scores: Scores
    intervals: Intervals = field(default_factory=dict)
    """Of the means over patients."""
    caution: str = ""
    """What to know of the patients."""
    read_pairs: Callable[[], Iterator[Pair]] = lambda: iter(())
    """Reads the cases to show, one after the other."""
    sizes: Mapping[str, Mapping[str, tuple[float, float]]] = field(default_factory=dict)
    """Structure -> case -> its true and its predicted size."""
    size_unit: str = "ml"
    """``ml``, ``cm²`` of pictures, or ``px`` of those that do not tell how large they are."""
    histories: Mapping[str, Sequence[Mapping[str, Any]]] = field(default_factory=dict)
    """Name of a run -> its epochs, as ``metrics.jsonl`` holds them."""
    select_by: str = "dice"
    """What, of these, tells the epoch that was kept."""
    flags: Mapping[str, Sequence[str]] | None = None
    """Case -> what about it is unlike the training of the model; ``None`` if nobody looked."""
    reliability: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    """Structure -> what :func:`~lamina.report.reliability.reliability_chart` draws."""
    data: Facts = field(default_factory=dict)
    plan: Sequence[tuple[str, str, str]] = ()
    """Choice, value, reason."""
    cost: Facts = field(default_factory=dict)
    provenance: Facts = field(default_factory=dict)


def save_report(path: Path, results: Results) -> None:
    """Write the page.

    Raises:
        FileError: It cannot be written, or a case cannot be read.
    """
    scenes: list[dict[str, Any]] = []
    shown = [show(pair, results.scores, scenes) for pair in results.read_pairs()]
    scores = results.scores
    head, *rows = score_rows(scores)
    page = render(
        "report.html",
        results=results,
        tiles=_tiles(scores),
        faults=faults(scores),
        counts=counts_told(scores),
        bounded=has_interval(results.intervals),
        cautions=cautions_told(results.intervals, results.caution),
        head=head,
        rows=rows,
        below=_below(scores, results.intervals),
        mean=MEAN,
        score_charts=list(score_charts(scores, shown_metrics(scores))),
        calibration=list(calibration_charts(results)),
        agreements=list(agreement_charts(results)),
        curves=list(curve_charts(results)),
        shown=shown,
        sided=any(any(section.letters) for case in shown for section in case.telling),
        scenes=scenes,
        ranked_by=ranked_by(scores),
        colours=css_colours(scores.labels),
        measures=shown_metrics(scores),
        cases=list(_cases(scores)),
        columns=_columns(scores),
        rules=_rules(scores),
        version=version("lamina"),
        today=date.today().isoformat(),
    )
    write_text(path, page)


def save_pdf(path: Path, results: Results) -> None:
    """Write the charts as a PDF, one to a page, for print.

    Raises:
        FileError: It cannot be written.
    """
    from matplotlib.backends.backend_pdf import PdfPages

    scores = results.scores
    charts = (
        *score_charts(scores, shown_metrics(scores)),
        *calibration_charts(results),
        *agreement_charts(results),
        *curve_charts(results),
    )
    with atomic_path(path) as part, PdfPages(part) as pages:
        for chart in charts:
            chart.figure.suptitle(chart.title, fontsize=12)
            pages.savefig(chart.figure, facecolor="white")


def score_charts(scores: Scores, metrics: Sequence[Metric]) -> Iterator[Chart]:
    """Yield a chart for each metric, of all cases by structure."""
    colours, labels = css_colours(scores.labels), occurring(scores)
    for metric in metrics:
        values: dict[str, dict[str, float]] = {label: {} for label in labels}
        for row in scores.rows:
            if row.metric == metric.name and row.label in values:
                values[row.label][row.case] = row.value
        yield score_chart(metric, values, colours)


def calibration_charts(results: Results) -> Iterator[Chart]:
    """Yield how far probabilities can be trusted, where there are any."""
    if results.reliability:
        yield reliability_chart(results.reliability, css_colours(results.scores.labels))
    yield from score_charts(results.scores, _uncertain(results.scores))


def agreement_charts(results: Results) -> Iterator[Chart]:
    """Yield a chart for each structure that was measured often enough for one."""
    colours, unit = css_colours(results.scores.labels), results.size_unit
    often = [(label, f) for label, f in results.sizes.items() if len(f) >= _FEWEST_PAIRS]
    for label, by_case in often[:_MOST_AGREEMENTS]:
        reference, predicted = np.array([*by_case.values()], np.float64).T
        yield agreement_chart(label, reference, predicted, [*by_case], unit, colours[label])


def curve_charts(results: Results) -> Iterator[Chart]:
    """Yield loss and Dice by epoch: of one run by structure, of several runs side by side."""
    known = {name: lines for name, lines in results.histories.items() if lines}
    if not known:
        return
    losses = {name: _points(lines, "loss") for name, lines in known.items()}
    yield curve_chart("Loss", "Mean of each epoch's training steps.", losses, {})
    told = "Of the validation scans after each epoch, on the prepared grid."
    if len(known) > 1:
        yield curve_chart(
            "Dice", told, {n: _points(lines, "dice") for n, lines in known.items()}, {}
        )
        return
    (lines,) = known.values()
    curves = {"mean": _points(lines, "dice")}
    names = [key.removeprefix("dice/") for key in lines[0] if key.startswith("dice/")]
    if len(names) > 1:
        curves |= {name: _points(lines, f"dice/{name}") for name in names}
    kept = max(lines, key=lambda line: line[results.select_by])["epoch"] + 1
    colours = css_colours(results.scores.labels) | {"mean": MUTED}
    yield curve_chart("Dice", told, curves, colours, mark=kept)


def _points(lines: Sequence[Mapping[str, Any]], key: str) -> list[tuple[float, float]]:
    return [(line["epoch"] + 1, line[key]) for line in lines if line.get(key) is not None]


def _uncertain(scores: Scores) -> list[Metric]:
    """Return the metrics of calibration, which an evaluation with probabilities has."""
    shown = {metric.name for metric in shown_metrics(scores)}
    return [m for m in scores.measures if m.needs_probability and m.name not in shown]


def _tiles(scores: Scores) -> list[tuple[str, str, str]]:
    """Return value, unit and name of what the page begins with."""
    found: list[tuple[str, str, str]] = []
    for metric in shown_metrics(scores):
        value = scores.mean_foreground(metric.name)
        if metric.higher_is_better is not None and not math.isnan(value):
            found.append((number(value, metric), metric.unit, metric.title))
    return found


def _below(scores: Scores, intervals: Intervals) -> dict[str, list[list[str]]]:
    """Return what stands below each mean, line by line: median and range, and patients."""

    def sure(label: str, metric: Metric) -> list[str]:
        told = between(intervals.get(label, {}).get(metric.name), metric)
        return [told] if told else []

    def spread(summary: Summary, metric: Metric) -> list[str]:
        if not summary.n:
            return []
        median, low, high = (
            number(value, metric) for value in (summary.median, summary.min, summary.max)
        )
        return [f"{median} ({low} to {high})"]

    metrics = shown_metrics(scores)
    found = {
        label: [spread(row[metric.name], metric) + sure(label, metric) for metric in metrics]
        for label, row in scores.summary().items()
    }
    directed = [metric.higher_is_better is not None for metric in metrics]
    return found | {
        MEAN: [
            sure(OF_ALL, m) if better else [] for m, better in zip(metrics, directed, strict=True)
        ]
    }


def _columns(scores: Scores) -> list[str]:
    dice = [f"Dice, {label}" for label in occurring(scores)] if "dice" in scores.metrics else []
    means = [f"{m.title}, {m.unit}" if m.unit else m.title for m in _directed(scores)]
    return ["Case", *means, *(dice if len(dice) > 1 else [])]


def _directed(scores: Scores) -> list[Any]:
    return [metric for metric in shown_metrics(scores) if metric.higher_is_better is not None]


def _cases(scores: Scores) -> Iterator[tuple[str, list[tuple[float, str]]]]:
    """Yield each case with its mean of each metric, then its Dice of each structure."""
    measures = {metric.name: metric for metric in shown_metrics(scores)}
    means = {m.name: scores.case_means(m.name) for m in _directed(scores)}
    dice = {(r.case, r.label): r.value for r in scores.rows if r.metric == "dice"}
    labels = occurring(scores) if dice and len(occurring(scores)) > 1 else []
    for case in scores.cases:
        cells = [
            (value, number(value, measures[name]))
            for name, by_case in means.items()
            for value in [by_case.get(case, math.nan)]
        ]
        cells += [
            (value, number(value, measures["dice"]))
            for label in labels
            for value in [dice.get((case, label), math.nan)]
        ]
        yield case, cells


def _rules(scores: Scores) -> list[tuple[str, str, list[str]]]:
    return [
        (
            metric.title,
            metric.definition,
            [
                outcome if isinstance(outcome, str) else f"{outcome:g}"
                for outcome in (
                    metric.empty.prediction_empty,
                    metric.empty.reference_empty,
                    metric.empty.both_empty,
                )
            ],
        )
        for metric in shown_metrics(scores)
    ]

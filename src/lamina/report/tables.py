"""Tables of scores for a paper: Markdown and LaTeX."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from lamina.errors import some
from lamina.evaluation.figures import cell, decimals, number, shown_metrics
from lamina.evaluation.metrics import Metric
from lamina.evaluation.scores import Scores
from lamina.evaluation.statistics import LEVEL
from lamina.evaluation.statistics.intervals import Interval, caution_of
from lamina.evaluation.statistics.means import MEAN as OF_ALL
from lamina.report import sheets

_ARROWS = {True: " ↑", False: " ↓", None: ""}
MEAN = "Mean of structures"


Intervals = Mapping[str, Mapping[str, Interval]]
"""Structure, region, or ``MEAN`` of :mod:`lamina.evaluation.statistics.means` -> metric."""


def score_rows(scores: Scores, intervals: Intervals | None = None) -> Iterator[tuple[str, ...]]:
    """Yield the head of the table, a row per structure and region, and the mean of structures.

    What occurs in no case, neither true nor predicted, has no row.

    Args:
        scores: Of all cases.
        intervals: Of the means over patients, which then stand in brackets with them.
    """
    known = intervals or {}
    metrics, summary = shown_metrics(scores), scores.summary()
    units = [f", {metric.unit}" if metric.unit else "" for metric in metrics]
    titles = [
        f"{m.title}{unit}{_ARROWS[m.higher_is_better]}"
        for m, unit in zip(metrics, units, strict=True)
    ]
    yield ("Structure", *titles)
    for label in occurring(scores):
        row = summary[label]
        yield (
            label,
            *(
                cell(row[metric.name].mean, row[metric.name].std, metric)
                + _bracketed(known.get(label, {}).get(metric.name), metric)
                for metric in metrics
            ),
        )
    if len(scores.labels.foreground) > 1:
        yield (
            MEAN,
            *(
                ""
                if m.higher_is_better is None
                else number(scores.mean_foreground(m.name), m)
                + _bracketed(known.get(OF_ALL, {}).get(m.name), m)
                for m in metrics
            ),
        )


def between(found: Interval | None, metric: Metric) -> str:
    """Return the patients, their mean, and its interval; empty where there is none.

    The mean of patients is another than that of cases where some have more scans than others.
    """
    if found is None or found.missing:
        return ""
    places = decimals(max(abs(found.low), abs(found.high)), metric.unit)
    ends = (found.mean, found.low, found.high)
    mean, low, high = (number(value, metric, places) for value in ends)
    return f"n {found.n}: {mean}, {low} to {high}"


def has_interval(intervals: Intervals) -> bool:
    """Tell whether any mean has an interval, which there is not of too few patients."""
    return any(not each.missing for of_label in intervals.values() for each in of_label.values())


def cautions_told(intervals: Intervals, caution: str = "") -> str:
    """Return what to know of intervals: that patients are few, where they are, and ``caution``."""
    few = caution_of(each.n for of_label in intervals.values() for each in of_label.values())
    return " ".join(filter(None, (few, caution)))


def occurring(scores: Scores) -> list[str]:
    """Return the structures and regions that some case has, truly or predicted; all if none."""
    found = {row.label for row in scores.rows if row.rule != "both empty"}
    return [label for label in scores.summary() if label in found or not found]


def counts_told(scores: Scores, intervals: Intervals | None = None) -> str:
    """Return how many cases and structures the table rests on, for its caption."""
    told = [f"{len(scores.cases)} cases", *_fewer(scores), "mean ± standard deviation over cases"]
    if has_interval(intervals or {}):
        told += [f"in brackets the mean of n patients and its {100 * LEVEL:g} % BCa interval"]
    told += [f"{count} {what}" for count, what in faults(scores)]
    absent = len(scores.labels.values.keys() - occurring(scores))
    told += [f"{absent} structures in no case"] * bool(absent)
    return "; ".join(told)


def faults(scores: Scores) -> list[tuple[int, str]]:
    """Return how often something went wrong that no mean shows, and what."""
    first, summary = shown_metrics(scores)[0].name, scores.summary()
    rows = [summary[label][first] for label in scores.labels.values]
    counts = {
        "structures missed": sum(row.missed for row in rows),
        "structures invented": sum(row.invented for row in rows),
        "cases failed": len(scores.failures),
        "cases not segmented": len(scores.not_predicted),
    }
    return [(count, what) for what, count in counts.items() if count]


def _fewer(scores: Scores) -> Iterator[str]:
    """Yield which rows rest on fewer cases than were scored, and on how many."""
    summary, titles = scores.summary(), defaultdict[tuple[str, ...], list[str]](list)
    labels = occurring(scores)
    for metric in shown_metrics(scores):
        counts = {label: summary[label][metric.name].n for label in labels}
        if len(scores.labels.foreground) > 1 and metric.higher_is_better is not None:
            counts[MEAN] = len(scores.case_means(metric.name))
        rows = [f"{label} {n}" for label, n in counts.items() if n < len(scores.cases)]
        titles[tuple(rows)].append(metric.title)
    for rows_told, of_metrics in titles.items():
        if rows_told:
            yield f"fewer for {', '.join(of_metrics)}: {some(rows_told)}"


def markdown_table(scores: Scores, intervals: Intervals | None = None, caution: str = "") -> str:
    """Return the scores as a Markdown table with its caption below."""
    table = sheets.markdown_table(_sheet(scores, intervals))
    return f"{table}\n\n{sheets.markdown_text(_sentence(scores, intervals, caution))}\n"


def latex_table(scores: Scores, intervals: Intervals | None = None, caution: str = "") -> str:
    """Return the scores as a LaTeX table for the ``booktabs`` package."""
    told = _sentence(scores, intervals, caution)
    return sheets.latex_table(_sheet(scores, intervals), told) + "\n"


def _sheet(scores: Scores, intervals: Intervals | None) -> sheets.Sheet:
    head, *rows = score_rows(scores, intervals)
    bold = tuple(row[0] == MEAN for row in rows)
    return sheets.Sheet("Scores", head, tuple(rows), names=1, bold=bold)


def _bracketed(found: Interval | None, metric: Metric) -> str:
    told = between(found, metric)
    return f" [{told}]" if told else ""


def _sentence(scores: Scores, intervals: Intervals | None, caution: str) -> str:
    definitions = [f"{metric.title}: {metric.definition}" for metric in shown_metrics(scores)]
    told = counts_told(scores, intervals)
    cautions = cautions_told(intervals or {}, caution)
    return " ".join(filter(None, [f"{told[:1].upper()}{told[1:]}.", cautions, *definitions]))

"""The printed table of an evaluation."""

import math
from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lamina.evaluation.metrics import Metric, Outcome
from lamina.evaluation.scores import Scores, Summary

ARROWS = {True: " ↑", False: " ↓", None: ""}
CASES_SHOWN = 10


def render_scores(scores: Scores) -> RenderableType:
    """Return the table of structures by metrics, what went wrong, and the rules for empty masks.

    Made for 100 columns; narrower consoles wrap it.
    """
    metrics = scores.measures
    summary = scores.summary()
    cases = _cases(len(scores.cases))
    in_pixels = scores.unit == "px"
    return Group(
        Text(f"  Scores of {cases}: mean ± standard deviation, ↑ higher or ↓ lower is better"),
        *([Text("  Lengths are in pixels: the files do not say how large one is.")] * in_pixels),
        _score_table(scores, metrics, summary),
        Padding(_counts(scores, summary), (0, 0, 0, 2)),
        _rules(metrics),
    )


def _score_table(
    scores: Scores, metrics: Sequence[Metric], summary: Mapping[str, Mapping[str, Summary]]
) -> Table:
    table = Table(box=SIMPLE_HEAD, show_footer=True)
    table.add_column("Structure", Text("Mean foreground", style="bold"), overflow="fold")
    for metric in metrics:
        mean = _number(scores.mean_foreground(metric.name), metric)
        table.add_column(
            f"{metric.title}{ARROWS[metric.higher_is_better]}\n{metric.unit}",
            Text(mean if metric.higher_is_better is not None else "", style="bold"),
            justify="right",
        )
    for label, row in summary.items():
        name = Text(label, style="" if label in scores.labels.values else "italic")
        table.add_row(name, *(_cell(row[metric.name], metric) for metric in metrics))
    return table


def _cell(found: Summary, metric: Metric) -> str:
    mean = _number(found.mean, metric)
    return (
        mean if math.isnan(found.std) else f"{mean} ± {found.std:.{_decimals(found.mean, metric)}f}"
    )


def _number(value: float, metric: Metric) -> str:
    if math.isnan(value):
        return "–"
    sign = "+" if metric.higher_is_better is None else ""
    return f"{value:{sign}.{_decimals(value, metric)}f}"


def _decimals(value: float, metric: Metric) -> int:
    if not metric.unit:
        return 3
    return 2 if abs(value) < 100 else 0


def _counts(scores: Scores, summary: Mapping[str, Mapping[str, Summary]]) -> Table:
    """Return one line for everything that the means alone would hide."""
    by_label = {label: list(row.values()) for label, row in summary.items()}
    missed = {label: row[0].missed for label, row in by_label.items()}
    invented = {label: row[0].invented for label, row in by_label.items()}
    absent = {label: max(found.not_applicable for found in row) for label, row in by_label.items()}
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for name, count, details in (
        ("Missed structures", sum(missed.values()), _per_label(missed)),
        ("Invented structures", sum(invented.values()), _per_label(invented)),
        ("Not applicable", sum(absent.values()), _per_label(absent)),
        ("Failed cases", len(scores.failures), _some([*scores.failures])),
        ("Not predicted cases", len(scores.not_predicted), _some(scores.not_predicted)),
    ):
        table.add_row(name, str(count), Text(details), style="" if count else "dim")
    return table


def _per_label(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{label} in {_cases(count)}" for label, count in counts.items() if count)


def _some(cases: Sequence[str]) -> str:
    more = len(cases) - CASES_SHOWN
    return ", ".join([*cases[:CASES_SHOWN], *([f"and {more} more"] if more > 0 else [])])


def _rules(metrics: Iterable[Metric]) -> Table:
    table = Table(box=SIMPLE_HEAD, header_style="")
    for heading in ("If a structure is", "missed", "invented", "rightly left out"):
        table.add_column(heading)
    for metric in metrics:
        rule = metric.empty
        outcomes = (rule.prediction_empty, rule.reference_empty, rule.both_empty)
        table.add_row(metric.title, *(_outcome(outcome) for outcome in outcomes), style="dim")
    return table


def _outcome(outcome: Outcome) -> str:
    return outcome if isinstance(outcome, str) else f"{outcome:g}"


def _cases(count: int) -> str:
    return f"{count} case" if count == 1 else f"{count} cases"

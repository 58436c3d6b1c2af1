"""The printed table of an evaluation."""

from collections.abc import Iterable, Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lamina.cli.blocks import Blocks
from lamina.errors import some
from lamina.evaluation.figures import cell, number, shown_metrics
from lamina.evaluation.metrics import Metric, Outcome
from lamina.evaluation.protocols import PROTOCOLS
from lamina.evaluation.scores import Scores
from lamina.evaluation.summary import Summary

ARROWS = {True: " ↑", False: " ↓", None: ""}
CASES_SHOWN = 10
MEAN = "Mean foreground"
IF_FOUND = "  if found"


def render_scores(scores: Scores, *, every: bool = False) -> RenderableType:
    """Return the table of structures by metrics, what went wrong, and the rules for empty masks.

    Where no case was scored, what went wrong is all there is.

    Made for 80 columns; narrower consoles get it in more pieces.

    Args:
        scores: What to show.
        every: Show all metrics of the scores rather than the headline ones.
    """
    metrics = shown_metrics(scores, every)
    summary = scores.summary()

    counted = metrics[0].name

    def make(places: range, limit: int | None) -> Table:
        some = metrics[places.start : places.stop]
        return _score_table(scores, some, summary, counted, limit)

    counts = Padding(_counts(scores, metrics, summary), (0, 0, 0, 2))
    if not scores.cases:
        return counts
    return Group(
        *(Padding(Text(line), (0, 0, 0, 2)) for line in _captions(scores, summary)),
        Blocks(make=make, num_columns=len(metrics), names=[*summary, MEAN]),
        counts,
        _rules(metrics),
    )


def _captions(scores: Scores, summary: Mapping[str, Mapping[str, Summary]]) -> Iterable[str]:
    cases = _cases(len(scores.cases))
    yield f"Scores of {cases}: mean ± standard deviation, ↑ higher or ↓ lower is better"
    if scores.unit == "px":
        yield "Lengths are in pixels: the files do not say how large one is."
    if scores.protocol:
        protocol = PROTOCOLS.get(scores.protocol)
        yield f"MEASURED AS {protocol.paper} DID, to compare with their tables and nothing else."
        yield protocol.quirks
    if _any_partly_found(summary):
        yield "“if found”: only the n cases whose prediction and reference both hold the structure"


def _score_table(
    scores: Scores,
    metrics: Sequence[Metric],
    summary: Mapping[str, Mapping[str, Summary]],
    counted: str,
    limit: int | None,
) -> Table:
    """Return the table of some metrics; ``n`` is that of the metric ``counted`` in all of them."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("Structure", overflow="fold", max_width=limit)
    table.add_column("n", justify="right", no_wrap=True)
    for metric in metrics:
        heading = f"{metric.title}{ARROWS[metric.higher_is_better]}\n{metric.unit}"
        table.add_column(heading, justify="right", no_wrap=True)
    for label, row in summary.items():
        name = Text(label, style="" if label in scores.labels.values else "italic")
        found = [(row[metric.name], metric) for metric in metrics]
        cells = (cell(each.mean, each.std, metric) for each, metric in found)
        table.add_row(name, str(row[counted].n), *cells)
        if _is_partly_found(row):
            cells = (
                cell(each.conditional_mean, each.conditional_std, metric) for each, metric in found
            )
            table.add_row(IF_FOUND, str(row[counted].conditional_n), *cells, style="dim")
    table.add_section()
    table.add_row(MEAN, "", *_means(scores, metrics, conditional=False), style="bold")
    if _any_partly_found(summary):
        table.add_row(IF_FOUND, "", *_means(scores, metrics, conditional=True), style="bold dim")
    return table


def _means(scores: Scores, metrics: Sequence[Metric], *, conditional: bool) -> Iterable[str]:
    """Return the mean foreground of each metric that has a better direction."""
    for metric in metrics:
        mean = scores.mean_foreground(metric.name, conditional=conditional)
        yield "" if metric.higher_is_better is None else number(mean, metric)


def _any_partly_found(summary: Mapping[str, Mapping[str, Summary]]) -> bool:
    return any(_is_partly_found(row) for row in summary.values())


def _is_partly_found(row: Mapping[str, Summary]) -> bool:
    """Tell whether means rest on rules for empty masks, so that conditional ones differ."""
    return any(found.missed or found.invented for found in row.values())


def _counts(
    scores: Scores, metrics: Sequence[Metric], summary: Mapping[str, Mapping[str, Summary]]
) -> Table:
    """Return one line for everything that the means alone would hide."""
    by_label = {label: [row[m.name] for m in metrics] for label, row in summary.items()}
    missed = {label: row[0].missed for label, row in by_label.items()}
    invented = {label: row[0].invented for label, row in by_label.items()}
    absent = {label: max(found.not_applicable for found in row) for label, row in by_label.items()}
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    for name, count, details in (
        ("Missed structures", sum(missed.values()), _per_label(missed)),
        ("Invented structures", sum(invented.values()), _per_label(invented)),
        ("Not applicable", sum(absent.values()), _per_label(absent)),
        ("Failed cases", len(scores.failures), some(scores.failures, CASES_SHOWN)),
        ("Not predicted cases", len(scores.not_predicted), some(scores.not_predicted, CASES_SHOWN)),
    ):
        table.add_row(name, str(count), Text(details), style="" if count else "dim")
    for metric, others in _other_counts(metrics, summary).items():
        told = ", ".join(f"{label} {n}" for label, n in others.items())
        table.add_row("n is another", "", Text(f"{metric}: {told}"))
    return table


def _other_counts(
    metrics: Sequence[Metric], summary: Mapping[str, Mapping[str, Summary]]
) -> dict[str, dict[str, int]]:
    """Return title -> label -> n of the metrics that rest on other cases than the first one."""
    first = metrics[0].name
    found = {
        metric.title: {
            label: row[metric.name].n
            for label, row in summary.items()
            if row[metric.name].n != row[first].n
        }
        for metric in metrics
    }
    return {title: others for title, others in found.items() if others}


def _per_label(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{label} in {_cases(count)}" for label, count in counts.items() if count)


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

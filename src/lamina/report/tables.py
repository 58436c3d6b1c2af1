"""Tables of scores for a paper: Markdown and LaTeX."""

import re
from collections.abc import Callable, Iterator, Sequence

from lamina.evaluation.scores import Scores
from lamina.evaluation.table import cell, number, shown_metrics

_LATEX = {c: f"\\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "−": "$-$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "²": r"$^2$",
}
_ARROWS = {True: " ↑", False: " ↓", None: ""}
MEAN = "Mean of structures"


def score_rows(scores: Scores) -> Iterator[tuple[str, ...]]:
    """Yield the head of the table, a row per structure and region, and the mean of structures.

    What occurs in no case, neither true nor predicted, has no row.
    """
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
            *(cell(row[metric.name].mean, row[metric.name].std, metric) for metric in metrics),
        )
    if len(scores.labels.foreground) > 1:
        yield (
            MEAN,
            *(
                "" if m.higher_is_better is None else number(scores.mean_foreground(m.name), m)
                for m in metrics
            ),
        )


def occurring(scores: Scores) -> list[str]:
    """Return the structures and regions that some case has, truly or predicted; all if none."""
    found = {row.label for row in scores.rows if row.rule != "both empty"}
    return [label for label in scores.summary() if label in found or not found]


def counts_told(scores: Scores) -> str:
    """Return how many cases and structures the table rests on, for its caption."""
    first = shown_metrics(scores)[0].name
    rows = [row[first] for row in scores.summary().values()]
    missed, invented = (sum(getattr(row, kind) for row in rows) for kind in ("missed", "invented"))
    told = [f"{len(scores.cases)} cases", "mean ± standard deviation over cases"]
    told += [f"{missed} structures missed"] * bool(missed)
    told += [f"{invented} structures invented"] * bool(invented)
    absent = len(rows) - len(occurring(scores))
    told += [f"{absent} structures in no case"] * bool(absent)
    told += [f"{len(scores.failures)} cases failed"] * bool(scores.failures)
    return "; ".join(told)


def markdown_table(scores: Scores) -> str:
    """Return the scores as a Markdown table with its caption below."""
    head, *rows = score_rows(scores)
    rule = ["---", *["---:"] * (len(head) - 1)]
    lines = [_line(row, _for_markdown) for row in (head, rule, *rows)]
    return "\n".join(lines) + f"\n\n{_sentence(scores)}\n"


def latex_table(scores: Scores) -> str:
    """Return the scores as a LaTeX table for the ``booktabs`` package."""
    head, *rows = score_rows(scores)
    body = [" & ".join(map(_for_latex, row)) + r" \\" for row in (head, *rows)]
    with_mean = rows[-1][0] == MEAN
    lines = [
        r"\begin{table}",
        r"  \centering",
        f"  \\caption{{{_for_latex(_sentence(scores))}}}",
        f"  \\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
        r"    \toprule",
        f"    {body[0]}",
        r"    \midrule",
        *(f"    {line}" for line in (body[1:-1] if with_mean else body[1:])),
        *([r"    \midrule", f"    {body[-1]}"] if with_mean else []),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _sentence(scores: Scores) -> str:
    definitions = [f"{metric.title}: {metric.definition}" for metric in shown_metrics(scores)]
    told = counts_told(scores)
    return " ".join([f"{told[:1].upper()}{told[1:]}.", *definitions])


def _line(cells: Sequence[str], escape: Callable[[str], str]) -> str:
    return f"| {' | '.join(map(escape, cells))} |"


def _for_markdown(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _for_latex(text: str) -> str:
    signed = re.sub(r"(?<![\w.])-(?=\d)", "−", " ".join(text.split()))
    return "".join(_LATEX.get(c, c) for c in signed)

"""Tables of strings, and how they are written in Markdown and in LaTeX."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from lamina.evaluation.figures import fixed

_LATEX = {c: rf"\{c}" for c in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": "$-$",
    "–": "--",
    "±": r"$\pm$",
    "²": r"$^2$",
    "<": "$<$",
    ">": "$>$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
}


@dataclass(frozen=True)
class Sheet:
    """One table."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int
    """Columns at the left that hold words; the others hold figures."""
    bold: tuple[bool, ...]
    """Rows that stand out."""


def markdown_page(
    sheets: Sequence[Sheet], legend: str, heading: str, notes: Sequence[str], *, title: str = ""
) -> str:
    """Return tables, what stands in their columns, and notes as a Markdown page.

    Args:
        sheets: The tables.
        legend: What their columns are.
        heading: Over the notes, where there are any.
        notes: One sentence or more each.
        title: Of the page; where it is empty, the title of the only table is.
    """
    parts = [f"# {markdown_text(title)}"] if title else []
    for sheet in sheets:
        parts += [f"{'##' if title else '#'} {markdown_text(sheet.title)}", markdown_table(sheet)]
    parts += [legend] if legend else []
    if notes:
        parts += [f"## {heading}", "\n".join(f"- {markdown_text(note)}" for note in notes)]
    return "\n\n".join(parts) + "\n"


def markdown_table(sheet: Sheet) -> str:
    """Return a table without its title."""
    rule = ["---"] * sheet.names + ["---:"] * (len(sheet.header) - sheet.names)
    lines = [[markdown_text(c) for c in sheet.header], rule]
    for row, bold in zip(sheet.rows, sheet.bold, strict=True):
        lines.append([f"**{markdown_text(c)}**" if bold and c else markdown_text(c) for c in row])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def latex_table(sheet: Sheet, caption: str) -> str:
    """Return a table for a paper that loads ``booktabs``."""
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{latex_text(caption)}}}",
        rf"  \begin{{tabular}}{{{'l' * sheet.names}{'r' * (len(sheet.header) - sheet.names)}}}",
        r"    \toprule",
        f"    {' & '.join(map(latex_text, sheet.header))} \\\\",
        r"    \midrule",
    ]
    for row, bold in zip(sheet.rows, sheet.bold, strict=True):
        cells = [rf"\textbf{{{latex_text(c)}}}" if bold and c else latex_text(c) for c in row]
        lines.append(f"    {' & '.join(cells)} \\\\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}"])


def signed(value: float, digits: int) -> str:
    """Return a number with its sign; what rounds to zero has none."""
    return fixed(value, digits, "+")


def markdown_text(text: str) -> str:
    """Return text on one line as Markdown shows it."""
    return "".join(rf"\{c}" if c in "\\|*_`<[" else c for c in " ".join(text.split()))


def latex_text(text: str) -> str:
    """Return text on one line as LaTeX prints it, a hyphen before a number as a minus."""
    told = re.sub(r"(?<![\w.])-(?=\d)", "−", " ".join(text.split()))
    return "".join(_LATEX.get(c, c) for c in told)

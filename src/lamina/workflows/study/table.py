"""A filled study as tables and pictures: for the terminal, Markdown, LaTeX and JSON."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.evaluation.statistics.intervals import caution_of
from lamina.files import atomic_path, write_json, write_text
from lamina.report.sheets import Sheet, latex_table, markdown_page, signed
from lamina.study.filling import Cell, Filled, FilledRow
from lamina.study.schema import Column

if TYPE_CHECKING:
    from lamina.report.charts import Chart

log = logging.getLogger(__name__)

_DIGITS = {"": 3, "%": 2, "M": 2, "G": 2, "k": 1, "mm": 2, "s": 2, "MB": 0}
_DPI = 160


def heading(found: Filled) -> str:
    """Return what the study is, in one line."""
    return f"{found.study.source}: {found.study.title}"


def sheet(found: Filled) -> Sheet:
    """Return the table, up to five lines a row: published, here, interval, seeds, difference."""
    columns = found.study.columns
    lines, bold = [], []
    for row in found.rows:
        for place, (name, cells) in enumerate(_lines(row, columns)):
            lines.append(("" if place else row.title, name, *cells))
            bold.append(name == "here")
    header = ("", "", *(f"{c.title}{f', {c.unit}' if c.unit else ''}" for c in columns))
    return Sheet(heading(found), header, tuple(lines), 2, tuple(bold))


def legend(found: Filled) -> Iterator[str]:
    """Yield what the lines are."""
    measured = [cell for row in found.rows for cell in row.cells if cell.patients]
    if not measured:
        return
    counts = sorted({cell.patients for cell in measured})
    among = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    yield (
        f"Here: mean over {among} patient{'s' * (counts[-1] != 1)}, each the mean of all its "
        "trainings. 95 %: where the mean over all such patients may lie (BCa bootstrap). "
        "Difference: here minus published."
    )
    if few := caution_of(counts[:1]):
        yield few
    if any(cell.mark for cell in measured):
        shown = found.study.rows[found.study.reference].title or found.study.reference
        yield (
            f"*, **: differs from {shown} on the same patients, p < 0.05, p < 0.01 (Wilcoxon "
            "signed-rank, Holm-corrected)."
        )


def write(out: Path, found: Filled) -> None:
    """Write ``table.json``, ``table.md``, ``table.tex``, and a picture where the study has one.

    Raises:
        FileError: The folder cannot be written.
    """
    whole, told, notes = sheet(found), " ".join(legend(found)), tuple(found.notes())
    write_json(out / "table.json", found.as_dict())
    page = markdown_page([whole], told.replace("*", r"\*"), "Why not comparable", notes)
    write_text(out / "table.md", page)
    caption = f"{heading(found)}. {told}".strip()
    comments = "\n".join(f"% {' '.join(note.split())}" for note in notes)
    write_text(out / "table.tex", f"{comments}\n\n{latex_table(whole, caption)}\n".lstrip())
    if found.study.drawn:
        _draw(out, found)


def _lines(row: FilledRow, columns: tuple[Column, ...]) -> Iterator[tuple[str, list[str]]]:
    pairs = [*zip(columns, row.cells, strict=True)]
    lines = {
        "published": [_figure(c, cell.published) for c, cell in pairs],
        "here": [_figure(c, cell.measured) + cell.mark for c, cell in pairs],
        "95 %": [_interval(c, cell) for c, cell in pairs],
        "SD of seeds": [_figure(c, cell.spread) for c, cell in pairs],
        "difference": [_difference(c, cell) for c, cell in pairs],
    }
    shown = {name: line for name, line in lines.items() if any(line)}
    yield from (shown or {"": [""] * len(columns)}).items()


def _figure(column: Column, value: float | None) -> str:
    if value is None:
        return ""
    digits = _DIGITS[column.unit]
    return signed(value, digits) if column.change else f"{value:,.{digits}f}"


def _interval(column: Column, cell: Cell) -> str:
    if cell.low is None or cell.high is None:
        return ""
    return f"{_figure(column, cell.low)} to {_figure(column, cell.high)}"


def _difference(column: Column, cell: Cell) -> str:
    return "" if cell.difference is None else signed(cell.difference, _DIGITS[column.unit])


def _draw(out: Path, found: Filled) -> None:
    """Draw what was measured, if anything was and the drawing library is there."""
    try:
        chart = (_radar if found.study.drawn == "radar" else _curve)(found)
    except ModuleNotFoundError as error:
        if error.name != "matplotlib":
            raise
        log.warning("%s is not installed: no picture. pip install 'lamina[report]'", error.name)
        return
    if chart is not None:
        with atomic_path(out / f"{found.study.drawn}.png") as part:
            chart.figure.savefig(part, dpi=_DPI, facecolor="white", format="png")


def _radar(found: Filled) -> "Chart | None":
    from lamina.report.radar import radar_chart

    places = [i for i, c in enumerate(found.study.columns) if c.is_scored and c.unit == "%"]
    axes = [found.study.columns[i].title for i in places]
    lines = {}
    for row in found.rows[-1:] if found.study.cases else found.rows:
        for what in ("published", "measured"):
            values = [getattr(row.cells[i], what) for i in places]
            if None not in values and (row.trainings or what == "published"):
                lines[f"{row.title}, {'here' if what == 'measured' else what}"] = values
    return radar_chart(found.study.title, found.study.source, axes, lines) if lines else None


def _curve(found: Filled) -> "Chart | None":
    from lamina.report.charts import curve_chart

    study = found.study
    place = next(i for i, column in enumerate(study.columns) if column.is_scored)
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in found.rows:
        about, value = study.rows[row.key], row.cells[place].measured
        if about.place is not None and value is not None:
            lines.setdefault(about.line, []).append((about.place, value))
    if not lines:
        return None
    title = f"{study.columns[place].title}, {study.columns[place].unit}"
    ordered = {name: sorted(points) for name, points in lines.items()}
    return curve_chart(title, study.title, ordered, {}, axis=study.axis)

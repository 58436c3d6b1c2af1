"""The verb that compares methods by their scores."""

import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lamina.cli.blocks import Blocks
from lamina.cli.options import OUT
from lamina.cli.program import RESULTS, verb
from lamina.cli.terminal import Terminal
from lamina.cli.units import names
from lamina.errors import ConfigError

if TYPE_CHECKING:
    from lamina.evaluation.statistics.comparison import Comparison
    from lamina.report.sheets import Sheet

_GENERIC = {"scores", "out_of_fold"}
"""Folders whose own names say nothing of a method."""


@verb("lamina compare scores/unet scores/glims --out comparison", panel=RESULTS)
def compare(
    terminal: Terminal,
    places: Annotated[
        list[Path] | None,
        typer.Argument(metavar="SCORES...", help="Folders of evaluate --out or train --fold all."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=A,B,C", help="Several trainings of one method; also as 'unet=scores/u*'."
        ),
    ] = None,
    names: Annotated[
        Sequence[str] | None,
        typer.Option(parser=names, metavar="A,B,C", help="What to call the methods, in order."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Metric to compare; Dice by default.")] = None,
    structure: Annotated[
        str | None, typer.Option(help="One structure or region; all structures by default.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(*OUT, help="Folder for figures, tables and pictures.")
    ] = None,
) -> None:
    """Tell whether methods that were scored on the same cases differ: intervals, tests, ranks."""
    from lamina.workflows import compare as workflow

    methods = _named(places or [], names)
    for name, paths in map(_group, group or []):
        if name in methods:
            raise ConfigError(f"--group {name}: two methods have this name.")
        methods[name] = paths
    found = workflow.compare(methods, out, metric=metric, structure=structure)
    where = [f"Figures, tables, pictures: {out}"] if out else []
    terminal.result({"out": out and str(out), **found.as_dict()}, *_shown(found), *where)


def _named(places: Sequence[Path], names: Sequence[str] | None) -> dict[str, list[Path]]:
    """Return the methods by given names, else by those of their folders where these differ."""
    for place in places:
        if places.count(place) > 1:
            raise ConfigError(f"{place}: given twice.", remedy="Give each set of scores once.")
    if names is None:
        own = [_own_name(place) for place in places]
        names = [
            name if own.count(name) == 1 else str(place)
            for name, place in zip(own, places, strict=True)
        ]
    elif len(names) != len(places) or len(set(names)) < len(names):
        raise ConfigError(
            f"--names {','.join(names)!r}: must be {len(places)} different names, one for each "
            "SCORES."
        )
    return {name: [place] for name, place in zip(names, places, strict=True)}


def _own_name(place: Path) -> str:
    folder = place.resolve().parent if place.is_file() else place.resolve()
    return folder.parent.name if folder.name in _GENERIC else folder.name


def _group(text: str) -> tuple[str, list[Path]]:
    """Return name and places of ``name=a,b`` or ``name=pattern``."""
    name, _, given = text.partition("=")
    parts = [part for part in given.split(",") if part]
    if not name.strip() or not parts:
        raise ConfigError(
            f"--group {text!r}: must be a name and folders of scores.",
            remedy="Such as --group unet=scores/unet_0,scores/unet_1.",
        )
    paths: list[Path] = []
    for part in parts:
        found = _matching(Path(part)) if set(part) & set("*?[") else [Path(part)]
        if not found:
            raise ConfigError(f"--group {text!r}: nothing is called {part}.")
        paths += found
    return name.strip(), paths


def _matching(pattern: Path) -> list[Path]:
    root = Path(pattern.anchor)
    return sorted(root.glob(str(pattern.relative_to(root))))


def _shown(found: "Comparison") -> Iterator[RenderableType]:
    """Show methods, pairs, and what must be known to read them."""
    from lamina.report.comparison import heading, legend, method_sheet, pair_sheet

    yield Text(heading(found))
    yield sheet_table(method_sheet(found))
    yield sheet_table(pair_sheet(found))
    for line in legend(found):
        yield Padding(Text(line, style="dim"), (0, 0, 0, 2))
    for line in (*found.subject.remarks, *found.cautions):
        bullet = Table.grid(padding=(0, 1, 0, 0))
        bullet.add_row("  •", Text(line))
        yield bullet


def sheet_table(sheet: "Sheet") -> Blocks:
    """Show a table of strings; figures are never wrapped."""

    def make(figures: range, limit: int | None) -> Table:
        shown = [*range(sheet.names), *(sheet.names + place for place in figures)]
        table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for place in shown:
            cells = [row[place] for row in sheet.rows]
            heading = _broken(sheet.header[place], cells)
            if place < sheet.names:
                table.add_column(heading, max_width=limit, overflow="fold")
            else:
                table.add_column(heading, justify="right", no_wrap=True)
        for row, bold in zip(sheet.rows, sheet.bold, strict=True):
            cells = [row[place] for place in shown]
            table.add_row(*map(Text, cells), style="bold" if bold else "")
        return table

    names = [cell for row in sheet.rows for cell in row[: sheet.names]]
    return Blocks(make=make, num_columns=len(sheet.header) - sheet.names, names=names)


def _broken(heading: str, cells: Sequence[str]) -> str:
    """Break a heading that is wider than what stands below into two lines of words."""
    width = max(1, (len(heading) + 1) // 2, *map(len, cells))
    return textwrap.fill(heading, width, break_long_words=False)

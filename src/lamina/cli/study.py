"""The verb that fills the papers' tables with what is measured here."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from lamina.cli.compare import sheet_table
from lamina.cli.options import (
    OUT,
    Cluster,
    Config,
    Cpus,
    Folds,
    Gpus,
    Seeds,
    SetOfAll,
    refuse_without,
)
from lamina.cli.program import OF_ALL, RESULTS, verb
from lamina.cli.terminal import Terminal
from lamina.cli.units import duration, names, spoken
from lamina.errors import ConfigError

if TYPE_CHECKING:
    from lamina.study.schema import Study
    from lamina.workflows.study import Studied


@verb("lamina study glims/table4 --data work --time-budget 2h --out study", panel=RESULTS)
def study(
    terminal: Terminal,
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(help="Such as glims/table4; without it, all are listed.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="WORK", help="Folder that prepare wrote.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(*OUT, help="Folder for runs, scores and table.")
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(
            parser=duration, metavar="TIME", help="Time to train all runs in, together: 2h."
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Length of each run instead of a time.")
    ] = None,
    seeds: Seeds = "0",  # type: ignore[assignment]
    folds: Folds = "0",  # type: ignore[assignment]
    rows: Annotated[
        Sequence[str] | None,
        typer.Option(parser=names, metavar="A,B,C", help="Only these rows, by their short names."),
    ] = None,
    unseen: Annotated[
        Path | None,
        typer.Option(metavar="WORK", help="Another prepared dataset to score the networks on."),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="In place of the paper's settings; auto: as the scans are planned."),
    ] = None,
    config: Config = None,
    set_: SetOfAll = None,
    cluster: Cluster = None,
    cpus: Cpus = 1,
    gpus: Gpus = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Tell what would be trained, and for how long.")
    ] = False,
) -> None:
    """Fill a table of the papers: published, measured here, the difference, and why they differ.

    Without --data, networks are counted and nothing is trained. The same command again goes on
    where this one was stopped.
    """
    from lamina.cli.settings import settings_from
    from lamina.study.schema import list_studies
    from lamina.workflows import study as workflow

    _refuse_idle(context)
    if name is None:
        found = list_studies()
        terminal.result({"studies": [_entry(each) for each in found]}, _listed(found))
        return
    with terminal.bar() as progress:
        result = workflow.study(
            name,
            data,
            out,
            settings_from(config=config, overrides=set_),
            recipe=recipe,
            rows=rows,
            seeds=seeds,
            folds=folds,
            time_budget_s=time_budget,
            epochs=epochs,
            unseen=unseen,
            cluster=cluster,
            cpus=cpus,
            gpus=gpus,
            dry_run=dry_run,
            progress=progress,
        )
    shown = _outline(result) if dry_run and result.runs else _table(result)
    terminal.result(result.as_dict(), *shown)
    terminal.failures(result.failures, "Failed")


def _refuse_idle(context: typer.Context) -> None:
    """Refuse options that would do nothing, for lack of a study, of scans or of a cluster."""
    given = context.params
    of_all = {"name", *(option.name for option in OF_ALL)}
    if given["name"] is None:
        refuse_without("the NAME of a study", context, given.keys() - of_all)
    if given["data"] is None:
        refuse_without("--data", context, given.keys() - of_all - {"out", "dry_run"})
    if given["cluster"] is None:
        refuse_without("--cluster", context, ("cpus", "gpus"))
    if given["time_budget"] is not None and given["epochs"] is not None:
        raise ConfigError("--time-budget and --epochs: give one of them.")


def _entry(study: "Study") -> dict[str, object]:
    return {
        "name": study.name,
        "title": study.title,
        "source": study.source,
        "dataset": study.dataset,
        "unseen": study.unseen,
        "recipe": study.recipe,
        "rows": list(study.rows),
        "runnable": list(study.runnable),
    }


def _listed(studies: tuple["Study", ...]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, caption="More: lamina study NAME")
    for header in ("Study", "What", "Scans"):
        table.add_column(header, no_wrap=header == "Study", overflow="fold")
    table.add_column("Rows", justify="right", no_wrap=True)
    for study in studies:
        scans = " -> ".join(filter(None, (study.dataset, study.unseen))) or "none"
        rows = f"{len(study.runnable)} of {len(study.rows)}"
        table.add_row(study.name, Text(study.title), scans, rows)
    return table


def _table(result: "Studied") -> Iterator[RenderableType]:
    """Show the table, then what to know of it."""
    from lamina.workflows.study.table import heading, legend, sheet

    found = result.filled
    yield Text(heading(found))
    yield sheet_table(sheet(found))
    for line in legend(found):
        yield Padding(Text(line, style="dim"), (0, 0, 1, 2))
    if notes := list(found.notes()):
        yield Text("Why not comparable", style="bold")
    for note in notes:
        bullet = Table.grid(padding=(0, 1, 0, 0))
        bullet.add_row("  •", Text(note))
        yield bullet
    if result.out:
        yield f"Table: {result.out}"


def _outline(result: "Studied") -> Iterator[RenderableType]:
    """Show what would be trained."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for header in ("Run", "State", "Length"):
        table.add_column(header, overflow="fold")
    total = 0.0
    for run in result.runs:
        length = result.lengths[run.name]
        seconds = length.get("seconds", length.get("estimated_seconds", 0.0))
        total += 0 if run.state == "finished" else seconds
        about = spoken(seconds) if "seconds" in length else f"about {spoken(seconds)}"
        steps = (
            f"{length['epochs']} epochs, {length['steps']:,} steps" if "epochs" in length else ""
        )
        told = ", ".join(filter(None, (steps, about if seconds else "")))
        table.add_row(run.name, run.state, "" if run.state == "finished" else told)
    yield table
    left = sum(run.state != "finished" for run in result.runs)
    yield f"To train: {left} of {len(result.runs)} runs, {spoken(total)} without scoring them."
    for row in result.filled.rows:
        if row.why and row.key in result.filled.study.runnable and "yet" not in row.why:
            yield f"Left out: {row.title}: {row.why}"

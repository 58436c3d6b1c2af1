"""The verb that trains with many settings, seeds and folds, here or on a cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lamina.cli.options import (
    OUT,
    Cluster,
    Config,
    Cpus,
    Folds,
    Gpus,
    Recipe,
    Seeds,
    SetOfAll,
    StrictPaper,
    Work,
    refuse_without,
)
from lamina.cli.program import MODELS, verb
from lamina.cli.terminal import Terminal

if TYPE_CHECKING:
    from lamina.workflows.sweep import Sweep


@verb("lamina sweep work --set-grid optimiser.lr=1e-3,3e-3 --out sweep", panel=MODELS)
def sweep(
    terminal: Terminal,
    context: typer.Context,
    work: Work,
    out: Annotated[Path, typer.Option(*OUT, help="Folder to write the runs to.")],
    set_grid: Annotated[
        list[str] | None,
        typer.Option("--set-grid", metavar="A.B=C,D", help="Values to try; all combinations are."),
    ] = None,
    seeds: Seeds = "0",  # type: ignore[assignment]
    folds: Folds = "0",  # type: ignore[assignment]
    cluster: Cluster = None,
    cpus: Cpus = 1,
    gpus: Gpus = None,
    recipe: Recipe = None,
    strict_paper: StrictPaper = False,
    config: Config = None,
    set_: SetOfAll = None,
) -> None:
    """Train every combination of settings, seeds and folds, and compare their validation Dice.

    The same command again goes on where this one was stopped.
    """
    from lamina.cli.settings import parse_grid, settings_from
    from lamina.workflows import sweep as workflow

    if cluster is None:
        refuse_without("--cluster", context, ("cpus", "gpus"))
    settings = settings_from(
        recipe=recipe, strict_paper=strict_paper, config=config, overrides=set_
    )
    with terminal.bar() as progress:
        result = workflow.sweep(
            work,
            out,
            settings,
            grid=parse_grid(set_grid or []),
            seeds=seeds,
            folds=folds,
            cluster=cluster,
            cpus=cpus,
            gpus=gpus,
            progress=progress,
        )
    terminal.result(result.as_dict(), _table(result), f"Runs: {result.out}")
    terminal.failures(result.failures, "Failed")


def _table(result: "Sweep") -> Table:
    """Show the combinations, the best first."""
    names = list(result.rows[0].settings)
    table = Table(box=SIMPLE_HEAD, caption="Dice of each run's best epoch on its validation scans.")
    for name in names:
        table.add_column(name)
    for header in ("Runs", "Mean Dice", "SD over seeds", "Best run"):
        table.add_column(header, justify="right")
    for row in result.rows:
        table.add_row(
            *(Text(str(row.settings[name])) for name in names),
            f"{row.finished} of {row.runs}",
            *(_figure(dice) for dice in (row.mean_dice, row.sd_dice, row.best_dice)),
        )
    return table


def _figure(dice: float | None) -> str:
    return "-" if dice is None else f"{dice:.4f}"

"""The verb that trains with many settings, seeds and folds, here or on a cluster."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lamina.cli.options import OUT, Cluster, Cpus, Gpus, Work, refuse_without
from lamina.cli.program import MODELS, Json, Quiet, Verbose, app
from lamina.cli.terminal import Terminal
from lamina.cli.units import numbers

if TYPE_CHECKING:
    from lamina.workflows.sweep import Sweep


@app.command(
    epilog="Example: lamina sweep work --set-grid optimiser.lr=1e-3,3e-3 --out sweep",
    rich_help_panel=MODELS,
)
def sweep(
    context: typer.Context,
    work: Work,
    out: Annotated[Path, typer.Option(*OUT, help="Folder to write the runs to.")],
    set_grid: Annotated[
        list[str] | None,
        typer.Option("--set-grid", metavar="A.B=C,D", help="Values to try; all combinations are."),
    ] = None,
    seeds: Annotated[
        str, typer.Option(metavar="N,N", help="Every combination is trained with each.")
    ] = "0",
    fold: Annotated[
        str, typer.Option(metavar="N,N|all", help="Likewise: which splits of splits.json.")
    ] = "0",
    cluster: Cluster = None,
    cpus: Cpus = 1,
    gpus: Gpus = None,
    recipe: Annotated[
        str | None, typer.Option(help="Settings of a paper: see lamina recipes; or a YAML file.")
    ] = None,
    strict_paper: Annotated[
        bool, typer.Option("--strict-paper", help="The recipe as its paper has it, slips included.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="One setting that all runs have."),
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train every combination of settings, seeds and folds, and compare their validation Dice.

    The same command again goes on where this one was stopped.
    """
    terminal = Terminal(json, quiet, verbose)
    with terminal.guard():
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
                seeds=numbers("--seeds", seeds),
                folds=None if fold == "all" else numbers("--fold", fold),
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

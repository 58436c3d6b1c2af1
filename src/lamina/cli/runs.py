"""The verb that compares training runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.box import SIMPLE_HEAD
from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from lamina.cli.program import MODELS, verb
from lamina.cli.terminal import Terminal
from lamina.cli.units import spoken
from lamina.cli.watch import TOLERABLE_WAITING

if TYPE_CHECKING:
    from lamina.workflows.runs import RunFacts, RunTable

_STYLES = {"running": "cyan", "stopped": "yellow", "killed": "red", "failed": "red"}
_SHARED = ("network", "data", "fold")
"""Said once where all runs have the same."""


@verb("lamina runs results/ --json", panel=MODELS)
def runs(
    terminal: Terminal,
    places: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Run folders, or folders of them.")
    ],
) -> None:
    """Compare training runs: what each reached, how far it is, and how their settings differ."""
    from lamina.workflows.runs import compare_runs

    result = compare_runs(places)
    terminal.result(result.as_dict(), *comparison(result))
    terminal.failures(result.unreadable, "Unreadable")


def comparison(found: "RunTable") -> tuple[RenderableType, ...]:
    """Show the runs, why some came to no end, and the settings that differ."""
    if not found.runs:
        return ()
    ended = [run for run in found.runs if run.why]
    return (
        _title(found.runs),
        _table(found.runs),
        *(f"{run.name}: {run.state}: {run.why}" for run in ended),
        *([_differences(found)] if found.differing else []),
    )


def _alike(runs: tuple["RunFacts", ...]) -> tuple[str, ...]:
    return tuple(n for n in _SHARED if len({getattr(run, n) for run in runs}) == 1)


def _title(runs: tuple["RunFacts", ...]) -> str:
    first, alike = runs[0], _alike(runs)
    said = {"network": f" of {first.network}", "data": f" on {first.data}"}
    said["fold"] = f", fold {first.fold}"
    count = f"{len(runs)} run" + "s" * (len(runs) > 1)
    return count + "".join(said[name] for name in alike)


def _table(runs: tuple["RunFacts", ...]) -> Table:
    """One row per run; the best of those that can be compared stands out."""
    differ = [name for name in _SHARED if name not in _alike(runs)]
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("Run", overflow="fold")
    for name in differ:
        table.add_column(name.capitalize(), justify="right" if name == "fold" else "left")
    for header in ("Dice", "Best at", "Epochs", "Steps", "Time", "Waits"):
        table.add_column(header, justify="right", no_wrap=True)
    table.add_column("State", no_wrap=True)
    best: dict[tuple[str, int], float] = {}
    for run in runs:
        place = run.data, run.fold
        best[place] = max(best.get(place, 0.0), run.best_dice or 0.0)
    for run in runs:
        leads = run.best_dice == best[run.data, run.fold]
        table.add_row(
            Text(run.name),
            *(str(getattr(run, name)) for name in differ),
            "-" if run.best_dice is None else Text(f"{run.best_dice:.4f}", "bold green" * leads),
            "-" if run.best_epoch is None else str(run.best_epoch + 1),
            f"{run.epochs}/{run.planned_epochs}" if run.planned_epochs else str(run.epochs),
            f"{run.steps:,}",
            spoken(run.seconds),
            _waits(run.waiting),
            Text(run.state, _STYLES.get(run.state, "")),
        )
    return table


def _waits(share: float | None) -> Text:
    if share is None:
        return Text("-")
    return Text(f"{share:.0%}", "yellow" * (share > TOLERABLE_WAITING))


def _differences(found: "RunTable") -> Table:
    """Show each setting that differs with its values, and the runs that have them."""
    from lamina.workflows.runs import as_text

    table = Table("What differs", "Value", "Runs", box=SIMPLE_HEAD, pad_edge=False)
    for setting, row in found.differing.items():
        having: dict[str, list[str]] = {}
        for name, value in row.items():
            having.setdefault(as_text(value), []).append(name)
        for place, (value, names) in enumerate(having.items()):
            shown = "" if place else setting
            table.add_row(shown, Text("-" if value == "null" else value), Text(", ".join(names)))
    return table

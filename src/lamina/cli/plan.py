"""The verb that shows and changes what was decided about a prepared dataset."""

from typing import Annotated

import typer

from lamina.cli.options import Device, NoRehearse, Ram, Spacing, Time, Vram, Work, Workers
from lamina.cli.program import MAIN, Json, Quiet, Verbose, app
from lamina.cli.terminal import Terminal
from lamina.cli.units import millimetres


@app.command(
    epilog="Example: lamina plan work --time 30m --ram 8G --device cpu --explain",
    rich_help_panel=MAIN,
)
def plan(
    work: Work,
    explain: Annotated[bool, typer.Option("--explain", help="Say why, and what it cost.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Plan for this network; auto: for what suits best.")
    ] = None,
    spacing: Spacing = None,
    ram: Ram = None,
    vram: Vram = None,
    time: Time = None,
    device: Device = None,
    no_rehearse: NoRehearse = False,
    workers: Workers = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show how a prepared dataset is to be trained on; decide again where a budget is given."""
    terminal = Terminal(json, quiet, verbose)
    with terminal.guard():
        from lamina.cli import views
        from lamina.workflows.plan import read_plan, replan

        given = (model, spacing, ram, vram, time, device, no_rehearse or None)
        if all(value is None for value in given):
            result = read_plan(work)
        else:
            with terminal.bar() as progress:
                result = replan(
                    work,
                    model=model,
                    spacing=millimetres("--spacing", spacing),
                    ram_bytes=ram,
                    vram_bytes=vram,
                    time_s=time,
                    device=device,
                    rehearse=not no_rehearse,
                    workers=workers,
                    progress=progress,
                )
        terminal.result(result.as_dict(), *views.planned(result, explain))

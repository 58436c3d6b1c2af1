"""The verb that shows and changes what was decided about a prepared dataset."""

from typing import Annotated

import typer

from lamina.cli.options import Device, NoRehearse, Ram, Spacing, TimeBudget, Vram, Work, Workers
from lamina.cli.program import MAIN, verb
from lamina.cli.terminal import Terminal
from lamina.errors import ConfigError


@verb("lamina plan work --time-budget 30m --ram 8G --device cpu --explain", panel=MAIN)
def plan(
    terminal: Terminal,
    work: Work,
    explain: Annotated[
        bool, typer.Option("--explain", help="Give the reasons, and what was given up.")
    ] = False,
    model: Annotated[
        str | None, typer.Option(help="Plan for this network; auto: for what suits best.")
    ] = None,
    spacing: Spacing = None,
    ram: Ram = None,
    vram: Vram = None,
    time_budget: TimeBudget = None,
    device: Device = None,
    no_rehearse: NoRehearse = False,
    workers: Workers = None,
) -> None:
    """Show how a prepared dataset is to be trained on, or decide it again by what is given."""
    from lamina.cli import views
    from lamina.workflows.plan import read_plan, replan

    given = (model, spacing, ram, vram, time_budget, device, no_rehearse or None)
    if all(value is None for value in given):
        if workers is not None:
            raise ConfigError(
                "--workers: is for a plan that is decided again.",
                remedy="Say by what, such as --model or --ram.",
            )
        result = read_plan(work)
    else:
        with terminal.bar() as progress:
            result = replan(
                work,
                model=model,
                spacing=spacing,
                ram_bytes=ram,
                vram_bytes=vram,
                time_budget_s=time_budget,
                device=device,
                rehearse=not no_rehearse,
                workers=workers,
                progress=progress,
            )
    terminal.result(result.as_dict(), *views.planned(result, explain))

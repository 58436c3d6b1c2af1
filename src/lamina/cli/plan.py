"""The verb that shows and changes what was decided about a prepared dataset."""

from pathlib import Path
from typing import Annotated

import typer

from lamina.cli.program import Json, Quiet, Verbose, app
from lamina.cli.terminal import Terminal
from lamina.cli.units import duration, memory


@app.command(epilog="Example: lamina plan work --time 30m --ram 8G --device cpu --explain")
def plan(
    work: Annotated[Path, typer.Argument(help="Folder that prepare wrote.")],
    explain: Annotated[bool, typer.Option("--explain", help="Say why, and what it cost.")] = False,
    model: Annotated[
        str | None, typer.Option(help="Plan for this network; auto: what suits best.")
    ] = None,
    ram: Annotated[
        float | None, typer.Option(parser=memory, metavar="SIZE", help="Memory to train in: 8G.")
    ] = None,
    vram: Annotated[
        float | None, typer.Option(parser=memory, metavar="SIZE", help="GPU memory likewise.")
    ] = None,
    time: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="Time to train in: 2h.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; found by itself.")] = None,
    rehearse: Annotated[
        bool, typer.Option(help="Train a few steps to know what a run takes.")
    ] = True,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes; as many as memory allows.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Show how a prepared dataset is to be trained on; decide again where a budget is given."""
    terminal = Terminal(json, quiet, verbose)
    with terminal.guard():
        from lamina.cli import views
        from lamina.workflows.plan import read_plan, replan

        if all(given is None for given in (model, ram, vram, time, device)):
            result = read_plan(work)
        else:
            with terminal.bar() as progress:
                result = replan(
                    work,
                    model=model or "auto",
                    ram_bytes=ram,
                    vram_bytes=vram,
                    time_s=time,
                    device=device,
                    rehearse=rehearse,
                    workers=workers,
                    progress=progress,
                )
        terminal.result(result.as_dict(), *views.planned(result, explain))

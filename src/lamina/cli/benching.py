"""The verb that measures what predictions cost here."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamina.cli.options import OUT
from lamina.cli.program import MODELS, verb
from lamina.cli.terminal import Terminal
from lamina.cli.units import duration, names, numbers

if TYPE_CHECKING:
    from rich.table import Table


@verb("lamina bench lightmedseg --threads 1,2 --out benchmarks", panel=MODELS)
def bench(
    terminal: Terminal,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL|NETWORK]...",
            help="Ten networks by default; ./NAME: a model that is called like a network.",
        ),
    ] = None,
    size: Annotated[
        Sequence[int] | None,
        typer.Option(parser=numbers, metavar="N,N,N", help="Window in voxels, such as 96,96,96."),
    ] = None,
    threads: Annotated[
        Sequence[int],
        typer.Option(parser=numbers, metavar="N,N", help="Numbers of threads, such as 1,2."),
    ] = "1,2",  # type: ignore[assignment]
    forms: Annotated[
        Sequence[str] | None,
        typer.Option(
            parser=names, metavar="A,B", help="Forms to measure, such as fast,onnx; all by default."
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Rounds after the first, cold one.")] = 5,
    timeout: Annotated[
        float, typer.Option(parser=duration, metavar="TIME", help="Longest time for one step.")
    ] = "5m",  # type: ignore[assignment]
    whole_scan: Annotated[
        bool, typer.Option("--whole-scan", help="Segment made-up CTs from file to file, too.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(*OUT, help="Folder for benchmarks.json and benchmarks.md.")
    ] = None,
) -> None:
    """Measure networks in each form that can run them: time, memory, share of the machine."""
    from lamina.workflows.bench import FORMS, SCANS, BenchSettings
    from lamina.workflows.bench import bench as workflow

    settings = BenchSettings(
        size=tuple(size) if size else None,
        threads=tuple(threads),
        forms=tuple(forms or FORMS),
        repeats=repeats,
        timeout_s=timeout,
        scans=SCANS if whole_scan else {},
    )
    with terminal.bar() as progress:
        record = workflow(names or (), settings, out=out, progress=progress)
    shown = [_table(name, facts) for name, facts in record["networks"].items()]
    where = [f"Written: {out / 'benchmarks.md'}"] if out else []
    terminal.result({"out": out and str(out), **record}, *shown, *where)


def _table(name: str, facts: dict[str, Any]) -> "Table":
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table("Threads", "Form", box=SIMPLE_HEAD, title=name, title_justify="left")
    for header in ("Warm (s)", "Faster", "Roofline", "Memory (MB)", "Difference"):
        table.add_column(header, justify="right")
    for threads, found in facts["threads"].items():
        for row in found["rows"].values():
            table.add_row(threads, row["title"], *_cells(row))
    return table


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if "error" in row:
        return (row["error"],)
    return (
        f"{row['warm_s']:.3f}",
        f"{row['faster']:.2f}" if row["faster"] else "",
        f"{row['roofline']:.0%}",
        f"{row['peak_mb']:.0f}",
        "" if row["difference"] is None else f"{row['difference']:.0e}",
    )

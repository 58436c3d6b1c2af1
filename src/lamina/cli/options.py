"""Options that several verbs have, each written once."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from lamina.cli.units import duration, memory
from lamina.errors import ConfigError

OUT = ("--out", "--output", "-o")
"""Every verb's option for what it writes, in all spellings that other programs have."""
Model = Annotated[
    Path,
    typer.Option(
        "--model",
        "-m",
        help="A .lamina file, a run folder, or a name that lamina models --pretrained lists.",
    ),
]
Dataset = Annotated[Path, typer.Argument(help="Folder of labelled scans.")]
Work = Annotated[Path, typer.Argument(help="Folder that prepare wrote.")]
Layout = Annotated[
    str | None, typer.Option(help="How the folder is laid out, such as nnunet; found by itself.")
]
Ram = Annotated[
    float | None,
    typer.Option(parser=memory, metavar="SIZE", help="Memory that training may take: 8G."),
]
RamLimit = Annotated[
    float | None,
    typer.Option("--ram", parser=memory, metavar="SIZE", help="Memory to keep within: 4G."),
]
Vram = Annotated[
    float | None,
    typer.Option(parser=memory, metavar="SIZE", help="GPU memory that training may take: 6G."),
]
TimeBudget = Annotated[
    float | None,
    typer.Option(parser=duration, metavar="TIME", help="Time that training may take: 2h."),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; a GPU if there is one.")]
Devices = Annotated[
    int | None, typer.Option(min=1, help="Processes, or GPUs, that share each step; 1 by default.")
]
Nodes = Annotated[
    int | None, typer.Option(min=1, help="Machines, each with --devices; 1 by default.")
]
Spacing = Annotated[
    str | None,
    typer.Option(metavar="MM,MM,MM", help="Voxel size to work at, in the plan's place."),
]
NoRehearse = Annotated[
    bool,
    typer.Option("--no-rehearse", help="Estimate what a run takes rather than try a few steps."),
]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes; as many as memory allows by default.")
]
ResampleOblique = Annotated[
    bool,
    typer.Option(
        "--resample-oblique", help="Resample scans with a tilted gantry instead of refusing them."
    ),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="auto|HOST:PORT|local:N",
        help="Share the work out with Ray: on a cluster, or on N cores of this machine.",
    ),
]
Cpus = Annotated[float, typer.Option(min=0.1, help="Cores of a run, with --cluster.")]
Gpus = Annotated[
    float | None,
    typer.Option(
        min=0, help="GPUs of a run, or a share, with --cluster; 1 where the cluster has any."
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        "--metric",
        metavar="NAME,...",
        help="Only these; all: show everything that is measured.",
    ),
]


def refuse_without(needed: str, context: typer.Context, names: Iterable[str]) -> None:
    """Refuse options that were typed, though they mean nothing without another.

    Args:
        needed: What is missing, as it would be typed.
        context: Of the verb.
        names: Parameters of the verb that need it.

    Raises:
        ConfigError: One of them was typed.
    """
    typed = [name for name in names if _is_typed(context, name)]
    called = [each.opts[0] for each in context.command.params if each.name in typed]
    if called:
        raise ConfigError(f"{', '.join(called)}: only with {needed}.")


def _is_typed(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"

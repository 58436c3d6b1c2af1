"""Options that several verbs have, each written once."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from lamina.cli.units import duration, folds, memory, millimetres, names, numbers
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
Recipe = Annotated[
    str | None, typer.Option(help="Settings of a paper: see lamina recipes; or a YAML file.")
]
StrictPaper = Annotated[
    bool, typer.Option("--strict-paper", help="The recipe as its paper has it, slips included.")
]
Config = Annotated[Path | None, typer.Option(help="YAML file of settings.")]
SetOfAll = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="One setting that all runs have."),
]
Seeds = Annotated[
    Sequence[int],
    typer.Option(
        parser=numbers, metavar="N,N", help="Each row, or combination, is trained with each."
    ),
]
Folds = Annotated[
    Sequence[int] | None,
    typer.Option(
        "--fold", parser=folds, metavar="N,N|all", help="Likewise: which splits of splits.json."
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1; a GPU if there is one.")]
Devices = Annotated[
    int | None, typer.Option(min=1, help="Processes, or GPUs, that share each step; 1 by default.")
]
Nodes = Annotated[
    int | None, typer.Option(min=1, help="Machines, each with --devices; 1 by default.")
]
Spacing = Annotated[
    Sequence[float] | None,
    typer.Option(
        parser=millimetres, metavar="MM,MM,MM", help="Voxel size to work at, in the plan's place."
    ),
]
PixelSize = Annotated[
    float | None, typer.Option(help="Side of a pixel in mm, of pictures that do not tell it.")
]
Backend = Annotated[str, typer.Option(help="torch, onnx, openvino; auto: what is quickest here.")]
Precision = Annotated[
    Literal["fp32", "bf16"],
    typer.Option(help="bf16: faster where the machine has it, less exact."),
]
Tta = Annotated[bool, typer.Option("--tta", help="Look at mirror images too: better, and slower.")]
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
    list[Any] | None,  # of lists of names
    typer.Option(
        "--metrics",
        "--metric",
        parser=names,
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

"""The verbs that make a model of labelled scans, and the demonstration of all verbs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamina.cli.options import (
    OUT,
    Cluster,
    Config,
    Dataset,
    Device,
    Devices,
    Layout,
    Nodes,
    NoRehearse,
    Ram,
    Recipe,
    ResampleOblique,
    Spacing,
    StrictPaper,
    TimeBudget,
    Vram,
    Work,
    Workers,
)
from lamina.cli.program import MAIN, verb
from lamina.cli.terminal import Terminal, is_follower
from lamina.cli.units import duration, fold
from lamina.cli.watch import on_bar, on_lines, watching

if TYPE_CHECKING:
    from lamina.training.callbacks import EpochReport


@verb("lamina prepare Task04_Hippocampus --out work", panel=MAIN)
def prepare(
    terminal: Terminal,
    dataset: Dataset,
    out: Annotated[Path, typer.Option(*OUT, help="Work folder to write.")],
    layout: Layout = None,
    model: Annotated[
        str, typer.Option(help="Network to plan for; auto: what suits scans and budget.")
    ] = "auto",
    spacing: Spacing = None,
    ram: Ram = None,
    vram: Vram = None,
    time_budget: TimeBudget = None,
    device: Device = None,
    no_rehearse: NoRehearse = False,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Splits by patient; 5 by default.")
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(help="A splits.json to follow, as nnU-Net has it.")
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(help="Paper whose cases, labels and split to take, such as lightmedseg."),
    ] = None,
    public: Annotated[
        str | None,
        typer.Option(
            "--dataset",
            help="Public dataset that this is: see lamina datasets; told by file names.",
        ),
    ] = None,
    allow_leakage: Annotated[
        bool, typer.Option("--allow-leakage", help="Accept patients on both sides of a split.")
    ] = False,
    resample_oblique: ResampleOblique = False,
    workers: Workers = None,
    cluster: Cluster = None,
) -> None:
    """Read a dataset, verify it, decide how to train on it, and store it ready for training."""
    from lamina.cli import views
    from lamina.workflows import prepare as workflow

    with terminal.bar() as progress:
        result = workflow.prepare(
            dataset,
            out,
            layout=layout,
            model=model,
            spacing=spacing,
            ram_bytes=ram,
            vram_bytes=vram,
            time_budget_s=time_budget,
            device=device,
            rehearse=not no_rehearse,
            num_folds=folds,
            splits=splits,
            protocol=protocol,
            public=public,
            allow_leakage=allow_leakage,
            resample_oblique=resample_oblique,
            workers=workers,
            cluster=cluster,
            progress=progress,
        )
    terminal.result(result.as_dict(), *views.preparation(result))
    terminal.failures(result.excluded, "Left out")


@verb("lamina train work --fold 0 --time-budget 20m --out run", panel=MAIN)
def train(
    terminal: Terminal,
    work: Work,
    out: Annotated[Path, typer.Option(*OUT, help="Run folder to write.")],
    model: Annotated[str | None, typer.Option(help="Network; the plan's by default.")] = None,
    fold: Annotated[
        Any,
        typer.Option(
            parser=fold,
            metavar="N|all",
            help="Which split of splits.json; 0 by default; all: each in turn, and their ensemble.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Length of the run; the plan's by default.")
    ] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="Length of the run by the clock: 20m."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without a better Dice.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed of everything random.")] = None,
    device: Device = None,
    devices: Devices = None,
    nodes: Nodes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Model whose weights to begin from, where they fit."),
    ] = None,
    recipe: Recipe = None,
    strict_paper: StrictPaper = False,
    config: Config = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="One setting, such as optimiser.lr=1e-3."),
    ] = None,
    mlflow: Annotated[
        Path | None, typer.Option(help="SQLite file for MLflow, to keep the numbers there too.")
    ] = None,
) -> None:
    """Train a network on one fold, or on all, and leave a portable model.

    Ctrl-C stops after the current step with a usable model; --resume goes on from there.
    """
    if is_follower(several=(devices or 1) * (nodes or 1) > 1):  # before torch is imported
        terminal.hush()

    from lamina.cli import views
    from lamina.cli.settings import settings_from
    from lamina.errors import ConfigError
    from lamina.workflows import cross_validation
    from lamina.workflows import train as workflow

    if mlflow and fold == "all":
        raise ConfigError("--mlflow: needs one fold.")
    flags = {
        "model": model,
        "epochs": epochs,
        "time_budget_s": time_budget,
        "patience": patience,
        "seed": seed,
        "device": device,
        "devices": devices,
        "nodes": nodes,
    }
    settings = settings_from(
        recipe=recipe, strict_paper=strict_paper, config=config, flags=flags, overrides=set_
    )
    given: dict[str, Any] = {"resume": resume, "start": start}
    if fold == "all":
        with terminal.bar() as show:
            moves = terminal.err.is_terminal
            listeners = on_bar(show, _dice) if moves else on_lines(terminal, _dice)
            whole = cross_validation.cross_validate(
                work, out, settings, progress=show, **given, **listeners
            )
        terminal.result(whole.as_dict(), *views.cross_validation(whole))
        terminal.failures(whole.all_failures, "Failed")
        return
    with watching(terminal) as listeners:
        result = workflow.train(work, out, settings, fold=fold, mlflow=mlflow, **given, **listeners)
    terminal.result(result.as_dict(), *views.training(result))


@verb("lamina demo --out demo", panel=MAIN)
def demo(
    terminal: Terminal,
    out: Annotated[Path, typer.Option(*OUT, help="Folder for all that it makes.")] = Path("demo"),
    spatial_dims: Annotated[int, typer.Option(min=2, max=3, help="2: images, 3: volumes.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scans and of the training.")] = 0,
    time_budget: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="Time to train in: 95s.")
    ] = None,
) -> None:
    """Do the main job on made-up scans: prepare, train, predict, evaluate, draw."""
    from lamina.cli import views
    from lamina.workflows import demo as workflow

    settings = {"time_budget_s": time_budget} if time_budget else {}
    with terminal.bar() as show:
        result = workflow.demo(
            out,
            spatial_dims=spatial_dims,
            seed=seed,
            settings=settings,
            progress=show,
            **on_bar(show, _dice),
        )
    terminal.result(result.as_dict(), *views.demonstration(result))
    terminal.failures(result.scores.failures, "Failed")


def _dice(report: "EpochReport") -> str:
    return f"Dice {report.scores['dice']:.3f}"

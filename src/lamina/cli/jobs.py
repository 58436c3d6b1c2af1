"""The verbs of the main job: from labelled scans to a model and its scores."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamina.cli.options import (
    Cluster,
    Dataset,
    Device,
    Devices,
    Layout,
    Metrics,
    Nodes,
    NoRehearse,
    Ram,
    RamLimit,
    ResampleOblique,
    Time,
    Vram,
    Work,
    Workers,
)
from lamina.cli.program import MAIN, Json, Quiet, Verbose, app
from lamina.cli.terminal import Terminal, is_follower
from lamina.cli.units import duration
from lamina.cli.units import fold as fold_or_all
from lamina.cli.watch import on_bar, watching

if TYPE_CHECKING:
    from lamina.training.callbacks import EpochReport


@app.command(epilog="Example: lamina prepare Task04_Hippocampus --out work", rich_help_panel=MAIN)
def prepare(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="Work folder to write.")],
    layout: Layout = None,
    model: Annotated[
        str, typer.Option(help="Network to plan for; auto: what suits scans and budget.")
    ] = "auto",
    ram: Ram = None,
    vram: Vram = None,
    time: Time = None,
    device: Device = None,
    no_rehearse: NoRehearse = False,
    folds: Annotated[
        int | None, typer.Option(min=2, help="Splits by patient; 5 by default.")
    ] = None,
    splits: Annotated[
        Path | None, typer.Option(help="A splits.json to follow, as nnU-Net has it.")
    ] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Paper whose cases, labels and split to take: lightmedseg.")
    ] = None,
    public: Annotated[
        str | None, typer.Option("--dataset", help="Public dataset that it is; told by its names.")
    ] = None,
    allow_leakage: Annotated[
        bool, typer.Option("--allow-leakage", help="Accept patients on both sides of a split.")
    ] = False,
    resample_oblique: ResampleOblique = False,
    workers: Workers = None,
    cluster: Cluster = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Read a dataset, verify it, decide how to train on it, and store it ready for training."""
    terminal = Terminal(json, quiet, verbose)
    with terminal.guard():
        from lamina.cli import views
        from lamina.workflows import prepare as workflow

        with terminal.bar() as progress:
            result = workflow.prepare(
                dataset,
                out,
                layout=layout,
                model=model,
                ram_bytes=ram,
                vram_bytes=vram,
                time_s=time,
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


@app.command(
    epilog="Example: lamina train work --fold 0 --time-budget 20m --out run", rich_help_panel=MAIN
)
def train(
    work: Work,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    model: Annotated[str | None, typer.Option(help="Network; the plan's by default.")] = None,
    fold: Annotated[
        Any,
        typer.Option(
            parser=fold_or_all,
            metavar="N|all",
            help="Which split of splits.json; 0 by default; all: each in turn, and their ensemble.",
        ),
    ] = None,
    soup: Annotated[
        bool, typer.Option("--soup", help="Of all folds: test the mean of their weights, too.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Length of the run.")] = None,
    time_budget: Annotated[
        float | None,
        typer.Option(parser=duration, metavar="TIME", help="Length of the run by the clock: 20m."),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many epochs without a better Dice.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Decides everything random.")] = None,
    device: Device = None,
    devices: Devices = None,
    nodes: Nodes = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    start: Annotated[
        Path | None,
        typer.Option("--from", help="Model whose weights to begin from, where they fit."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Settings of a paper: see lamina recipes; or a YAML file.")
    ] = None,
    strict_paper: Annotated[
        bool, typer.Option("--strict-paper", help="The recipe with the paper's slips as published.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="One setting, such as optimiser.lr=1e-3."),
    ] = None,
    mlflow: Annotated[
        Path | None, typer.Option(help="SQLite file for MLflow, to keep the numbers there too.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Train a network on one fold, or on all, and leave a portable model.

    Ctrl-C stops after the current step with a usable model; --resume goes on from there.
    """
    follows = is_follower(several=(devices or 1) * (nodes or 1) > 1)
    terminal = Terminal(json and not follows, quiet or follows, verbose)
    with terminal.guard():
        from lamina.cli import views
        from lamina.config import layered, load_recipe, load_yaml, parse_overrides
        from lamina.errors import ConfigError
        from lamina.workflows import cross_validation
        from lamina.workflows import train as workflow

        if soup and fold != "all":
            raise ConfigError("--soup: needs --fold all.")
        if mlflow and fold == "all":
            raise ConfigError("--mlflow: needs one fold.")
        if strict_paper and not recipe:
            raise ConfigError("--strict-paper: needs a --recipe.")
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
        settings = layered(
            load_recipe(recipe, strict_paper=strict_paper) if recipe else {},
            load_yaml(config) if config else {},
            {name: value for name, value in flags.items() if value is not None},
            parse_overrides(set_ or []),
        )
        given: dict[str, Any] = {"resume": resume, "start": start}
        if fold == "all":
            with terminal.bar() as show:
                whole = cross_validation.cross_validate(
                    work, out, settings, soup=soup, progress=show, **given, **on_bar(show, _dice)
                )
            terminal.result(whole.as_dict(), *views.cross_validation(whole))
            terminal.failures(whole.all_failures, "Failed")
            return
        with watching(terminal) as listeners:
            result = workflow.train(
                work, out, settings, fold=fold, mlflow=mlflow, **given, **listeners
            )
        terminal.result(result.as_dict(), *views.training(result))


@app.command(
    epilog="Example: lamina predict -m run -i scans/ -o segmentations/", rich_help_panel=MAIN
)
def predict(
    model: Annotated[Path, typer.Option("--model", "-m", help="A .lamina file or a run folder.")],
    out: Annotated[Path, typer.Option("--output", "-o", help="Folder for the segmentations.")],
    inputs: Annotated[
        Path | None, typer.Option("--input", "-i", help="A scan or a folder of scans.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="A run's own scans: 'val', or 'test', kept for the end.")
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option("--format", help="nifti; seg, labelmap or rtstruct for DICOM series."),
    ] = None,
    anonymise: Annotated[
        bool, typer.Option("--anonymise", help="Leave the patient out of DICOM objects.")
    ] = False,
    ram: RamLimit = None,
    device: Device = None,
    backend: Annotated[
        str,
        typer.Option(help="torch, onnx, openvino; auto: what is quickest here."),
    ] = "torch",
    tta: Annotated[
        bool, typer.Option("--tta", help="Look at mirror images too: better, and slower.")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Leave them beside each segmentation.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Leave out what is segmented in --output already.")
    ] = False,
    resample_oblique: ResampleOblique = False,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Segment scans, each on its own grid, with the values its training labels had."""
    terminal = Terminal(json, quiet, verbose)
    with terminal.guard():
        from lamina.cli import views
        from lamina.workflows import predict as workflow

        with terminal.bar() as progress:
            result = workflow.predict(
                model,
                out,
                inputs,
                split=split,
                output_format=output_format,
                anonymise=anonymise,
                device=device,
                backend=backend,
                resample_oblique=resample_oblique,
                tta=tta,
                ram_bytes=ram,
                probabilities=probabilities,
                resume=resume,
                progress=progress,
            )
        terminal.result(result.as_dict(), views.prediction(result))
        terminal.failures(result.failures, "Failed")


@app.command(
    epilog="Example: lamina evaluate -p segmentations/ -r labelsTr/ --out scores",
    rich_help_panel=MAIN,
)
def evaluate(
    predictions: Annotated[Path, typer.Option("--predictions", "-p", help="Segmentations.")],
    references: Annotated[
        Path | None,
        typer.Option("--references", "-r", help="Reference labels; those of --split are known."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for scores.csv and scores.json.")] = None,
    metrics: Metrics = None,
    protocol: Annotated[
        str | None, typer.Option(help="Measure as transunet, mpunet or lgmsnet did, odd or not.")
    ] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="Folder of CASE_probabilities.npy, for ece and brier.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Score segmentations against references, per case and structure."""
    terminal = Terminal(json, quiet, verbose)
    with terminal.guard():
        from lamina.evaluation.table import render_scores
        from lamina.workflows import evaluate as workflow

        names = [name.strip() for given in metrics or () for name in given.split(",")]
        with terminal.bar() as progress:
            scores = workflow.evaluate(
                predictions,
                references,
                out,
                metrics=None if "all" in names else names,
                protocol=protocol,
                probabilities=probabilities,
                progress=progress,
            )
        where = [f"Scores: {out / 'scores.csv'}"] if out else []
        terminal.result(scores.as_dict(), render_scores(scores, every=bool(names)), *where)
        terminal.failures(scores.failures, "Failed")


@app.command(epilog="Example: lamina demo --out demo", rich_help_panel=MAIN)
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything the demo makes.")] = Path("demo"),
    spatial_dims: Annotated[int, typer.Option(min=2, max=3, help="2: images, 3: volumes.")] = 3,
    seed: Annotated[int, typer.Option(min=0, help="Decides scans and training.")] = 0,
    time_budget: Annotated[
        float | None, typer.Option(parser=duration, metavar="TIME", help="To train: 95s.")
    ] = None,
    json: Json = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Do the main job on made-up scans: prepare, train, predict, evaluate, draw."""
    terminal = Terminal(json, quiet, verbose)
    with terminal.guard():
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

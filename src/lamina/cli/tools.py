"""The verbs around the main job: what there is, what is wrong with it, what others have trained."""

from pathlib import Path
from shlex import quote
from typing import Annotated

import typer

from lamina.cli.options import OUT, Dataset, Layout, Workers
from lamina.cli.program import DATA, MAIN, MODELS, verb
from lamina.cli.terminal import FAILED, Terminal
from lamina.errors import ConfigError


@verb("lamina doctor Task04_Hippocampus --report report", panel=MAIN)
def doctor(
    terminal: Terminal,
    dataset: Dataset,
    fix: Annotated[Path | None, typer.Option(help="New folder for a mended copy.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what --fix would change.")
    ] = False,
    report: Annotated[Path | None, typer.Option(help="Folder for a page with pictures.")] = None,
    layout: Layout = None,
    workers: Workers = None,
) -> None:
    """Examine a dataset, say what is wrong with it, and mend what leaves no doubt."""
    from lamina.cli import views
    from lamina.workflows import doctor as workflow

    with terminal.bar() as progress:
        result = workflow.doctor(
            dataset,
            layout=layout,
            fix=fix,
            dry_run=dry_run,
            report=report,
            workers=workers,
            progress=progress,
        )
    terminal.result(result.as_dict(), *views.diagnosis(result))
    if result.counts["error"] and not result.mended:
        raise typer.Exit(FAILED)


@verb("lamina models glims lgmsnet_2d --json", panel=MODELS)
def models(
    terminal: Terminal,
    names: Annotated[
        list[str] | None, typer.Argument(help="Networks, or trained models; all by default.")
    ] = None,
    in_channels: Annotated[
        int | None, typer.Option(min=1, help="Image channels; those of the paper, or 1.")
    ] = None,
    num_classes: Annotated[
        int | None, typer.Option(min=1, help="Classes; those of the paper, or 2.")
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="List the trained models that come with Lamina.")
    ] = False,
) -> None:
    """List the networks: what they cost, and what their papers say they cost."""
    from lamina.cli import listings

    if pretrained:
        from lamina.workflows.shipped import list_shipped

        if in_channels or num_classes:
            raise ConfigError("--in-channels, --num-classes: not with --pretrained.")
        models = list_shipped(names)
        told = {"models": [model.as_dict() for model in models]}
        terminal.result(told, listings.shipped(models))
        return
    from lamina.workflows.models import list_models

    with terminal.bar() as progress:
        facts = list_models(
            in_channels=in_channels, num_classes=num_classes, names=names, progress=progress
        )
    terminal.result({"models": [fact.as_dict() for fact in facts]}, listings.models(facts))


@verb("lamina datasets lits acdc", panel=DATA)
def datasets(
    terminal: Terminal,
    names: Annotated[list[str] | None, typer.Argument(help="Datasets; all by default.")] = None,
) -> None:
    """List public datasets: what they show, who may use them, and how the papers split them."""
    from lamina.cli import listings
    from lamina.data.datasets import load_descriptions

    found = load_descriptions(names)
    shown = [listings.datasets(found)] if not names else map(listings.dataset, found)
    terminal.result({"datasets": [dataset.as_dict() for dataset in found]}, *shown)


@verb("lamina fetch Task04_Hippocampus --out data", panel=DATA)
def fetch(
    terminal: Terminal,
    task: Annotated[str, typer.Argument(help="Task of the Medical Segmentation Decathlon.")],
    out: Annotated[Path, typer.Option(*OUT, help="Folder to make the task's own folder in.")],
) -> None:
    """Download a task of the Medical Segmentation Decathlon, after saying under which licence."""
    from lamina.workflows import fetch as workflow

    source = workflow.source_of(task)
    if not terminal.quiet:
        terminal.err.out(f"{task}: {source.licence}; {source.home}\nFrom {source.url}")
    with terminal.bar() as progress:
        folder = workflow.fetch(source, out, progress=progress)
    shown = (f"Fetched: {folder}", f"Next: lamina prepare {quote(str(folder))} --out WORK")
    terminal.result({"out": str(folder), **source.as_dict()}, *shown)


@verb("lamina to-nnunet path/to/dataset Dataset101_Liver", panel=DATA)
def to_nnunet(
    terminal: Terminal,
    dataset: Dataset,
    out: Annotated[Path, typer.Argument(help="New folder, called such as Dataset101_Liver.")],
    layout: Layout = None,
    copy: Annotated[
        bool, typer.Option("--copy", help="Copy files rather than link to them.")
    ] = False,
) -> None:
    """Write a dataset of any layout as nnU-Net v2 takes it."""
    from lamina.cli import views
    from lamina.workflows import to_nnunet as workflow

    result = workflow.to_nnunet(dataset, out, layout=layout, copy=copy)
    terminal.result(result.as_dict(), *views.converted(result))


@verb("lamina import-weights --from glims model.pt --out glims.lamina", panel=MODELS)
def import_weights(
    terminal: Terminal,
    file: Annotated[Path, typer.Argument(help="Checkpoint: .pt, .pth or .safetensors.")],
    source: Annotated[str, typer.Option("--from", help="Paper: glims, lgmsnet or dino.")],
    out: Annotated[Path, typer.Option(*OUT, help="Model to write, such as model.lamina.")],
    task: Annotated[
        str | None,
        typer.Option(
            help="What channels and outputs mean: a name or a YAML file; found by itself."
        ),
    ] = None,
) -> None:
    """Turn a checkpoint that a paper's authors published into a model."""
    from lamina.cli import views
    from lamina.workflows import import_weights as workflow

    result = workflow.import_weights(source, file, out, task=task)
    terminal.result(result.as_dict(), *views.imported(result))

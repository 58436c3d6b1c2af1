"""The verbs that segment scans, and score segmentations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lamina.cli.options import (
    OUT,
    Backend,
    Cluster,
    Device,
    Metrics,
    Model,
    PixelSize,
    Precision,
    RamLimit,
    ResampleOblique,
    Tta,
)
from lamina.cli.program import MAIN, verb
from lamina.cli.terminal import Terminal
from lamina.errors import ConfigError

if TYPE_CHECKING:
    from lamina.workflows.predict import Prediction

_FLAGS = 20
"""Unusual things that are listed; the record has all."""


@verb("lamina predict -m run -i scans/ -o segmentations/", panel=MAIN)
def predict(
    terminal: Terminal,
    model: Model,
    out: Annotated[Path, typer.Option(*OUT, help="Folder for the segmentations.")],
    inputs: Annotated[
        Path | None,
        typer.Option("--input", "-i", help="A scan, a DICOM series, or a folder of such."),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="In place of --input: the run's own scans, val or test.")
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            help="nifti; seg, labelmap or rtstruct for DICOM series; by default the scan's.",
        ),
    ] = None,
    anonymise: Annotated[
        bool, typer.Option("--anonymise", help="Leave the patient out of DICOM objects.")
    ] = False,
    pixel_size: PixelSize = None,
    ram: RamLimit = None,
    device: Device = None,
    backend: Backend = "torch",
    precision: Precision = "fp32",
    tta: Tta = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Write probabilities beside each segmentation.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip scans whose segmentations --out holds already.")
    ] = False,
    resample_oblique: ResampleOblique = False,
    cluster: Cluster = None,
) -> None:
    """Segment scans, each on its own grid, with the values its training labels had."""
    from lamina.cli import views
    from lamina.workflows import predict as workflow

    with terminal.bar() as progress:
        result = workflow.predict(
            model,
            inputs,
            out=out,
            split=split,
            output_format=output_format,
            anonymise=anonymise,
            pixel_size=pixel_size,
            device=device,
            backend=backend,
            precision=precision,
            resample_oblique=resample_oblique,
            tta=tta,
            ram_bytes=ram,
            probabilities=probabilities,
            resume=resume,
            cluster=cluster,
            progress=progress,
        )
    terminal.result(result.as_dict(), views.prediction(result), *_unusual(result))
    terminal.failures(result.failures, "Failed")


def _unusual(result: "Prediction") -> list[str]:
    """List what about the scans is unlike the training of the model."""
    found = [f"{o.case_id}: {flag['text']}" for o in result.outcomes for flag in o.flags or ()]
    if not found:
        return []
    more = len(found) - _FLAGS
    rest = [f"  and {more} more, in {result.record}"] if more > 0 else []
    return ["Unlike the training scans:", *(f"  {line}" for line in found[:_FLAGS]), *rest]


@verb("lamina evaluate -p segmentations/ -r labelsTr/ --out scores", panel=MAIN)
def evaluate(
    terminal: Terminal,
    predictions: Annotated[
        Path, typer.Option("--predictions", "-p", help="Folder of segmentations, or one.")
    ],
    references: Annotated[
        Path | None,
        typer.Option(
            "--references", "-r", help="Reference labels; not needed after predict --split."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(*OUT, help="Folder for scores.csv and scores.json.")
    ] = None,
    metrics: Metrics = None,
    protocol: Annotated[
        str | None, typer.Option(help="Measure as transunet, mpunet or lgmsnet did, odd or not.")
    ] = None,
    probabilities: Annotated[
        Path | None, typer.Option(help="Folder of CASE_probabilities.npy, for ece and brier.")
    ] = None,
) -> None:
    """Score segmentations against references, per case and structure."""
    from lamina.cli.scores import render_scores
    from lamina.workflows import evaluate as workflow

    names = [name for given in metrics or () for name in given]
    if "all" in names and len(names) > 1:
        raise ConfigError(f"--metrics {','.join(names)}: all must stand alone.")
    with terminal.bar() as progress:
        scores = workflow.evaluate(
            predictions,
            references,
            out=out,
            metrics=None if names in ([], ["all"]) else names,
            protocol=protocol,
            probabilities=probabilities,
            progress=progress,
        )
    where = [f"Scores: {out / 'scores.csv'}"] if out else []
    told = {"out": out and str(out), **scores.as_dict()}
    terminal.result(told, render_scores(scores, every=bool(names)), *where)
    terminal.failures(scores.failures, "Failed")

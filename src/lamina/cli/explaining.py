"""The verb that shows what a model looked at, and how sure it is."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from lamina.cli.options import OUT, Device, Model, PixelSize, ResampleOblique
from lamina.cli.program import RESULTS, verb
from lamina.cli.terminal import Terminal

if TYPE_CHECKING:
    from lamina.workflows.explain import Explanation

_WHOLE = 100
"""Sizes from here on are told without decimals."""


@verb("lamina explain -m run -i ct.nii.gz -o why", panel=RESULTS)
def explain(
    terminal: Terminal,
    model: Model,
    scan: Annotated[Path, typer.Option("--input", "-i", help="A scan.")],
    out: Annotated[Path, typer.Option(*OUT, help="Folder for maps and picture.")],
    method: Annotated[
        Literal["gradcam", "attention", "uncertainty"],
        typer.Option(help="What speaks for it; what is attended to; how sure it is."),
    ] = "gradcam",
    layer: Annotated[
        str | None, typer.Option(help="Module to look into, such as decoder.1.")
    ] = None,
    structure: Annotated[
        list[str] | None,
        typer.Option(help="Only this structure, for gradcam; may be given again."),
    ] = None,
    pixel_size: PixelSize = None,
    resample_oblique: ResampleOblique = False,
    device: Device = None,
) -> None:
    """Show what a model looked at in a scan, or how sure it is, as maps on the scan's grid."""
    from lamina.workflows import explain as workflow

    with terminal.bar() as progress:
        result = workflow.explain(
            model,
            scan,
            out,
            method=method,
            layer=layer,
            structures=structure or (),
            pixel_size=pixel_size,
            resample_oblique=resample_oblique,
            device=device,
            progress=progress,
        )
    terminal.result({"out": str(out), **result.as_dict()}, *_shown(result))


def _shown(result: "Explanation") -> Iterator[str]:
    """Say what was found, what of it is unusual, and where the maps are."""
    for name, told in result.structures.items():
        more = [f"{what} {value:.2f}" for what, value in told.items() if what != "size"]
        size = told["size"]
        shown = f"{size:,.0f}" if size >= _WHOLE else f"{size:.3g}"
        yield ", ".join([f"{name}: {shown} {result.unit}", *more])
    yield from result.remarks
    if result.flags is None:
        yield "Not checked: the model does not know the range of the scans it was trained on."
    for flag in result.flags or ():
        yield f"Unusual: {flag.text}"
    layer = f" of {result.layer}" if result.layer else ""
    yield f"{len(result.maps)} maps{layer}: {next(iter(result.maps.values())).parent}"
    yield f"Picture: {result.sheet}"

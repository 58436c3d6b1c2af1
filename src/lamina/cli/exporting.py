"""The verb that writes a model for another runtime."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lamina.cli.options import OUT, Model, PixelSize
from lamina.cli.program import RESULTS, verb
from lamina.cli.terminal import Terminal

if TYPE_CHECKING:
    from lamina.workflows.export import Export


@verb("lamina export -m run/model.lamina --to onnx -o model-onnx", panel=RESULTS)
def export(
    terminal: Terminal,
    model: Model,
    target: Annotated[str, typer.Option("--to", help="onnx, openvino, torch or monai.")],
    out: Annotated[Path, typer.Option(*OUT, help="Folder to write.")],
    check: Annotated[
        Path | None,
        typer.Option(help="Scans, or a folder of prepare, to compare segmentations on."),
    ] = None,
    pixel_size: PixelSize = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Quantise, if it costs at most 0.5 points of Dice.")
    ] = False,
    calibrate: Annotated[
        Path | None, typer.Option(help="Folder that prepare wrote, for --int8.")
    ] = None,
) -> None:
    """Write a model for another runtime, with preparation, labels and a report of its exactness."""
    from lamina.workflows import export as workflow

    with terminal.bar() as progress:
        result = workflow.export(
            model,
            target,
            out,
            check=check,
            pixel_size=pixel_size,
            int8=int8,
            calibrate=calibrate,
            progress=progress,
        )
    terminal.result(result.as_dict(), *_exported(result))
    terminal.failures(result.failures, "Not compared")


def _exported(result: "Export") -> tuple[str, ...]:
    """Say what was written, how far it is from the original, and what comes next."""
    noise, scans = result.parity["noise"], result.parity.get("scans")
    shown = [
        f"Exported: {result.out} ({result.megabytes} MB, {result.parity['precision']})",
        f"Logits: up to {noise['max_abs_error']:.2g} off, of {noise['max_abs_logit']:.3g}; "
        f"{noise['agreement']:.2%} of voxels decided alike, on noise",
    ]
    if scans:
        shown.append(f"Segmentations of {len(scans['cases'])} scans: {_of_scans(scans)}")
    return (*shown, f"Next: {result.how_to_run}")


def _of_scans(scans: Mapping[str, Any]) -> str:
    between = "neither finds anything"
    if scans["dice_between"] is not None:
        between = f"Dice between both {scans['dice_between']:.4f}"
    if "dice_drop" not in scans:
        return between
    return (
        f"Dice {scans['dice_original']:.4f} before, {scans['dice_exported']:.4f} after, a loss of "
        f"{scans['dice_drop']:.2f} points; {between}"
    )

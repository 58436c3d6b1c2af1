"""The verb that shows scans in a browser."""

from pathlib import Path
from typing import Annotated

import typer

from lamina.cli.program import RESULTS, verb
from lamina.cli.terminal import Terminal


@verb("lamina view scan.nii.gz liver.nii.gz", panel=RESULTS)
def view(
    terminal: Terminal,
    scan: Annotated[Path, typer.Argument(metavar="SCAN", help="A scan, picture or DICOM folder.")],
    segmentation: Annotated[
        Path | None,
        typer.Argument(metavar="SEG", help="A label map, DICOM SEG or RTSTRUCT of it."),
    ] = None,
    no_browser: Annotated[
        bool, typer.Option("--no-browser", help="Print the address only.")
    ] = False,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: a free one.")] = 0,
) -> None:
    """Look at a scan and a segmentation in a browser on this machine, until Ctrl-C."""
    from lamina.workflows import view as workflow

    def ready(url: str) -> None:
        terminal.result({"url": url}, f"Viewer: {url}", "Ctrl-C stops it.")

    workflow.view(scan, segmentation, port=port, browser=not no_browser, ready=ready)

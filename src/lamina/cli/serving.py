"""The verb that offers models to browsers, programs and 3D Slicer."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from lamina.cli.options import Backend, Device, Precision, RamLimit, ResampleOblique, Tta
from lamina.cli.program import MAIN, verb
from lamina.cli.terminal import Terminal
from lamina.cli.units import duration, memory


@verb("lamina serve --models models/", panel=MAIN, lasting=True)
def serve(
    terminal: Terminal,
    models: Annotated[
        Path | None,
        typer.Option(
            "--models", "-m", help="Folder of .lamina files or of runs; Lamina's own by default."
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0: any that is free.")] = 8000,
    token: Annotated[
        str | None, typer.Option(help="Secret that clients must tell; made up at each start.")
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File that holds the token, unseen by other users.")
    ] = None,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="Ask for none: let all users of this machine in.")
    ] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Host name that clients may use; may be given again.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the queue; ~/.cache/lamina/serve.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Scans segmented at a time.")] = 1,
    max_upload: Annotated[
        float, typer.Option(parser=memory, metavar="SIZE", help="Largest upload.")
    ] = "2G",  # type: ignore[assignment]
    max_queue: Annotated[int, typer.Option(min=1, help="Scans that may wait.")] = 64,
    max_tries: Annotated[
        int, typer.Option(min=1, help="How often a scan is begun whose worker dies.")
    ] = 3,
    job_timeout: Annotated[
        float, typer.Option(parser=duration, metavar="TIME", help="Longest time for one scan.")
    ] = "1h",  # type: ignore[assignment]
    keep: Annotated[
        float, typer.Option(parser=duration, metavar="TIME", help="How long results are kept.")
    ] = "7d",  # type: ignore[assignment]
    ram: RamLimit = None,
    device: Device = None,
    backend: Backend = "torch",
    precision: Precision = "fp32",
    tta: Tta = False,
    resample_oblique: ResampleOblique = False,
) -> None:
    """Offer models to a page in the browser, to programs, and to 3D Slicer."""
    from lamina.workflows import serve as workflow

    def tell(url: str) -> None:
        terminal.result({"url": url}, f"Open {url}", "Stop with Ctrl-C.")
        sys.stdout.flush()  # a program that started the server waits for it

    workflow.serve(
        models,
        tell,
        token=workflow.read_token(token, token_file, no_token=no_token),
        data=data or workflow.data_folder(),
        host=host,
        port=port,
        allowed_hosts=tuple(allow_host or ()),
        workers=workers,
        max_upload_bytes=int(max_upload),
        max_queue=max_queue,
        max_tries=max_tries,
        job_timeout_s=job_timeout,
        keep_s=keep,
        loading={
            "device": device,
            "backend": backend,
            "precision": precision,
            "tta": tta,
            "resample_oblique": resample_oblique,
            "ram_bytes": ram,
        },
    )

"""One program, one verb per job."""

import signal
import sys

from lamina.cli import (  # noqa: F401 - importing them files their verbs
    benching,
    compare,
    dino,
    explaining,
    exporting,
    pacs,
    plan,
    predicting,
    recipes,
    report,
    runs,
    serving,
    study,
    sweep,
    tools,
    training,
    viewing,
)
from lamina.cli.program import app


def main() -> None:
    """Run the program; being told to end leaves no more behind than Ctrl-C does.

    A terminal that is closed tells it too, unless the program was to outlive it, as by ``nohup``.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if sys.platform != "win32" and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
    app()

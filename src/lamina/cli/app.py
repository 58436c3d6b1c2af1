"""One program, one verb per job."""

import signal

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
    """Run the program; being told to end leaves no more behind than Ctrl-C does."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    app()

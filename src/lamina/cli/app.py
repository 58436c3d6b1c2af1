"""One program, one verb per job."""

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
from lamina.signals import end_like_ctrl_c


def main() -> None:
    """Run the program; being told to end leaves no more behind than Ctrl-C does.

    A terminal that is closed tells it too, unless the program was to outlive it, as by ``nohup``.
    """
    end_like_ctrl_c()
    app()

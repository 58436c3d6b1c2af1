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

__all__ = ["app"]

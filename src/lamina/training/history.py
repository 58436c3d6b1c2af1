"""A run's history as one JSON object per epoch, in a file any tool can read."""

import json
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from lamina.files import write_text


class HistoryLogger(Logger):
    """Adds a line per epoch; lines of epochs that a resumed run does again are dropped."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def name(self) -> str:
        """Lightning asks every logger for one."""
        return "history"

    @property
    def version(self) -> str:
        """Lightning asks every logger for one."""
        return ""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add one line; ``metrics`` holds its ``epoch``."""
        lines = self.path.read_text("utf-8").splitlines() if self.path.is_file() else []
        kept = [line for line in lines if json.loads(line)["epoch"] < metrics["epoch"]]
        write_text(self.path, "".join(f"{line}\n" for line in [*kept, json.dumps(dict(metrics))]))

    def log_hyperparams(
        self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any
    ) -> None:
        """Keep nothing: the manifest holds the settings."""

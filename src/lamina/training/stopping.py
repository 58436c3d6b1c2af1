"""Ending a run between two steps, when somebody asks for it."""

import logging
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from lamina.signals import on_ending
from lamina.training.callbacks import RunState
from lamina.training.processes import largest
from lamina.training.supervised import Supervised

log = logging.getLogger(__name__)

STOP_FILE = "stop"
BY_FILE = "stop file"
"""Why a run stopped that was asked to by the file."""


class StopRequests(Callback):
    """Ends a run between two steps on a signal that asks for it, or when a file appears.

    Whichever process of a run is asked, all stop after the same step. Lightning puts the signals
    back when training ends, in whatever way.

    Args:
        file: What to look for after each step; it is removed.
        state: Of the run; told why it stopped.
    """

    def __init__(self, file: Path, state: RunState) -> None:
        self.file = file
        self.state = state
        self.asked = False

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Listen to the signals; a second Ctrl-C acts at once, as usual."""
        self.file.unlink(missing_ok=True)
        on_ending(self._stop)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look for the file; never stop within a step, whose parts belong together."""
        assert isinstance(module, Supervised)
        if trainer.is_global_zero and self.file.exists():
            self.file.unlink(missing_ok=True)
            self._stop(BY_FILE)
        if module.ends_step(batch_idx) and largest(self.asked):
            if not self.asked:
                self._stop("another process was asked to")
            trainer.should_stop = True

    def _stop(self, why: str) -> None:
        log.warning("Stopping after this step (%s); --resume goes on from here.", why)
        self.state.stopped_because = why
        self.asked = True

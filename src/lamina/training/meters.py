"""What is measured while training goes on: its pace, and how long it waits for patches."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from lamina.training.schedule import Clock
from lamina.training.supervised import Supervised

OnStep = Callable[[int, float, float, float | None], None]
"""Called after each step with step, progress 0..1, loss and seconds to go, where they are known."""


def no_step(step: int, progress: float, loss: float, to_go: float | None) -> None:
    """Listen to nothing."""


class TimedLoader(DataLoader[Any]):
    """Counts the seconds for which whoever asks for a batch has to wait."""

    waited_s = 0.0
    """Seconds so far, the start of loader processes included."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # all that a loop needs of it
        began = time.monotonic()
        for batch in super().__iter__():
            self.waited_s += time.monotonic() - began
            yield batch
            began = time.monotonic()


class Waits:
    """Adds up the seconds that steps take, and those of them that went by waiting for patches.

    Args:
        training_s: Seconds of steps before a resume.
        waited_s: Seconds waited before a resume.
    """

    def __init__(self, training_s: float, waited_s: float) -> None:
        self.training_s = training_s
        self.waited_s = waited_s
        self.began = time.monotonic()
        self.epoch_began = training_s, waited_s
        self.told_s = 0.0

    def begin_step(self) -> None:
        """Start the watch."""
        self.began = time.monotonic()

    def end_step(self, loader: TimedLoader) -> None:
        """Stop it: what comes before the next step, such as validation, is no training."""
        self.training_s += time.monotonic() - self.began
        self.waited_s += loader.waited_s - self.told_s
        self.told_s = loader.waited_s

    def close_epoch(self) -> float:
        """Return the share of this epoch's steps, 0..1, that was waited; begin the next epoch.

        Of an epoch that a resume divides, it is that of its second part.
        """
        training_s, waited_s = self.epoch_began
        self.epoch_began = self.training_s, self.waited_s
        spent = self.training_s - training_s
        return (self.waited_s - waited_s) / spent if spent > 0 else 0.0


class StepMeter(Callback):
    """Tells after every step how far the run is; a progress bar listens."""

    def __init__(self, clock: Clock, listen: OnStep) -> None:
        self.clock = clock
        self.listen = listen

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Pass on step, progress 0..1, loss, and seconds to go."""
        assert isinstance(module, Supervised)
        if not (trainer.is_global_zero and module.ends_step(batch_idx)):
            return
        step = int(module.steps_done)
        progress, to_go = self.clock.progress(step), self.clock.remaining_s(step)
        self.listen(step, progress, float(module.step_loss), to_go)

"""What happens around training steps: epochs, stopping, and telling how it goes."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lamina.training.checkpoints import BEST, LAST
from lamina.training.config import TrainConfig
from lamina.training.schedule import Clock
from lamina.training.supervised import Supervised

log = logging.getLogger(__name__)

Validate = Callable[[nn.Module], Mapping[str, float]]
"""Scores a network on the validation cases; the key ``dice`` decides which epoch is best."""

STOP_FILE = "stop"


@dataclass
class RunState:
    """What a run must remember besides weights to go on as if it had never stopped."""

    elapsed_s: float = 0.0
    reserve_s: float = 0.0
    best_dice: float = -1.0
    best_epoch: int = -1
    epochs_done: int = 0
    loss_sum: float = 0.0
    loss_steps: int = 0
    stopped_because: str = ""


@dataclass(frozen=True)
class EpochReport:
    """One line of a run's history."""

    epoch: int
    step: int
    elapsed_s: float
    loss: float
    lr: float
    scores: Mapping[str, float]
    """What the validation returned."""
    skipped_steps: int

    def flat(self) -> dict[str, float]:
        """Return one mapping of numbers."""
        numbers = {name: value for name, value in asdict(self).items() if name != "scores"}
        return numbers | dict(self.scores)


class Epochs(Callback):
    """Every so many steps: validate, keep the best, save, decide whether to go on.

    Args:
        config: Of the run.
        steps_per_epoch: Steps between two validations.
        validate: Scores a network.
        folder: Where checkpoints go.
        state: Of the run; changed as it goes.
        on_epoch: Called after each epoch.
    """

    def __init__(
        self,
        config: TrainConfig,
        steps_per_epoch: int,
        validate: Validate,
        folder: Path,
        state: RunState,
        on_epoch: Callable[[EpochReport], None],
    ) -> None:
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.validate = validate
        self.folder = folder
        self.state = state
        self.on_epoch = on_epoch
        self.saved_at = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Close an epoch when its last step is done; save now and then in between."""
        assert isinstance(module, Supervised)
        if math.isfinite(loss := float(outputs["loss"])):
            self.state.loss_sum += loss
            self.state.loss_steps += 1
        if int(module.steps_done) % self.steps_per_epoch == 0:
            self._close_epoch(trainer, module)
            self._save(trainer, LAST)
        elif time.monotonic() - self.saved_at > self.config.checkpoint_every_s:
            self._save(trainer, LAST)
        if module.clock.progress(int(module.steps_done)) >= 1:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Save what a run that stopped within an epoch has reached; score it if it ends there.

        A run stopped in its very first epoch is scored too, to have a model to ship, but only after
        saving: resumed, it goes on as if it had never stopped.
        """
        assert isinstance(module, Supervised)
        if int(module.steps_done) % self.steps_per_epoch == 0:
            return
        ended = module.clock.progress(int(module.steps_done)) >= 1
        if ended:
            self._close_epoch(trainer, module)
        self._save(trainer, LAST)
        if not ended and self.state.best_epoch < 0:
            self._close_epoch(trainer, module)

    def on_save_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the run's state."""
        assert isinstance(module, Supervised)
        self.state.elapsed_s = module.clock.elapsed_s
        self.state.reserve_s = module.clock.reserve_s
        checkpoint["run"] = asdict(self.state)

    def _close_epoch(self, trainer: Trainer, module: Supervised) -> None:
        began = time.monotonic()
        scores = self.validate(module.best_network)
        module.clock.reserve_s = max(module.clock.reserve_s, 1.2 * (time.monotonic() - began))
        state, epoch = self.state, self.state.epochs_done
        line = EpochReport(
            epoch=epoch,
            step=int(module.steps_done),
            elapsed_s=round(module.clock.elapsed_s, 2),
            loss=state.loss_sum / max(1, state.loss_steps),
            lr=trainer.optimizers[0].param_groups[0]["lr"],
            scores=scores,
            skipped_steps=int(module.steps_skipped),
        )
        state.epochs_done, state.loss_sum, state.loss_steps = epoch + 1, 0.0, 0
        better = scores["dice"] > state.best_dice
        if better:
            state.best_dice, state.best_epoch = scores["dice"], epoch
        elif self.config.patience and epoch - state.best_epoch >= self.config.patience:
            state.stopped_because = f"no better Dice for {self.config.patience} epochs"
            trainer.should_stop = True
        for logger in trainer.loggers:
            logger.log_metrics(line.flat(), step=line.step)
        self.on_epoch(line)
        if better:
            self._save(trainer, BEST)

    def _save(self, trainer: Trainer, name: str) -> None:
        trainer.save_checkpoint(self.folder / name, weights_only=False)
        self.saved_at = time.monotonic()


class StopRequests(Callback):
    """Ends a run between two steps on Ctrl-C, SIGTERM, or a file called ``stop`` in its folder.

    Lightning puts the signals back when training ends, in whatever way.
    """

    def __init__(self, folder: Path, state: RunState) -> None:
        self.file = folder / STOP_FILE
        self.state = state

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Listen to the signals; a second Ctrl-C acts at once, as usual."""
        earlier: dict[int, Any] = {}

        def stop(number: int, frame: FrameType | None) -> None:
            self._stop(trainer, signal.Signals(number).name)
            for each, handler in earlier.items():
                signal.signal(each, handler)

        self.file.unlink(missing_ok=True)
        if threading.current_thread() is threading.main_thread():  # no other may listen
            for number in (signal.SIGINT, signal.SIGTERM):
                earlier[number] = signal.signal(number, stop)

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Look for the stop file."""
        if self.file.exists():
            self.file.unlink(missing_ok=True)
            self._stop(trainer, "stop file")

    def _stop(self, trainer: Trainer, why: str) -> None:
        log.warning("Stopping after this step (%s); --resume goes on from here.", why)
        self.state.stopped_because = why
        trainer.should_stop = True


class StepMeter(Callback):
    """Tells after every step how far the run is; a progress bar listens."""

    def __init__(
        self, clock: Clock, listen: Callable[[int, float, float, float | None], None]
    ) -> None:
        self.clock = clock
        self.listen = listen

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Pass on step, progress 0..1, loss, and seconds to go."""
        assert isinstance(module, Supervised)
        step = int(module.steps_done)
        progress, to_go = self.clock.progress(step), self.clock.remaining_s(step)
        self.listen(step, progress, float(outputs["loss"]), to_go)

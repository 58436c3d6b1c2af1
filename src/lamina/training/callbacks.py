"""What happens around training steps: epochs, stopping, and telling how it goes."""

import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from lamina.training.checkpoints import BEST, LAST
from lamina.training.config import TrainConfig
from lamina.training.meters import TimedLoader, Waits
from lamina.training.processes import align_buffers
from lamina.training.sharding import gathered
from lamina.training.supervised import Supervised

log = logging.getLogger(__name__)

Validate = Callable[[nn.Module], Mapping[str, float]]
"""Scores a network on the validation cases: ``dice``, and what decides which epoch is best.

Each process of a run calls it and must be told the same.
"""

_SCORES = {"dice": "Dice", "iou": "IoU"}
_DIVERGING = 5
"""As many times the least mean loss of an epoch are no longer the ups and downs of learning."""
_LOSS_OF_CHANCE = 1.0
"""Below, losses may multiply without harm: the default one of a network that knows nothing."""


@dataclass
class RunState:
    """What a run must remember besides weights to go on as if it had never stopped."""

    elapsed_s: float = 0.0
    first_step_s: float = 0.0
    """What went by before the first step."""
    ending: dict[str, float] = field(default_factory=dict)
    """Fields of :class:`~lamina.training.schedule.Ending`, where something is known of it."""
    best_score: float = -1.0
    best_dice: float = -1.0
    best_epoch: int = -1
    epochs_done: int = 0
    scored_step: int = 0
    """Steps that were done at the last validation."""
    loss_sum: float = 0.0
    loss_steps: int = 0
    least_loss: float = math.inf
    """Of all epochs' means; since training diverged, of those after that."""
    stopped_because: str = ""
    precision: str = ""
    """What the run fell back to; empty: that of its settings."""
    training_s: float = 0.0
    """Spent on steps: without validation, and without saving."""
    waited_s: float = 0.0
    """Of these, spent waiting for patches."""

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> "RunState":
        """Take what a checkpoint holds; what other versions have noted there is passed over."""
        names = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in told.items() if name in names})

    @property
    def waiting(self) -> float:
        """Share of the training time, 0..1, that went by waiting for patches."""
        return self.waited_s / self.training_s if self.training_s else 0.0

    def out_of_patience(self, patience: int | None) -> bool:
        """Tell whether as many epochs have gone by without a better score."""
        return patience is not None and self.epochs_done - 1 - self.best_epoch >= patience


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
    waiting: float = 0.0
    """Share of the time spent on steps, 0..1, that went by waiting for patches."""

    def flat(self) -> dict[str, float]:
        """Return one mapping of numbers."""
        numbers = {name: value for name, value in asdict(self).items() if name != "scores"}
        return numbers | dict(self.scores)


class Epochs(Callback):
    """Every so many steps: validate, keep the best, save, decide whether to go on.

    An epoch that ends when a time budget is nearly spent goes on until that is: its validation
    would be in place of the steps that are left, and the last one follows anyway.

    Args:
        config: Of the run.
        steps_per_epoch: Steps between two validations.
        validate: Scores a network.
        folder: Where checkpoints go.
        state: Of the run; changed as it goes.
        on_epoch: Called after each epoch, by the first process of a run.
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
        self.saved_at_s = state.elapsed_s
        self.waits = Waits(state.training_s, state.waited_s)

    def on_train_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Save what the run starts from, which may be gone later, and begin to measure time."""
        assert isinstance(module, Supervised)
        module.clock.agree()
        if not int(module.steps_done):
            self._save(trainer, module, LAST)
        self.waits.begin_step()

    def on_train_batch_end(
        self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Close an epoch when its last step is done; save now and then in between."""
        assert isinstance(module, Supervised)
        if not module.ends_step(batch_idx):
            return
        self._end_step(trainer, module)
        self.waits.begin_step()
        module.clock.begin_step()

    def _end_step(self, trainer: Trainer, module: Supervised) -> None:
        if math.isfinite(loss := float(module.step_loss)):
            self.state.loss_sum += loss
            self.state.loss_steps += 1
        assert isinstance(trainer.train_dataloader, TimedLoader)
        self.waits.end_step(trainer.train_dataloader)
        self.state.training_s, self.state.waited_s = self.waits.training_s, self.waits.waited_s
        ends_epoch = int(module.steps_done) % self.steps_per_epoch == 0
        if ends_epoch and not module.clock.is_near_end:
            self._close_epoch(trainer, module)
            self._save(trainer, module, LAST)
        elif module.clock.elapsed_s - self.saved_at_s > self.config.checkpoint_every_s:
            self._save(trainer, module, LAST)
        if module.clock.progress(int(module.steps_done)) >= 1:
            trainer.should_stop = True

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Save what a run that stopped within an epoch has reached; score it if it ends there.

        A run stopped in its very first epoch is scored too, to have a model to ship, but only after
        saving: resumed, it goes on as if it had never stopped.
        """
        assert isinstance(module, Supervised)
        if int(module.steps_done) == self.state.scored_step:
            return
        ended = module.clock.progress(int(module.steps_done)) >= 1
        if ended:
            self._close_epoch(trainer, module)
        self._save(trainer, module, LAST)
        if not ended and self.state.best_epoch < 0:
            self._close_epoch(trainer, module)

    def on_save_checkpoint(
        self, trainer: Trainer, module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the run's state."""
        assert isinstance(module, Supervised)
        self.state.elapsed_s = module.clock.elapsed_s
        self.state.first_step_s = module.clock.first_step_s
        self.state.ending = asdict(module.clock.ending)
        checkpoint["run"] = asdict(self.state)

    def _close_epoch(self, trainer: Trainer, module: Supervised) -> None:
        began_s = module.clock.elapsed_s
        network = gathered(module.best_network)
        align_buffers(network)
        scores = self.validate(network)
        module.clock.agree()
        state, epoch = self.state, self.state.epochs_done
        line = EpochReport(
            epoch=epoch,
            step=int(module.steps_done),
            elapsed_s=round(module.clock.elapsed_s, 2),
            loss=state.loss_sum / max(1, state.loss_steps),
            lr=trainer.optimizers[0].param_groups[0]["lr"],
            scores=scores,
            skipped_steps=int(module.steps_skipped),
            waiting=round(self.waits.close_epoch(), 4),
        )
        state.epochs_done, state.loss_sum, state.loss_steps = epoch + 1, 0.0, 0
        state.scored_step = line.step
        better = scores[self.config.select_by] > state.best_score
        if better:
            state.best_score, state.best_dice = scores[self.config.select_by], scores["dice"]
            state.best_epoch = epoch
        elif state.out_of_patience(self.config.patience):
            state.stopped_because = (
                f"no better {_SCORES[self.config.select_by]} for {self.config.patience} epochs"
            )
            trainer.should_stop = True
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.log_metrics(line.flat(), step=line.step)
            self.on_epoch(line)
            self._warn_of_divergence(line)
        module.clock.validated(began_s)
        if better:
            self._save(trainer, module, BEST)

    def _warn_of_divergence(self, line: EpochReport) -> None:
        least = self.state.least_loss
        diverges = line.loss > max(_DIVERGING * least, _LOSS_OF_CHANCE)
        if diverges:
            log.warning(
                "Epoch %d: the mean loss is %.3g and was %.3g: training diverges. "
                "Lower optimiser.lr, which is %g.",
                line.epoch + 1,
                line.loss,
                least,
                self.config.optimiser.lr,
            )
        if diverges or 0 < line.loss < least:
            self.state.least_loss = line.loss

    def _save(self, trainer: Trainer, module: Supervised, name: str) -> None:
        trainer.save_checkpoint(self.folder / name, weights_only=False)
        self.saved_at_s = self.state.elapsed_s
        module.clock.saved(self.saved_at_s)

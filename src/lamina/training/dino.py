"""Training a vision transformer without labels, by self-distillation (DINO).

Caron et al.: *Emerging Properties in Self-Supervised Vision Transformers*, ICCV 2021, algorithm 1;
as DAI-Net fine-tunes with it (Yeganeh et al., ICCV Workshops 2023, section 3.2).
A student learns to say of one view what its teacher says of another; the teacher is the moving
average of students. Both may come to say the same of every slice, which no error tells: each epoch
measures how far they are from it.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from lightning.fabric import Fabric
from torch import Tensor, nn
from torch.utils.data import DataLoader

from lamina.data.patches import StepSampler, loading
from lamina.data.views import ViewDataset
from lamina.errors import TrainingError
from lamina.losses.dino import teacher_momentum
from lamina.models.accelerate import keep_freed_memory
from lamina.signals import on_ending
from lamina.training.checkpoints import LAST, AtomicCheckpointIO, read_latest
from lamina.training.config import Optimiser
from lamina.training.device import (
    LIGHTNING_PRECISION,
    chosen_device,
    placement,
    resolve_precision,
)
from lamina.training.dino_config import DINOConfig
from lamina.training.distillation import Distillation
from lamina.training.meters import OnStep, no_step
from lamina.training.schedule import Clock, learning_rate

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class DINOReport:
    """One line of a run's history."""

    epoch: int
    step: int
    elapsed_s: float
    loss: float
    lr: float
    entropy: float
    """Of the teacher's outputs: from 0, sure of one of them, to 1, no idea, in units of log K."""
    mean_entropy: float
    """Of the mean of its outputs: from 0, always the same one, to 1, all equally often."""
    kl: float
    """How far the student's outputs are from the teacher's, in nats."""
    feature_std: float
    """How much the teacher's normalised features differ between slices: 0, not at all, to 1."""

    @property
    def collapse(self) -> str:
        """What has collapsed; empty when nothing has."""
        faults = {
            "the teacher gives nearly all slices the same output": self.mean_entropy < 0.05,
            "the teacher gives every slice all outputs alike": self.entropy > 0.999,
            "the features of all slices are the same": self.feature_std < 0.01,
        }
        return " and ".join(fault for fault, found in faults.items() if found)


@dataclass
class DINOState:
    """What a run must remember besides weights to go on as if it had never stopped."""

    elapsed_s: float = 0.0
    steps_done: int = 0
    epochs_done: int = 0
    epoch_steps: int = 0
    sums: list[float] = field(default_factory=lambda: [0.0] * 3)
    """Loss, entropy and feature deviation of the epoch's steps."""
    collapsed_epochs: int = 0
    stopped_because: str = ""


class _Run:
    """One run while it lasts: the module on its device, its optimiser and its clock."""

    def __init__(
        self,
        module: Distillation,
        config: DINOConfig,
        per_epoch: int,
        folder: Path,
        resume: bool,
        began: float,
    ) -> None:
        device = chosen_device(config.device)
        if device == "cpu":
            keep_freed_memory()
        precision = resolve_precision(config.precision, device)
        self.fabric = Fabric(**placement(device), precision=LIGHTNING_PRECISION[precision])
        self.fabric.to_device(module)
        self.scaled = precision == "fp16"
        fused = not self.scaled  # a fused step unscales by itself, too late for clipping
        made = torch.optim.AdamW(_groups(module.student), lr=config.lr, fused=fused)
        self.student, self.optimizer = self.fabric.setup(module.student, made)
        self.module, self.config, self.per_epoch = module, config, per_epoch
        self.file, self.state = folder / LAST, DINOState()
        if resume and (checkpoint := read_latest(folder)):
            self.state = replace(DINOState(**checkpoint["run"]), stopped_because="")
            module.load_state_dict(checkpoint["state_dict"])
            self.optimizer.load_state_dict(checkpoint["optimizer_states"][0])
            if scale := checkpoint.get("precision"):  # of fp16's gradients
                self.fabric.strategy.precision.load_state_dict(scale)
        max_steps = config.epochs * per_epoch if config.epochs else None
        self.clock = Clock(max_steps, config.time_budget_s, began - self.state.elapsed_s)
        self.saved_at = time.monotonic()

    @property
    def progress(self) -> float:
        return self.clock.progress(self.state.steps_done)

    def step(self, batch: Sequence[Tensor]) -> float:
        """Learn from one batch of views and return the loss."""
        module, state, config = self.module, self.state, self.config
        self._schedule()
        torch.manual_seed(config.seed * 1_000_003 + state.steps_done)
        views = [self.fabric.to_device(view) for view in batch]
        with torch.no_grad(), self.fabric.autocast():
            features, truths = module.teacher(views[:2])
        _, guesses = self.student(views)
        loss = module.loss(guesses, truths)
        self._check("loss", loss)
        self.fabric.backward(loss)
        if state.steps_done < config.frozen_epochs * self.per_epoch:
            module.student.head.last_layer.weight.grad = None
        limits: dict[str, Any] = {"max_norm": config.max_grad_norm, "error_if_nonfinite": False}
        norm = self.fabric.clip_gradients(self.student, self.optimizer, **limits)
        if norm is not None and not self.scaled:  # scaled ones may overflow: then none is taken
            self._check("norm of the gradients", norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        measured = float(loss.detach()), *module.measure(features, truths)
        state.sums = [x + y for x, y in zip(state.sums, measured, strict=True)]
        state.steps_done, state.epoch_steps = state.steps_done + 1, state.epoch_steps + 1
        module.loss.update_center(truths)
        module.follow(teacher_momentum(self.progress, config.teacher_momentum))
        return measured[0]

    def _check(self, name: str, value: Tensor) -> None:
        if not torch.isfinite(value):
            raise TrainingError(
                f"The {name} is {float(value.detach())} at step {self.state.steps_done}.",
                remedy="Lower lr, or set precision=fp32; last.ckpt is intact.",
            )

    def close_epoch(self) -> DINOReport:
        """Return what the epoch's steps measured, and begin another."""
        state, config, module = self.state, self.config, self.module
        loss, entropy, spread = (total / state.epoch_steps for total in state.sums)
        mean = (module.probabilities / module.probabilities.sum()).double()
        most = math.log(config.num_outputs)
        report = DINOReport(
            epoch=state.epochs_done,
            step=state.steps_done,
            elapsed_s=round(self.clock.elapsed_s, 2),
            loss=loss,
            lr=self.optimizer.param_groups[0]["lr"],
            entropy=entropy / most,
            mean_entropy=float(-torch.special.xlogy(mean, mean).sum()) / most,
            kl=loss - entropy,
            feature_std=spread,
        )
        module.probabilities.zero_()
        counts = report.collapse and self.progress > config.warmup
        state.collapsed_epochs = state.collapsed_epochs + 1 if counts else 0
        if state.collapsed_epochs == 1:
            log.warning("Collapsed in epoch %d: %s.", report.epoch + 1, report.collapse)
        if config.collapse_patience and state.collapsed_epochs >= config.collapse_patience:
            state.stopped_because = f"collapsed: {report.collapse}"
        state.epochs_done, state.epoch_steps, state.sums = report.epoch + 1, 0, [0.0] * 3
        return report

    def save(self) -> None:
        """Write the checkpoint."""
        self.state.elapsed_s = self.clock.elapsed_s
        content = {
            "run": asdict(self.state),
            "state_dict": self.module.state_dict(),
            "optimizer_states": [self.optimizer.state_dict()],
            "precision": self.fabric.strategy.precision.state_dict(),
        }
        AtomicCheckpointIO().save_checkpoint(content, self.file)
        self.clock.saved(self.state.elapsed_s)
        self.saved_at = time.monotonic()

    @property
    def is_save_due(self) -> bool:
        return time.monotonic() - self.saved_at > self.config.checkpoint_every_s

    def _schedule(self) -> None:
        """Set the learning rate and the weight decay of this step."""
        config, progress = self.config, self.progress
        rates = Optimiser(lr=config.lr, warmup=config.warmup, final_lr=0.01)
        rate = learning_rate(rates, progress)
        decays = config.weight_decay, (0, 0)
        for group, decay in zip(self.optimizer.param_groups, decays, strict=True):
            group["lr"], group["weight_decay"] = rate, _cosine(*decay, progress)


def distil(
    module: Distillation,
    views: ViewDataset,
    config: DINOConfig,
    folder: Path,
    *,
    resume: bool = False,
    began: float | None = None,
    on_epoch: Callable[[DINOReport], None] = lambda report: None,
    on_step: OnStep = no_step,
) -> DINOState:
    """Train ``module`` and leave ``last.ckpt`` in ``folder``; the teacher is what one wants.

    Same seed, same slices, same machine: the same weights, bit for bit, on a CPU, whatever the
    number of workers and however often the run was killed and resumed (as long as it is not timed).
    Ctrl-C, SIGTERM and a terminal that is closed end it between two steps.

    Args:
        module: In its initial state; moved to the device.
        views: The training views.
        config: Settings, with ``epochs`` or ``time_budget_s``.
        folder: For the checkpoint.
        resume: Go on from ``last.ckpt``; without one, start again.
        began: Reading of ``time.monotonic()`` from which the run's time counts; now if not given.
        on_epoch: Called after each epoch, before it is saved.
        on_step: Called after each step with step, progress 0..1, loss and seconds to go.

    Raises:
        TrainingError: The checkpoint is damaged, or a loss is not finite.
        FileError: A prepared case cannot be read, or a checkpoint written; the last one is intact.
    """
    per_epoch = max(1, len(views.slices) // config.batch_size)
    since = time.monotonic() if began is None else began
    run = _Run(module, config, per_epoch, folder, resume, since)
    state = run.state
    if run.progress >= 1:
        return state
    if not state.steps_done:
        run.save()  # the transformer to start from may be gone when the run is resumed
    with _stop_requests(state):
        for batch in _loader(views, config, state.steps_done, run.clock.last_step):
            loss = run.step(batch)
            ended = run.progress >= 1
            on_step(state.steps_done, run.progress, loss, run.clock.remaining_s(state.steps_done))
            closes = ended or state.steps_done % run.per_epoch == 0
            if closes:
                on_epoch(run.close_epoch())
            if closes or state.stopped_because or run.is_save_due:
                run.save()
            if ended or state.stopped_because:
                break
    return state


def _loader(
    views: ViewDataset, config: DINOConfig, first_step: int, last_step: int
) -> DataLoader[Any]:
    return DataLoader(
        views,
        batch_sampler=StepSampler(first_step, last_step, config.batch_size),
        **loading(config.workers, chosen_device(config.device)),
    )


def _groups(network: nn.Module) -> list[dict[str, Any]]:
    """Return the weights that decay and those that do not: biases and normalisations."""
    parts = list(network.parameters())
    return [{"params": [p for p in parts if (p.ndim > 1) is decays]} for decays in (True, False)]


def _cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2


@contextmanager
def _stop_requests(state: DINOState) -> Iterator[None]:
    """Note in ``state`` the first signal that asks for the end."""

    def stop(why: str) -> None:
        state.stopped_because = why

    put_back = on_ending(stop)
    try:
        yield
    finally:
        put_back()

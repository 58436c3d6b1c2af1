"""Supervised training of one network, as Lightning runs it."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, convert_conv3d_weight_memory_format
from torch.optim.swa_utils import AveragedModel

from lamina.errors import TrainingError
from lamina.losses import Loss
from lamina.training.config import Optimiser
from lamina.training.schedule import Clock, learning_rate

_MAX_SKIPPED_IN_A_ROW = 25


class Supervised(LightningModule):
    """Fits a network's logits to label maps.

    A step whose loss or gradient is not finite changes no weight and is counted; too many in a row
    end the run. Random numbers inside the network are seeded by step, so that a resumed run repeats
    them.

    Args:
        network: ``(B, C, *S) -> (B, K, *S)`` logits.
        loss: ``(what the network returns in training mode, target) -> scalar``.
        optimiser: AdamW's settings and schedule.
        clock: Tells how far the run has come.
        seed: Of the run.
    """

    steps_done: Tensor
    steps_skipped: Tensor

    def __init__(
        self, network: nn.Module, loss: Loss, optimiser: Optimiser, clock: Clock, seed: int
    ) -> None:
        super().__init__()
        # Twice as fast on a CPU; no other weights know of it.
        self.network = convert_conv3d_weight_memory_format(network, torch.channels_last_3d)
        self.loss = loss
        self.optimiser = optimiser
        self.clock = clock
        self.seed = seed
        self.average = (
            AveragedModel(
                network, multi_avg_fn=_moving_average(optimiser.ema_decay), use_buffers=True
            )
            if optimiser.ema_decay
            else None
        )
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps_skipped", torch.zeros((), dtype=torch.int64))
        self.skipped_in_a_row = 0
        self.loss_is_finite = torch.tensor(True)

    @property
    def best_network(self) -> nn.Module:
        """The network to validate and ship: the averaged one where there is one."""
        return self.average.module if self.average is not None else self.network

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """What keeps small fp16 gradients from vanishing; none in other precisions."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make AdamW over the network's parameters."""
        return torch.optim.AdamW(
            self.network.parameters(),
            lr=self.optimiser.lr,
            betas=self.optimiser.betas,
            weight_decay=self.optimiser.weight_decay,
            fused=self.scaler is None,  # a fused step unscales by itself, too late for clipping
        )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate and the random numbers of this step."""
        step = int(self.steps_done)
        rate = learning_rate(self.optimiser, self.clock.progress(step))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
        torch.manual_seed(self.seed * 1_000_003 + step)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        image, target = batch
        if image.ndim == 5:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        loss: Tensor = self.loss(self.network(image), target)
        self.loss_is_finite = torch.isfinite(loss)
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Shorten long gradients; drop those that are not finite, or whose loss is not."""
        norm = clip_grad_norm_(self.network.parameters(), self.optimiser.max_grad_norm)
        if self.loss_is_finite and torch.isfinite(norm):
            self.skipped_in_a_row = 0
            return
        if self.scaler is None:  # which skips such a step itself, and must see why
            self.network.zero_grad(set_to_none=True)  # AdamW passes over weights without gradient
        self._count_skipped()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, count it, and average the weights."""
        super().optimizer_step(*args, **kwargs)
        self.steps_done += 1
        if self.average is not None and not self.skipped_in_a_row:
            self.average.update_parameters(self.network)

    def _count_skipped(self) -> None:
        self.steps_skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row > _MAX_SKIPPED_IN_A_ROW:
            raise TrainingError(
                f"Loss or gradient was NaN or infinite {self.skipped_in_a_row} times in a row; "
                f"stopped at step {int(self.steps_done)}.",
                remedy="Lower optimiser.lr, or use --set precision=fp32; last.ckpt is intact.",
            )


def _moving_average(
    decay: float,
) -> Callable[[Sequence[Tensor], Sequence[Tensor], Tensor | int], None]:
    """Return the update of an exponential average that forgets faster while it is young."""

    @torch.no_grad()
    def update(
        averaged: Sequence[Tensor], current: Sequence[Tensor], num_averaged: Tensor | int
    ) -> None:
        weight = max(1 - decay, 9 / (10 + int(num_averaged)))
        for mean, value in zip(averaged, current, strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, weight)
            else:
                mean.copy_(value)

    return update

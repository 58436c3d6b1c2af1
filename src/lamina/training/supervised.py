"""Supervised training of one network, as Lightning runs it."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn.utils import (
    convert_conv2d_weight_memory_format,
    convert_conv3d_weight_memory_format,
)
from torch.optim.swa_utils import AveragedModel

from lamina.losses import Loss
from lamina.losses.deep_supervision import DeepSupervision
from lamina.training.config import Optimiser, Stages
from lamina.training.optimisers import build_optimiser
from lamina.training.processes import mean_of
from lamina.training.schedule import Clock, learning_rate, staged
from lamina.training.sharding import clip

_BEYOND_STEPS = 15_485_863
"""More than the steps of any run: keeps the random numbers of processes apart."""


class Supervised(LightningModule):
    """Fits a network's logits to label maps.

    A step may be fed in several batches, its parts, whose gradients are averaged, and so are those
    of several processes, which share each part. A step whose loss or gradient is not finite, in any
    of them, changes neither weights nor running statistics and is counted. Random numbers inside
    the network are seeded by step, part and process, so that a resumed run repeats them.

    Args:
        network: ``(B, C, *S) -> (B, K, *S)`` logits.
        loss: ``(what the network returns in training mode, target) -> scalar``.
        optimiser: Settings of the optimiser and its schedule.
        clock: Tells how far the run has come.
        seed: Of the run.
        parts: Batches per step.
        fade: How the coarser heads' weights in the loss fall during the run.
        channels_last: Whether images lie pixel by pixel in memory, as volumes always do.
    """

    steps_done: Tensor
    steps_skipped: Tensor

    def __init__(
        self,
        network: nn.Module,
        loss: Loss,
        optimiser: Optimiser,
        clock: Clock,
        seed: int,
        *,
        parts: int = 1,
        fade: Stages | None = None,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        # Twice as fast on a CPU; no other weights know of it.
        self.network = convert_conv3d_weight_memory_format(network, torch.channels_last_3d)
        self.channels_last = channels_last
        if channels_last:
            convert_conv2d_weight_memory_format(network, torch.channels_last)
        self.loss = loss
        self.optimiser = optimiser
        self.clock = clock
        self.seed = seed
        self.parts = parts
        self.fade = fade
        self.average = (
            AveragedModel(
                network, multi_avg_fn=_moving_average(optimiser.ema_decay), use_buffers=True
            )
            if optimiser.ema_decay
            else None
        )
        if self.average is not None:
            self.average.requires_grad_(False)  # processes do not wait for its gradients
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.register_buffer("steps_skipped", torch.zeros((), dtype=torch.int64))
        self.skipped_in_a_row = 0
        self.step_loss = torch.tensor(0.0)
        self.statistics: list[Tensor] = []
        """Those of normalisation before the present step."""

    @property
    def best_network(self) -> nn.Module:
        """The network to validate and ship: the averaged one where there is one."""
        return self.average.module if self.average is not None else self.network

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """What keeps small fp16 gradients from vanishing; none in other precisions."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def ends_step(self, batch_idx: int) -> bool:
        """Tell whether a batch is the last part of its step."""
        return (batch_idx + 1) % self.parts == 0

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make the optimiser over the network's parameters."""
        # A fused step unscales by itself, too late for clipping.
        fused = self.scaler is None
        return build_optimiser(self.optimiser, self.network.parameters(), fused=fused)

    def on_train_start(self) -> None:
        """Set the clocks of several processes to the same time."""
        self.clock.agree()
        if not int(self.steps_done):
            self.clock.begin_training()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate and the random numbers of this part of a step."""
        step = int(self.steps_done)
        if batch_idx % self.parts == 0:
            self.statistics = [each.clone() for each in self._running_statistics()]
        rate = learning_rate(self.optimiser, self.clock.progress(step))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
        number = step * self.parts + batch_idx % self.parts
        torch.manual_seed(self.seed * 1_000_003 + number + self.global_rank * _BEYOND_STEPS)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        """Return the loss of one batch."""
        image, target = batch
        if image.ndim == 5:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        elif self.channels_last:
            image = image.contiguous(memory_format=torch.channels_last)
        loss: Tensor = self._faded_loss()(self.network(image), target)
        share = loss.detach() / self.parts
        self.step_loss = self.step_loss + share if batch_idx % self.parts else share
        return loss

    def _faded_loss(self) -> Loss:
        loss, fade = self.loss, self.fade
        if fade is None or not isinstance(loss, DeepSupervision) or loss.weights is None:
            return loss
        finest, *coarser = loss.weights
        left = staged(fade, self.clock.progress(int(self.steps_done)))
        return replace(loss, weights=(finest, *(left * weight for weight in coarser)))

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Shorten long gradients; drop those that are not finite, or whose loss is not."""
        longest = self.optimiser.max_grad_norm or math.inf
        norm = clip(self, self.network, longest)
        self.step_loss = mean_of(self.step_loss)
        if torch.isfinite(self.step_loss) and torch.isfinite(norm):
            self.skipped_in_a_row = 0
            return
        if self.scaler is None:  # which skips such a step itself, and must see why
            self.network.zero_grad(set_to_none=True)  # the optimiser passes over such weights
        for now, before in zip(self._running_statistics(), self.statistics, strict=True):
            now.copy_(before)
        self.steps_skipped += 1
        self.skipped_in_a_row += 1

    def _running_statistics(self) -> list[Tensor]:
        return [each for each in self.network.buffers() if each.is_floating_point()]

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, count it, and average the weights."""
        super().optimizer_step(*args, **kwargs)
        self.steps_done += 1
        if self.average is not None and not self.skipped_in_a_row:
            self.average.update_parameters(self.network)
        self.clock.end_step()


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

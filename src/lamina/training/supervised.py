"""Supervised training of one network, as Lightning runs it."""

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lamina.errors import TrainingError
from lamina.losses import Loss
from lamina.training.config import Optimiser
from lamina.training.schedule import Clock, learning_rate

_MAX_BAD_STEPS = 25


class Supervised(LightningModule):
    """Fits a network's logits to label maps.

    A step whose loss or gradient is not finite changes nothing and is counted; too many in a row
    end the run. Random numbers inside the network are seeded by step, so that a resumed run repeats
    them.

    Args:
        network: ``(B, C, *S) -> (B, K, *S)`` logits.
        loss: ``(logits, target (B, *S)) -> scalar``.
        optimiser: AdamW's settings and schedule.
        clock: Tells how far the run has come.
        seed: Of the run.
    """

    steps_done: Tensor

    def __init__(
        self, network: nn.Module, loss: Loss, optimiser: Optimiser, clock: Clock, seed: int
    ) -> None:
        super().__init__()
        self.network = network
        self.loss = loss
        self.optimiser = optimiser
        self.clock = clock
        self.seed = seed
        self.average = (
            AveragedModel(
                network, multi_avg_fn=get_ema_multi_avg_fn(optimiser.ema_decay), use_buffers=True
            )
            if optimiser.ema_decay
            else None
        )
        self.register_buffer("steps_done", torch.zeros((), dtype=torch.int64))
        self.bad_steps = 0
        self.bad_steps_in_a_row = 0

    @property
    def best_network(self) -> nn.Module:
        """The network to validate and ship: the averaged one where there is one."""
        return self.average.module if self.average is not None else self.network

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Make AdamW over the network's parameters."""
        return torch.optim.AdamW(
            self.network.parameters(),
            lr=self.optimiser.lr,
            betas=self.optimiser.betas,
            weight_decay=self.optimiser.weight_decay,
        )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Set the learning rate and the random numbers of this step."""
        step = int(self.steps_done)
        rate = learning_rate(self.optimiser, self.clock.progress(step))
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rate
        torch.manual_seed(self.seed * 1_000_003 + step)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor | None:
        """Return the loss of one batch, or ``None`` to skip a step that is not finite."""
        image, target = batch
        if image.ndim == 5:
            image = image.contiguous(memory_format=torch.channels_last_3d)
        loss: Tensor = self.loss(self.network(image), target)
        if torch.isfinite(loss):
            return loss
        self._count_bad_step()
        return None

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Shorten long gradients; drop one that is not finite."""
        parameters = [p for p in self.network.parameters() if p.grad is not None]
        if not parameters:
            return
        norm = nn.utils.clip_grad_norm_(parameters, self.optimiser.max_grad_norm)
        if torch.isfinite(norm):
            self.bad_steps_in_a_row = 0
        else:
            self.network.zero_grad(set_to_none=True)
            self._count_bad_step()

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        """Take the step, count it, and average the weights."""
        super().optimizer_step(*args, **kwargs)
        self.steps_done += 1
        if self.average is not None:
            self.average.update_parameters(self.network)

    def _count_bad_step(self) -> None:
        self.bad_steps += 1
        self.bad_steps_in_a_row += 1
        if self.bad_steps_in_a_row > _MAX_BAD_STEPS:
            raise TrainingError(
                f"Loss or gradient was NaN or infinite {self.bad_steps_in_a_row} times in a row; "
                f"stopped at step {int(self.steps_done)}.",
                remedy="Lower optimiser.lr, or use --set precision=fp32; last.ckpt is intact.",
            )

"""The settings of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from lamina.data.augment import Augmentation

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """AdamW and its learning-rate schedule: linear warm-up, then half a cosine."""

    lr: float = 6e-3
    """Highest learning rate."""
    weight_decay: float = 1e-2
    """Decoupled decay, as AdamW defines it."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Memory of the gradient's mean and square."""
    warmup: float = 0.02
    """Share of the run over which the rate rises from zero."""
    final_lr: float = 0.0
    """Learning rate at the end, as a share of ``lr``."""
    max_grad_norm: float = 1.0
    """Longer gradients are shortened to this length."""
    ema_decay: float = 0.995
    """Memory of the averaged weights that are validated and shipped; 0 uses the plain weights."""

    def __post_init__(self) -> None:
        _check(
            {
                f"lr = {self.lr}: must be above 0": self.lr > 0,
                f"weight_decay = {self.weight_decay}: must be 0 or more": self.weight_decay >= 0,
                f"betas = {self.betas}: must be 0 to below 1": all(0 <= b < 1 for b in self.betas),
                f"warmup = {self.warmup}: must be 0 to below 1": 0 <= self.warmup < 1,
                f"final_lr = {self.final_lr}: must be 0 to 1": 0 <= self.final_lr <= 1,
                f"max_grad_norm = {self.max_grad_norm}: must be above 0": self.max_grad_norm > 0,
                f"ema_decay = {self.ema_decay}: must be 0 to below 1": 0 <= self.ema_decay < 1,
            }
        )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides what a run does; ``None`` takes the plan's choice."""

    model: str | None = None
    """Registered network preset."""
    model_options: dict[str, Any] = field(default_factory=dict)
    """Fields of the network's configuration to change."""
    loss: str = "dice_ce"
    """Registered loss."""
    loss_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the loss to change."""
    deep_supervision: tuple[float, ...] | None = None
    """Weights of the heads of a network that has several, finest first; ``None``: halving."""
    optimiser: Optimiser = field(default_factory=Optimiser)
    augmentation: Augmentation = field(default_factory=Augmentation)
    patch_size: tuple[int, ...] | None = None
    """Training crop in voxels."""
    batch_size: int | None = None
    """Patches per step."""
    steps_per_epoch: int | None = None
    """Training steps between two validations."""
    epochs: int | None = None
    """Length of the run; the schedule ends with it."""
    time_budget_s: float | None = None
    """Wall-clock length of the run in seconds; the schedule follows the clock."""
    patience: int | None = None
    """Epochs without a better validation Dice after which training stops."""
    oversample_foreground: float = 0.5
    """Share of patches centred on a structure."""
    precision: Precision = "auto"
    """``auto``: fp32 on a CPU, bf16 where a GPU has it, else fp16."""
    seed: int = 0
    """Decides initial weights, patches and their changes."""
    workers: int | None = None
    """Processes that cut patches, without effect on results; ``None``: 8 beside a GPU, else 0."""
    checkpoint_every_s: float = 300.0
    """A run that is killed loses at most this much."""

    def __post_init__(self) -> None:
        counts = ("batch_size", "steps_per_epoch", "epochs", "time_budget_s", "patience")
        given = {name: value for name in counts if (value := getattr(self, name)) is not None}
        sides, share = self.patch_size or (), self.oversample_foreground
        _check(
            {f"{name} = {value}: must be above 0": value > 0 for name, value in given.items()}
            | {
                f"patch_size = {sides}: must be above 0": all(side > 0 for side in sides),
                f"oversample_foreground = {share}: must be 0 to 1": 0 <= share <= 1,
                f"seed = {self.seed}: must be 0 to below 2**32": 0 <= self.seed < 2**32,
                f"workers = {self.workers}: must be 0 or more": (self.workers or 0) >= 0,
            }
        )


def _check(constraints: Mapping[str, bool]) -> None:
    """Refuse settings by listing the constraints that do not hold."""
    if faults := [fault for fault, holds in constraints.items() if not holds]:
        raise ValueError("; ".join(faults))

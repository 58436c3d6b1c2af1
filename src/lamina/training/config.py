"""The settings of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Any, Literal

from lamina.data.augment import Augmentation
from lamina.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Something that falls at the end of each of several equal parts of the run."""

    factor: float = 0.5
    """Each part has this share of what the one before had."""
    count: int = 6
    """Parts of the run."""

    def __post_init__(self) -> None:
        _check(
            {
                f"factor = {self.factor}: must be above 0, at most 1": 0 < self.factor <= 1,
                f"count = {self.count}: must be above 0": self.count > 0,
            }
        )


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """The optimiser and its learning-rate schedule, which begins with a linear warm-up."""

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    """AdamW, Adam, or gradient descent with momentum."""
    lr: float = 6e-3
    """Highest learning rate."""
    weight_decay: float = 1e-2
    """Decoupled decay with AdamW, a squared penalty with the others."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Memory of the gradient's mean and square, with Adam and AdamW."""
    momentum: float = 0.9
    """Memory of the gradient, with SGD."""
    nesterov: bool = False
    """Whether SGD looks ahead along its momentum."""
    schedule: Literal["cosine", "polynomial", "step", "constant"] = "cosine"
    """How the rate falls after the warm-up, from ``lr`` to the end of the run."""
    warmup: float = 0.02
    """Share of the run over which the rate rises from zero."""
    final_lr: float = 0.0
    """Learning rate at the end of a cosine or polynomial schedule, as a share of ``lr``."""
    power: float = 0.9
    """Exponent of the polynomial schedule."""
    stages: Stages = field(default_factory=Stages)
    """Of the step schedule."""
    max_grad_norm: float | None = 1.0
    """Longer gradients are shortened to this length; ``None``: left as they are."""
    ema_decay: float = 0.995
    """Memory of the averaged weights that are validated and shipped; 0 uses the plain weights."""

    def __post_init__(self) -> None:
        _check(
            {
                f"lr = {self.lr}: must be above 0": self.lr > 0,
                f"weight_decay = {self.weight_decay}: must be 0 or more": self.weight_decay >= 0,
                f"betas = {self.betas}: must be 0 to below 1": all(0 <= b < 1 for b in self.betas),
                f"momentum = {self.momentum}: must be 0 to below 1": 0 <= self.momentum < 1,
                "nesterov: needs momentum": not self.nesterov or self.momentum > 0,
                f"power = {self.power}: must be above 0": self.power > 0,
                f"warmup = {self.warmup}: must be 0 to below 1": 0 <= self.warmup < 1,
                f"final_lr = {self.final_lr}: must be 0 to 1": 0 <= self.final_lr <= 1,
                f"max_grad_norm = {self.max_grad_norm}: must be above 0": (
                    self.max_grad_norm is None or self.max_grad_norm > 0
                ),
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
    frozen: tuple[str, ...] = ()
    """Patterns of names of weights and running statistics that stay as they are, such as
    ``encoder.*``."""
    loss: str = "dice_ce"
    """Registered loss."""
    loss_options: dict[str, Any] = field(default_factory=dict)
    """Arguments of the loss to change."""
    deep_supervision: tuple[float, ...] | None = None
    """Weights of the heads of a network that has several, finest first; ``None``: halving."""
    deep_supervision_fade: Stages | None = None
    """How the weights of all heads but the finest fall during the run."""
    optimiser: Optimiser = field(default_factory=Optimiser)
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Changes to patches: a preset's name, or single settings, on top of those of a ``preset``."""
    patch_size: tuple[int, ...] | None = None
    """Training crop in voxels."""
    batch_size: int | None = None
    """Patches per step."""
    grad_accum_steps: int = 1
    """Parts that a step's patches are seen in, one after the other: less memory. The gradient is
    the mean of theirs: the same where loss and network see each patch by itself, close to it where
    Dice or batch normalisation sum over a part instead of the whole step."""
    activation_checkpointing: bool = False
    """Whether blocks of the network are computed anew in the backward pass rather than kept: less
    memory, more time, same gradient."""
    compile: bool = False
    """Whether torch.compile is tried, and taken where it works and makes steps faster. It costs
    minutes beforehand; weights are then equal up to rounding only."""
    steps_per_epoch: int | None = None
    """Training steps between two validations."""
    passes_per_epoch: float | None = None
    """The same in passes over the training cases, one patch of each."""
    epochs: int | None = None
    """Length of the run; the schedule ends with it."""
    time_budget_s: float | None = None
    """Wall-clock length of the run in seconds, its end included, as well as that can be foreseen;
    the schedule follows the clock."""
    patience: int | None = None
    """Epochs without a better validation score after which training stops."""
    training_share: float = 1.0
    """Share of the training patients that are used; those of a smaller are within a larger one."""
    select_by: Literal["dice", "iou"] = "dice"
    """Mean validation score that decides which epoch is best."""
    oversample_foreground: float = 0.5
    """Share of patches centred on a structure."""
    balance: Literal["case", "class"] = "case"
    """Whether cases are seen equally often, or structures, however few cases have them."""
    roi_size: tuple[int, ...] | None = None
    """Sliding window in voxels; ``None``: the plan's, or the patch where that was changed."""
    overlap: float | None = None
    """Share by which neighbouring windows overlap."""
    blending: Literal["gaussian", "constant"] | None = None
    """Weights of a window's voxels where windows overlap."""
    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1``; ``None``: a GPU if there is one."""
    precision: Precision = "auto"
    """``auto``: fp32 on a CPU and of networks that half precision changes too much, such as GLIMS,
    bf16 where a GPU has it, else fp16."""
    channels_last: bool | None = None
    """Whether images lie in memory pixel by pixel rather than channel by channel, as volumes always
    do: it decides how fast a network trains on a CPU. ``None``: the plan's choice."""
    seed: int = 0
    """Decides initial weights, patches and their changes."""
    workers: int | None = None
    """Processes that cut patches, without effect on results; ``None``: 8 beside a GPU, else 0."""
    checkpoint_every_s: float = 300.0
    """A run that is killed loses at most this much."""
    devices: int | None = None
    """Processes on each machine, on GPUs each with its own, that share each step's patches;
    ``None``: as many as torchrun started, else 1."""
    nodes: int | None = None
    """Machines; ``None``: as many as torchrun runs on, else 1."""
    sharded: bool = False
    """Whether GPUs share out weights, gradients and the optimiser's memory as well (FSDP)."""

    def __post_init__(self) -> None:
        counts = (
            *("batch_size", "grad_accum_steps", "steps_per_epoch", "passes_per_epoch"),
            *("epochs", "time_budget_s", "patience", "devices", "nodes"),
        )
        given = {name: value for name in counts if (value := getattr(self, name)) is not None}
        sides = {name: getattr(self, name) or () for name in ("patch_size", "roi_size")}
        share, fades = self.oversample_foreground, self.deep_supervision_fade is not None
        patients = self.training_share
        batch, parts = self.batch_size or 0, max(1, self.grad_accum_steps)
        heads = self.deep_supervision
        _check(
            {f"{name} = {value}: must be above 0": value > 0 for name, value in given.items()}
            | {f"{n} = {s}: must be above 0": all(side > 0 for side in s) for n, s in sides.items()}
            | {
                f"grad_accum_steps = {parts}: must divide batch_size = {batch}": batch % parts == 0,
                f"deep_supervision = {heads}: must be numbers of 0 or more, one of them above 0": (
                    heads is None or (all(0 <= each < inf for each in heads) and any(heads))
                ),
                "deep_supervision_fade: needs deep_supervision": not fades or heads is not None,
                f"training_share = {patients}: must be above 0, at most 1": 0 < patients <= 1,
                f"oversample_foreground = {share}: must be 0 to 1": 0 <= share <= 1,
                f"overlap = {self.overlap}: must be 0 to 0.9": 0 <= (self.overlap or 0) <= 0.9,
                f"seed = {self.seed}: must be 0 to below 2**32": 0 <= self.seed < 2**32,
                f"workers = {self.workers}: must be 0 or more": (self.workers or 0) >= 0,
            }
        )


def _check(constraints: Mapping[str, bool]) -> None:
    """Refuse settings by listing the constraints that do not hold."""
    if faults := [fault for fault, holds in constraints.items() if not holds]:
        raise ConfigError("; ".join(faults))

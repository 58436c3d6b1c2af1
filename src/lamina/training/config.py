"""The settings of a training run."""

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Interval
from pydantic import FiniteFloat

from lamina.data.augment import Augmentation
from lamina.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16", "fp16"]

Count = Annotated[int, Gt(0)]
CountOr0 = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0)]
NotNegative = Annotated[float, Ge(0)]
Share = Annotated[float, Interval(ge=0, le=1)]
ShareBelow1 = Annotated[float, Interval(ge=0, lt=1)]
PositiveShare = Annotated[float, Interval(gt=0, le=1)]
Seed = Annotated[int, Interval(ge=0, lt=2**32)]


@dataclass(frozen=True, kw_only=True)
class Stages:
    """Something that falls at the end of each of several equal parts of the run."""

    factor: PositiveShare = 0.5
    """Each part has this share of what the one before had."""
    count: Count = 6
    """Parts of the run."""


@dataclass(frozen=True, kw_only=True)
class Optimiser:
    """The optimiser and its learning-rate schedule, which begins with a linear warm-up."""

    kind: Literal["adamw", "adam", "sgd"] = "adamw"
    """AdamW, Adam, or gradient descent with momentum."""
    lr: Positive = 6e-3
    """Highest learning rate."""
    weight_decay: NotNegative = 1e-2
    """Decoupled decay with AdamW, a squared penalty with the others."""
    betas: tuple[ShareBelow1, ShareBelow1] = (0.9, 0.999)
    """Memory of the gradient's mean and square, with Adam and AdamW."""
    momentum: ShareBelow1 = 0.9
    """Memory of the gradient, with SGD."""
    nesterov: bool = False
    """Whether SGD looks ahead along its momentum."""
    schedule: Literal["cosine", "polynomial", "step", "constant"] = "cosine"
    """How the rate falls after the warm-up, from ``lr`` to the end of the run."""
    warmup: ShareBelow1 = 0.02
    """Share of the run over which the rate rises from zero."""
    final_lr: Share = 0.0
    """Learning rate at the end of a cosine or polynomial schedule, as a share of ``lr``."""
    power: Positive = 0.9
    """Exponent of the polynomial schedule."""
    stages: Stages = field(default_factory=Stages)
    """Of the step schedule."""
    max_grad_norm: Positive | None = 1.0
    """Longer gradients are shortened to this length; ``None``: left as they are."""
    ema_decay: ShareBelow1 = 0.995
    """Memory of the averaged weights that are validated and shipped; 0 uses the plain weights."""

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise ConfigError("nesterov: needs momentum")


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
    deep_supervision: tuple[Annotated[FiniteFloat, Ge(0)], ...] | None = None
    """Weights of the heads of a network that has several, finest first; ``None``: halving."""
    deep_supervision_fade: Stages | None = None
    """How the weights of all heads but the finest fall during the run."""
    optimiser: Optimiser = field(default_factory=Optimiser)
    augmentation: Augmentation = field(default_factory=Augmentation)
    """Changes to patches: a preset's name, or single settings, on top of those of a ``preset``."""
    patch_size: tuple[Count, ...] | None = None
    """Training crop in voxels."""
    batch_size: Count | None = None
    """Patches per step."""
    grad_accum_steps: Count = 1
    """Parts that a step's patches are seen in, one after the other: less memory. The gradient is
    the mean of theirs: the same where loss and network see each patch by itself, close to it where
    Dice or batch normalisation sum over a part instead of the whole step."""
    activation_checkpointing: bool = False
    """Whether blocks of the network are computed anew in the backward pass rather than kept: less
    memory, more time, same gradient."""
    compile: bool = False
    """Whether torch.compile is tried, and taken where it works and makes steps faster. It costs
    minutes beforehand; weights are then equal up to rounding only."""
    steps_per_epoch: Count | None = None
    """Training steps between two validations."""
    passes_per_epoch: Positive | None = None
    """The same in passes over the training cases, one patch of each."""
    epochs: Count | None = None
    """Length of the run; the schedule ends with it."""
    time_budget_s: Positive | None = None
    """Wall-clock length of the run in seconds, its end included, as well as that can be foreseen;
    the schedule follows the clock."""
    patience: Count | None = None
    """Epochs without a better validation score after which training stops."""
    training_share: PositiveShare = 1.0
    """Share of the training patients that are used; those of a smaller are within a larger one."""
    select_by: Literal["dice", "iou"] = "dice"
    """Mean validation score that decides which epoch is best."""
    oversample_foreground: Share = 0.5
    """Share of patches centred on a structure."""
    balance: Literal["case", "class"] = "case"
    """Whether cases are seen equally often, or structures, however few cases have them."""
    roi_size: tuple[Count, ...] | None = None
    """Sliding window in voxels; ``None``: the plan's, or the patch where that was changed."""
    overlap: Annotated[float, Interval(ge=0, le=0.9)] | None = None
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
    seed: Seed = 0
    """Decides initial weights, patches and their changes."""
    workers: CountOr0 | None = None
    """Processes that cut patches, without effect on results; ``None``: 8 beside a GPU, else 0."""
    checkpoint_every_s: float = 300.0
    """A run that is killed loses at most this much."""
    devices: Count | None = None
    """Processes on each machine, on GPUs each with its own, that share each step's patches;
    ``None``: as many as torchrun started, else 1."""
    nodes: Count | None = None
    """Machines; ``None``: as many as torchrun runs on, else 1."""
    sharded: bool = False
    """Whether GPUs share out weights, gradients and the optimiser's memory as well (FSDP)."""

    def __post_init__(self) -> None:
        batch, parts, heads = self.batch_size or 0, self.grad_accum_steps, self.deep_supervision
        faults = []
        if parts and batch % parts:
            faults.append(f"grad_accum_steps = {parts}: must divide batch_size = {batch}")
        if heads is not None and not any(heads):
            faults.append(f"deep_supervision = {heads}: must have a number above 0")
        if self.deep_supervision_fade and heads is None:
            faults.append("deep_supervision_fade: needs deep_supervision")
        if faults:
            raise ConfigError("; ".join(faults))

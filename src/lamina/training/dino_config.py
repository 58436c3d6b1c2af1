"""The settings of self-distillation."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from annotated_types import Ge

from lamina.data.views import Views
from lamina.errors import ConfigError
from lamina.training.config import (
    Count,
    CountOr0,
    NotNegative,
    Positive,
    Precision,
    Seed,
    ShareBelow1,
)

AtLeast2 = Annotated[int, Ge(2)]


@dataclass(frozen=True, kw_only=True)
class DINOConfig:
    """Everything that decides what a run does; by default DAI-Net's recipe, completed by DINO's.

    Raises:
        ConfigError: ``vit`` has ``drop_path``, which is the student's alone.
    """

    vit: dict[str, Any] = field(default_factory=dict)
    """Fields of the transformer's configuration to change, such as its depth; not ``drop_path``."""
    views: Views = field(default_factory=Views)
    num_outputs: AtLeast2 = 65536
    """Scores K that student and teacher give; 4096 are enough for a few thousand slices."""
    head_width: Count = 2048
    """Hidden units of the projection head."""
    student_temp: Positive = 0.1
    teacher_temp: Positive = 0.04
    """A higher one makes the teacher less sure."""
    center_momentum: ShareBelow1 = 0.9
    """Share of the centre of the teacher's scores that a step keeps."""
    teacher_momentum: ShareBelow1 = 0.996
    """Share of its weights that the teacher keeps at the first step; rises to 1."""
    drop_path: ShareBelow1 = 0.1
    """Stochastic depth of the student."""
    batch_size: AtLeast2 = 64
    """Slices per step."""
    lr: Positive = 1e-4
    """Highest learning rate; the last one is a hundredth."""
    warmup: ShareBelow1 = 0.0125
    """Share of the run over which the rate rises from zero: 10 of 800 epochs."""
    weight_decay: tuple[NotNegative, NotNegative] = (0.04, 0.4)
    """At the start and at the end, on a cosine; without biases and normalisations."""
    max_grad_norm: Positive = 3.0
    """Longer gradients are shortened to this length."""
    frozen_epochs: CountOr0 = 1
    """Epochs at the start in which the head's last layer stays as it is."""
    collapse_patience: CountOr0 = 10
    """Collapsed epochs in a row, after the warm-up, at which training stops; 0: it never does."""
    epochs: Count | None = None
    """Length of the run; 800 unless it is timed."""
    time_budget_s: Positive | None = None
    """Wall-clock length of the run in seconds; the schedules follow the clock."""
    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1``; ``None``: a GPU if there is one."""
    precision: Precision = "auto"
    """``auto``: fp32 on a CPU, bf16 where a GPU has it, else fp16."""
    seed: Seed = 0
    """Decides initial weights and views."""
    workers: CountOr0 = 0
    """Processes that draw views, without effect on results."""
    checkpoint_every_s: float = 300.0
    """A run that is killed loses at most this much."""

    def __post_init__(self) -> None:
        if "drop_path" in self.vit:
            raise ConfigError("vit.drop_path: is the student's alone; set drop_path in its place")


SMALL: dict[str, Any] = {
    "views": {"global_size": 128, "local_size": 48},
    "num_outputs": 4096,
    "batch_size": 16,
    "epochs": 100,
    "warmup": 0.1,
}
"""Settings with which a CPU gets through a few hundred slices."""

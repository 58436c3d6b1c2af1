"""The settings of self-distillation."""

from dataclasses import dataclass, field
from typing import Any

from lamina.data.views import Views
from lamina.errors import ConfigError
from lamina.training.config import Precision


@dataclass(frozen=True, kw_only=True)
class DINOConfig:
    """Everything that decides what a run does; by default DAI-Net's recipe, completed by DINO's.

    Raises:
        ConfigError: Values out of range, all of them at once.
    """

    vit: dict[str, Any] = field(default_factory=dict)
    """Fields of the transformer's configuration to change, such as its depth; not ``drop_path``."""
    views: Views = field(default_factory=Views)
    num_outputs: int = 65536
    """Scores K that student and teacher give; 4096 are enough for a few thousand slices."""
    head_width: int = 2048
    """Hidden units of the projection head."""
    student_temp: float = 0.1
    teacher_temp: float = 0.04
    """A higher one makes the teacher less sure."""
    center_momentum: float = 0.9
    """Share of the centre of the teacher's scores that a step keeps."""
    teacher_momentum: float = 0.996
    """Share of its weights that the teacher keeps at the first step; rises to 1."""
    drop_path: float = 0.1
    """Stochastic depth of the student."""
    batch_size: int = 64
    """Slices per step."""
    lr: float = 1e-4
    """Highest learning rate; the last one is a hundredth."""
    warmup: float = 0.0125
    """Share of the run over which the rate rises from zero: 10 of 800 epochs."""
    weight_decay: tuple[float, float] = (0.04, 0.4)
    """At the start and at the end, on a cosine; without biases and normalisations."""
    max_grad_norm: float = 3.0
    """Longer gradients are shortened to this length."""
    frozen_epochs: int = 1
    """Epochs at the start in which the head's last layer stays as it is."""
    collapse_patience: int = 10
    """Collapsed epochs in a row, after the warm-up, at which training stops; 0: it never does."""
    epochs: int | None = None
    """Length of the run; 800 unless it is timed."""
    time_budget_s: float | None = None
    """Wall-clock length of the run in seconds; the schedules follow the clock."""
    device: str | None = None
    """``cpu``, ``cuda``, ``cuda:1``; ``None``: a GPU if there is one."""
    precision: Precision = "auto"
    """``auto``: fp32 on a CPU, bf16 where a GPU has it, else fp16."""
    seed: int = 0
    """Decides initial weights and views."""
    workers: int = 0
    """Processes that draw views, without effect on results."""
    checkpoint_every_s: float = 300.0
    """A run that is killed loses at most this much."""

    def __post_init__(self) -> None:
        above = ("head_width", "student_temp", "teacher_temp", "lr", "max_grad_norm")
        shares = ("center_momentum", "teacher_momentum", "drop_path", "warmup")
        counts = ("frozen_epochs", "collapse_patience", "workers")
        length = [name for name in ("epochs", "time_budget_s") if getattr(self, name) is not None]
        constraints = {
            "above 0": {name: getattr(self, name) > 0 for name in (*above, *length)},
            "0 to below 1": {name: 0 <= getattr(self, name) < 1 for name in shares},
            "0 or more": {name: getattr(self, name) >= 0 for name in counts},
            "two numbers, 0 or more": {"weight_decay": min(self.weight_decay) >= 0},
            "at least 2": {
                name: getattr(self, name) >= 2 for name in ("num_outputs", "batch_size")
            },
            "0 to below 2**32": {"seed": 0 <= self.seed < 2**32},
        }
        faults = [
            f"{name} = {getattr(self, name)}: must be {constraint}"
            for constraint, names in constraints.items()
            for name, holds in names.items()
            if not holds
        ]
        if "drop_path" in self.vit:
            faults.append("vit.drop_path: is the student's alone; set drop_path in its place")
        if faults:
            raise ConfigError("; ".join(faults))


SMALL: dict[str, Any] = {
    "views": {"global_size": 128, "local_size": 48},
    "num_outputs": 4096,
    "batch_size": 16,
    "epochs": 100,
    "warmup": 0.1,
}
"""Settings with which a CPU gets through a few hundred slices."""

"""What networks take of memory and time, what is granted, and how a run fits into it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

from lamina.data.slices import coarsest_axis


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """What a network takes, linear in voxels: measured on a small patch, or on the planned one."""

    network: str
    """Registered preset."""
    network_options: dict[str, Any] = field(default_factory=dict)
    """Fields of its configuration that differ from the preset."""
    spatial_dims: int
    """2 for a network that sees images or slices, 3 for volumes."""
    size_divisor: int
    """Patch sides must be multiples of this many voxels."""
    bytes_per_voxel: float
    """Memory of a training step, per voxel of the patch and item of the batch."""
    seconds_per_voxel: float
    """Time of a training step on this machine, likewise."""
    predict_seconds_per_voxel: float
    """Time of a prediction on this machine, likewise."""

    def step_bytes(self, patch_size: Sequence[int], batch_size: int) -> float:
        """Return the memory of a training step."""
        return self.bytes_per_voxel * batch_size * prod(patch_size)

    def step_s(self, patch_size: Sequence[int], batch_size: int) -> float:
        """Return the seconds of a training step."""
        return self.seconds_per_voxel * batch_size * prod(patch_size)

    @property
    def title(self) -> str:
        """The network's name, with what differs from its preset."""
        options = ", ".join(f"{name}={value}" for name, value in self.network_options.items())
        return f"{self.network} ({options})" if options else self.network


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the user grants; the plan stays within it."""

    memory_bytes: float
    """Main memory on a CPU, device memory on a GPU."""
    program_bytes: float = 0.0
    """What is taken of it before any step."""
    device: str = "memory"
    """What that memory is called in reasons: ``"memory"`` or ``"GPU memory"``."""
    time_s: float | None = None
    """For a whole training run; ``None`` leaves the schedule at its default length."""

    @property
    def step_bytes(self) -> float:
        """Memory that a training step may take."""
        return self.memory_bytes - self.program_bytes


@dataclass(frozen=True, kw_only=True)
class Scans:
    """The scans to train on, as far as patch and length of a run depend on them."""

    median_shape: tuple[int, ...]
    """Size in voxels after preparation."""
    spacing: tuple[float, ...]
    """Voxel size in mm after preparation."""
    shapes: tuple[tuple[int, ...], ...]
    """Size of every case, likewise."""

    @property
    def slice_axis(self) -> int:
        """The axis across slices: the coarsest."""
        return coarsest_axis(self.spacing)


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How one network is trained within a budget, and why so."""

    cost: NetworkCost
    slice_axis: int | None
    patch_size: tuple[int, ...]
    batch_size: int
    steps_per_epoch: int
    epochs: int
    windows: int
    """Windows that validating a fifth of the scans takes."""
    reasons: dict[str, str]
    given_up: tuple[str, ...]
    """What a larger budget would allow."""

    @property
    def step_s(self) -> float:
        """Seconds of a training step."""
        return self.cost.step_s(self.patch_size, self.batch_size)

    @property
    def validation_s(self) -> float:
        """Seconds of a validation."""
        return self.cost.predict_seconds_per_voxel * self.windows * prod(self.patch_size)

    @property
    def epoch_s(self) -> float:
        """Seconds of an epoch with its validation."""
        return self.step_s * self.steps_per_epoch + self.validation_s

    @property
    def step_bytes(self) -> float:
        """Memory of a training step."""
        return self.cost.step_bytes(self.patch_size, self.batch_size)

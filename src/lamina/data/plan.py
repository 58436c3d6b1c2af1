"""What is decided about a task before training, and why."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lamina.config import resolve
from lamina.errors import ConfigError
from lamina.labels import LabelSet

_MAX_OVERLAP = 0.9


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """How the intensities of one channel are brought to a common scale."""

    scheme: Literal["zscore", "zscore_nonzero", "ct"]
    """``"zscore"``: each scan by its own mean and deviation; ``"zscore_nonzero"``: by those of its
    voxels that are not 0, which stay 0; ``"ct"``: all scans by the numbers below."""
    low: float = 0.0
    """Lower clip of the ``ct`` scheme, in the scan's units."""
    high: float = 0.0
    """Upper clip of the ``ct`` scheme."""
    mean: float = 0.0
    """Subtracted by the ``ct`` scheme."""
    std: float = 1.0
    """Divisor of the ``ct`` scheme."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that training and prediction must agree on, with the reasons.

    Raises:
        ConfigError: Fields have not one entry per axis; all of them are listed.
    """

    spatial_dims: int
    """2 for images, 3 for volumes."""
    channels: tuple[str, ...]
    """Names of the image channels, in the order the network takes them."""
    labels: LabelSet
    """The structures, in class order."""
    region_based: bool = False
    """Whether the network says yes or no to each region instead of choosing one structure."""
    orientation: str
    """Direction of the array axes after preparation, such as ``"RAS"``."""
    target_spacing: tuple[float, ...]
    """Voxel size in mm after preparation, along the prepared axes."""
    normalisation: tuple[Normalisation, ...]
    """One per channel."""
    network: str
    """Registered preset the plan was made for."""
    patch_size: tuple[int, ...]
    """Training crop in voxels."""
    roi_size: tuple[int, ...]
    """Sliding window in voxels."""
    overlap: float = 0.5
    """Share by which neighbouring windows overlap."""
    batch_size: int
    """Patches per step."""
    mirror_axes: tuple[int, ...]
    """Prepared axes along which training may mirror a patch."""
    epochs: int
    """Length of the training schedule, in epochs."""
    steps_per_epoch: int
    """Training steps between two validations."""
    estimates: dict[str, float] = field(default_factory=dict)
    """Predicted ``training_memory_gb``, ``step_s`` and ``training_s``, on the planning machine."""
    reasons: dict[str, str] = field(default_factory=dict)
    """One sentence per choice: field name -> why."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} has {len(getattr(self, name))} entries"
            for name in ("orientation", "target_spacing", "patch_size", "roi_size")
            if len(getattr(self, name)) != self.spatial_dims
        ]
        if faults:
            raise ConfigError(f"plan: {', '.join(faults)}; {self.spatial_dims} are needed.")
        if self.region_based and not self.labels.region_drawing:
            raise ConfigError("plan: region_based needs labels with regions.")
        if not 0 <= self.overlap <= _MAX_OVERLAP:
            raise ConfigError(f"plan: overlap = {self.overlap}: must be 0 to {_MAX_OVERLAP}.")
        if (
            min(*self.patch_size, *self.roi_size, self.batch_size) < 1
            or min(self.target_spacing) <= 0
        ):
            raise ConfigError("plan: sizes and spacings must be above 0.")

    @property
    def num_outputs(self) -> int:
        """Channels of the network's logits."""
        return len(self.labels.regions) if self.region_based else self.labels.num_classes

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; :meth:`from_dict` reads it back."""
        return asdict(self) | {"labels": self.labels.as_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Plan":
        """Read what :meth:`as_dict` wrote.

        Raises:
            ConfigError: Fields are missing, unknown, or not of their type; all of them are listed.
        """
        return resolve(cls, data)

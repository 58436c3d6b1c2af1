"""What is decided about a task before training, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from math import prod
from typing import Any, Literal

from lamina.config import resolve
from lamina.errors import ConfigError
from lamina.labels import LabelSet

ASKED = "Asked for."
"""The reason of what a person chose."""
_MAX_OVERLAP = 0.9
_MAX_VOXELS = 2**31 - 1
"""Of a patch or window: runtimes count with 32 bits, and no machine holds what a network makes of
more."""


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
        ConfigError: Fields have not one entry per axis, all of which are listed; or contradict each
            other, or cannot be.
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
    """Voxel size in ``unit`` after preparation, along the prepared axes; across slices that are
    seen one by one, every scan keeps its own."""
    unit: Literal["mm", "px"] = "mm"
    """What scans must be measured in: pixels where those of training did not say their size."""
    normalisation: tuple[Normalisation, ...]
    """One per channel."""
    network: str
    """Registered preset the plan was made for."""
    network_options: dict[str, Any] = field(default_factory=dict)
    """Fields of the network's configuration that differ from the preset, such as its width."""
    slice_axis: int | None = None
    """Prepared axis whose slices a 2D network sees one by one; patch and window are 1 along it.
    ``None``: the network has as many axes as the scans."""
    patch_size: tuple[int, ...]
    """Training crop in voxels."""
    roi_size: tuple[int, ...]
    """Sliding window in voxels."""
    overlap: float = 0.5
    """Share by which neighbouring windows overlap."""
    blending: Literal["gaussian", "constant"] = "gaussian"
    """Weights of a window's voxels where windows overlap: falling towards its edges, or equal."""
    batch_size: int
    """Patches per step."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format to train this network in on a CPU."""
    channels_last: bool = False
    """Whether images lie in memory pixel by pixel when this network trains on a CPU."""
    mirror_axes: tuple[int, ...]
    """Prepared axes along which training mirrors a patch, and ``--tta`` looks at mirror images."""
    epochs: int
    """Length of the training schedule, in epochs."""
    steps_per_epoch: int
    """Training steps between two validations."""
    estimates: dict[str, float] = field(default_factory=dict)
    """Predicted on the planning machine: ``training_memory_gb``, the program included, ``step_s``,
    ``epoch_s`` with its validation, and ``training_s``."""
    given_up: tuple[str, ...] = ()
    """What a larger budget would have allowed, one sentence each."""
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
        if len(self.normalisation) != len(self.channels):
            raise ConfigError(
                f"plan: normalisation has {len(self.normalisation)} entries; "
                f"{len(self.channels)} are needed, one for each channel."
            )
        if not 0 <= self.overlap <= _MAX_OVERLAP:
            raise ConfigError(f"plan: overlap = {self.overlap}: must be 0 to {_MAX_OVERLAP}.")
        self._check_axes()
        self._check_sizes()

    def _check_axes(self) -> None:
        named = [any(end in self.orientation for end in ends) for ends in ("LR", "PA", "IS")]
        if sum(named) != self.spatial_dims:
            raise ConfigError(
                f"plan: orientation = {self.orientation}: must be one letter each of L/R, P/A and "
                "I/S, or two of them for images."
            )
        if not {*self.mirror_axes} <= {*range(self.spatial_dims)}:
            raise ConfigError(
                f"plan: mirror_axes = {self.mirror_axes}: must be 0 to {self.spatial_dims - 1}."
            )
        if self.slice_axis is not None:
            self._check_slices(self.slice_axis)

    def _check_slices(self, axis: int) -> None:
        if self.spatial_dims != 3 or axis not in range(3):
            raise ConfigError(f"plan: slice_axis = {axis}: must be an axis of volumes, 0 to 2.")
        if self.patch_size[axis] != 1 or self.roi_size[axis] != 1:
            raise ConfigError(f"plan: patch_size and roi_size must be 1 along slice_axis = {axis}.")

    def _check_sizes(self) -> None:
        if (
            min(*self.patch_size, *self.roi_size, self.batch_size) < 1
            or min(self.target_spacing) <= 0
        ):
            raise ConfigError("plan: sizes and spacings must be above 0.")
        for name in ("patch_size", "roi_size"):
            if prod(getattr(self, name)) > _MAX_VOXELS:
                raise ConfigError(
                    f"plan: {name} = {getattr(self, name)}: must hold {_MAX_VOXELS} voxels at most."
                )

    def check_network(self, network: Mapping[str, Any]) -> None:
        """Refuse the description of a network that cannot be this plan's.

        Args:
            network: ``name``, ``fields`` of its configuration, and ``members`` of an ensemble.

        Raises:
            ConfigError: It is malformed, or its channels or classes differ from the plan's.
        """
        name, fields, members = (network.get(key) for key in ("name", "fields", "members"))
        if not isinstance(name, str) or not isinstance(fields, dict):
            raise ConfigError("network needs a name and fields.")
        needed = {"in_channels": len(self.channels), "num_classes": self.num_outputs}
        for key, number in needed.items():
            if (found := fields.get(key)) != number:
                raise ConfigError(f"{key} of the network is {found!r}, of the plan {number}.")
        if members is not None and (type(members) is not int or members < 2):
            raise ConfigError(
                f"members of the network is {members!r}; an ensemble needs 2 or more."
            )

    @property
    def seen_axes(self) -> tuple[int, ...]:
        """The prepared axes that the network sees."""
        return tuple(axis for axis in range(self.spatial_dims) if axis != self.slice_axis)

    @property
    def seen_roi_size(self) -> tuple[int, ...]:
        """The sliding window along the axes that the network sees."""
        return tuple(self.roi_size[axis] for axis in self.seen_axes)

    @property
    def seen_mirror_axes(self) -> tuple[int, ...]:
        """Those of ``mirror_axes`` that the network sees, counted among the axes that it sees."""
        seen = enumerate(self.seen_axes)
        return tuple(place for place, axis in seen if axis in self.mirror_axes)

    @property
    def seen_side_axis(self) -> int | None:
        """The axis between left and right, counted among those that the network sees, if it is."""
        seen = enumerate(self.seen_axes)
        return next((place for place, axis in seen if self.orientation[axis] in "LR"), None)

    def was_asked(self, name: str) -> bool:
        """Tell whether a person chose the field, not the plan."""
        return self.reasons.get(name) == ASKED

    def spacing_for(self, scan_spacing: Sequence[float]) -> tuple[float, ...]:
        """Return the spacing in mm that a scan is prepared at, given its own on the same axes."""
        pairs = enumerate(zip(self.target_spacing, scan_spacing, strict=True))
        return tuple(own if axis == self.slice_axis else aim for axis, (aim, own) in pairs)

    @property
    def num_outputs(self) -> int:
        """Channels of the network's logits."""
        return len(self.labels.regions) if self.region_based else self.labels.num_classes

    @property
    def drawing(self) -> tuple[tuple[int, int], ...] | None:
        """How classes follow from the network's regions; ``None`` where it says classes itself."""
        return self.labels.region_drawing if self.region_based else None

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

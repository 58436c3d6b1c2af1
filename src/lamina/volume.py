"""An image or a label map together with where it lies in space."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lamina.errors import ConfigError, GeometryError
from lamina.geometry import (
    Affine,
    affine_from,
    check_affine,
    check_same_grid,
    corners,
    orientation_of,
    spacing_of,
    voxel_volume,
)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels ``(C, *S)`` with two or three spatial axes, and the affine that places them.

    Array axes are the file's ``(i, j, k)``; the affine maps voxel indices to world mm, RAS+.
    Spacing, orientation and corners are derived from it, never stored beside it.

    Raises:
        GeometryError: The array has no voxels or the wrong number of axes, or the affine is
            unusable.
        ConfigError: The voxels are no real numbers.
    """

    array: NDArray[Any]
    affine: Affine
    source: str = "volume"
    """The file it was read from, for messages."""
    unit: Literal["mm", "px"] = "mm"
    """What the affine measures in: pixels where a picture does not tell their size."""
    in_colour: bool = False
    """Whether it was read from one picture in colour, whose channels are red, green and blue."""

    def __post_init__(self) -> None:
        if self.array.ndim not in (3, 4):
            raise GeometryError(
                f"{self.source}: array has shape {self.array.shape}; "
                "a channel axis and 2 or 3 spatial axes are needed."
            )
        if self.array.dtype.kind not in "biuf":
            raise ConfigError(
                f"{self.source}: voxels of type {self.array.dtype}; real numbers are needed.",
                remedy="Convert them first, such as complex ones to their magnitude.",
            )
        if 0 in self.array.shape:
            raise GeometryError(
                f"{self.source}: array of shape {self.array.shape} holds no voxels."
            )
        object.__setattr__(self, "affine", check_affine(self.affine, self.source))

    @property
    def num_channels(self) -> int:
        """Number of channels, such as MR sequences; 1 for a label map."""
        return int(self.array.shape[0])

    @property
    def spatial_shape(self) -> tuple[int, ...]:
        """Number of voxels along each spatial axis, in array order."""
        return tuple(int(size) for size in self.array.shape[1:])

    @property
    def spatial_dims(self) -> int:
        """2 for an image, 3 for a volume."""
        return self.array.ndim - 1

    @property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm along each spatial axis, in array order."""
        return spacing_of(self.affine, self.spatial_dims)

    def sized(self, spacing: Sequence[float]) -> "Volume":
        """Return a picture in mm, given the size of its pixels along each axis; scans as they are.

        Args:
            spacing: In mm, in array order.

        Raises:
            GeometryError: A size is not above 0.
        """
        if self.unit == "mm":
            return self
        if not all(0 < size < inf for size in spacing):
            raise GeometryError(f"{self.source}: pixels of {tuple(spacing)} mm.")
        return replace(self, affine=self.affine @ affine_from(spacing), unit="mm")

    def laid_on(self, other: "Volume") -> "Volume":
        """Return the same voxels where ``other``, of the same shape, has its own."""
        return replace(self, affine=other.affine, unit=other.unit)

    def check_grid_of(self, other: "Volume") -> None:
        """Check that another volume lies on the grid of this one.

        Raises:
            GeometryError: As :func:`lamina.geometry.check_same_grid`.
        """
        check_same_grid(
            self.affine,
            self.spatial_shape,
            other.affine,
            other.spatial_shape,
            f"{self.source} and {other.source}",
        )

    @property
    def voxel_volume(self) -> float:
        """Volume of a voxel in mm³, or area of an image's pixel in mm², at whatever angles."""
        return voxel_volume(self.affine, self.spatial_dims)

    @property
    def orientation(self) -> str:
        """Direction each spatial axis runs to, such as ``"RAS"``."""
        return orientation_of(self.affine, self.spatial_dims)

    @property
    def corners(self) -> NDArray[np.float64]:
        """World positions in mm of the corner voxels' centres, ``(2**spatial_dims, 3)``."""
        return corners(self.affine, self.spatial_shape)

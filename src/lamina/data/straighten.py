"""Scans whose axes are not at right angles, brought to such as are, and label maps back.

A CT gantry that was tilted shifts each slice against the one below: the voxels fill a slanted box.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lamina.data.intensity import finite
from lamina.errors import GeometryError
from lamina.geometry import Affine, corners, is_sheared
from lamina.volume import Volume

_RIGHT = 1e-3
"""Cosine up to which two axes count as at right angles."""

_SLACK = 1e-3
"""Share of a voxel that is not worth another slice."""


def straightened(image: Volume, label: Volume, resample: bool) -> tuple[Volume, Volume]:
    """Return a scan and its label at right angles: as they are, or resampled where asked for.

    Args:
        image: ``(C, *S)``.
        label: ``(1, *S)`` on the same grid.
        resample: Whether a scan at other angles is resampled rather than refused.

    Raises:
        GeometryError: The axes are not at right angles and ``resample`` is off.
        DatasetError: A channel that is to be resampled has no finite voxel.
    """
    way = way_upright(image, resample)
    return (way.apply_image(image), way.apply_label(label)) if way else (image, label)


def way_upright(volume: Volume, resample: bool) -> "Straightening | None":
    """Return the way to right angles, or None for a scan whose axes are at such.

    Raises:
        GeometryError: They are not, and ``resample`` is off.
    """
    if not is_sheared(volume.affine):
        return None
    if not resample:
        raise GeometryError(
            f"{volume.source}: two axes are {_degrees_off(volume.affine):.1f} degrees off a right "
            "angle (gantry tilt?).",
            remedy="Give --resample-oblique to resample such scans to right angles.",
        )
    return Straightening.of(volume)


@dataclass(frozen=True, eq=False)
class Straightening:
    """The way from a slanted grid to an upright one that covers it, and back."""

    affine: Affine
    """Of the scan."""
    spatial_shape: tuple[int, ...]
    upright_affine: Affine
    upright_shape: tuple[int, ...]

    @classmethod
    def of(cls, volume: Volume) -> "Straightening":
        """Lay an upright grid through a scan.

        The slices' plane and its spacing stay. Across it, the grid follows the plane's normal, one
        voxel per slice, so that of a tilted gantry's scan each slice is only shifted in itself.
        """
        dims = volume.spatial_dims
        slanted = volume.affine[:3, :dims]
        order = _plane_first(slanted)
        directions, lengths = np.linalg.qr(slanted[:, order])
        upright = np.empty((3, dims))
        upright[:, order] = directions * np.diag(lengths)  # qr leaves their signs to chance
        affine = volume.affine.copy()
        affine[:3, :dims] = upright
        if dims == 2:
            affine[:3, 2] = np.cross(*upright.T) / np.linalg.norm(np.cross(*upright.T))
        # Voxel indices of the scan's corners on a grid that starts at its first voxel.
        reach = (
            np.linalg.pinv(upright)
            @ (corners(volume.affine, volume.spatial_shape) - affine[:3, 3]).T
        )
        low = np.floor(reach.min(axis=1) + _SLACK).astype(int)
        high = np.ceil(reach.max(axis=1) - _SLACK).astype(int)
        affine[:3, 3] += upright @ low
        shape = tuple(int(size) for size in high - low + 1)
        return cls(volume.affine, volume.spatial_shape, affine, shape)

    def apply_image(self, image: Volume) -> Volume:
        """Resample an image ``(C, *S)`` linearly to the upright grid, as float32.

        Beyond the scan, its edge is continued.

        Raises:
            DatasetError: A channel has no finite voxel.
        """
        channels = [finite(c.astype(np.float32), image.source) for c in image.array]
        array = np.stack([self._upright(channel, order=1) for channel in channels])
        return replace(image, array=array, affine=self.upright_affine)

    def apply_label(self, label: Volume) -> Volume:
        """Bring a label map ``(1, *S)`` to the upright grid; the nearest voxel decides."""
        array = self._upright(label.array[0], order=0)[None]
        return replace(label, array=array, affine=self.upright_affine)

    def undo(self, label: Volume) -> Volume:
        """Bring a label map ``(1, *upright)`` back to the scan's own voxels."""
        to_upright = np.linalg.inv(self.upright_affine) @ self.affine
        array = _sample(label.array[0], to_upright, self.spatial_shape, order=0)[None]
        return replace(label, array=array, affine=self.affine)

    def _upright(self, array: NDArray[Any], order: int) -> NDArray[Any]:
        to_slanted = np.linalg.inv(self.affine) @ self.upright_affine
        return _sample(array, to_slanted, self.upright_shape, order)


def _degrees_off(affine: Affine) -> float:
    """Return by how much the worst pair of axes misses a right angle."""
    return float(np.rad2deg(np.arcsin(min(1.0, _cosines(affine[:3, :3]).max()))))


def _cosines(axes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far each pair of columns leans together, 0 to 1, and 0 for one with itself."""
    direction = axes / np.linalg.norm(axes, axis=0)
    leaning: NDArray[np.float64] = np.abs(direction.T @ direction)
    np.fill_diagonal(leaning, 0)
    return leaning


def _plane_first(axes: NDArray[np.float64]) -> list[int]:
    """Order columns so that the one across the slices, which leans, comes last.

    Pixels are mostly square: of those that lean it is the one whose step is least like the others',
    or the last where they are equal.
    """
    count = axes.shape[1]
    leaning = np.flatnonzero((_cosines(axes) > _RIGHT).any(axis=0))
    if not leaning.size:
        return list(range(count))
    steps = np.linalg.norm(axes, axis=0)
    unlike = np.abs(np.log(steps / np.median(steps))).round(3)
    across = int(max(leaning, key=lambda axis: (unlike[axis], axis)))
    return [*(axis for axis in range(count) if axis != across), across]


def _sample(
    array: NDArray[Any], matrix: Affine, shape: tuple[int, ...], order: int
) -> NDArray[Any]:
    """Sample an array where ``matrix`` sends each index of a grid of that shape."""
    dims = len(shape)
    sampled: NDArray[Any] = ndimage.affine_transform(
        array,
        matrix[:dims, :dims],
        matrix[:dims, 3],
        shape,
        array.dtype,
        order=order,
        mode="nearest",
    )
    return sampled

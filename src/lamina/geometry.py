"""Where voxels lie in space: affines, spacing, orientation, grids.

One convention everywhere (ADR 0005): array axes are the file's voxel axes ``(i, j, k)``; an affine
maps voxel indices (voxel centres) to world millimetres in RAS+ (x to the patient's right, y to the
front, z to the head). Spacing and shape follow array order. Affines are 4x4 for 2D images too:
their third column is the normal.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.errors import GeometryError

Affine = NDArray[np.float64]

GRID_TOLERANCE_MM = 1e-3
"""Two grids agree when no corner is off by more than this, or than 1 % of the smallest spacing."""

SAME_SPACING = 1e-4
"""Voxel sizes that differ by less than this share are one size."""

_BEYOND_MM = 1e12
"""Numbers this large are damage; their squares would overflow."""

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""World coordinates of DICOM and ITK, whose x and y point the other way, as ours."""

_AXES = ("LR", "PA", "IS")


def check_affine(affine: NDArray[Any], source: str) -> Affine:
    """Return ``affine`` as float64 after checking that it places voxels in space.

    Raises:
        GeometryError: It is not 4x4, not finite, does not end in the row 0 0 0 1, or maps the
            volume onto a plane or a point.
    """
    matrix = np.array(affine, dtype=np.float64)
    remedy = "The file does not say where its voxels are; correct its header."
    if matrix.shape != (4, 4):
        raise GeometryError(
            f"{source}: affine has shape {matrix.shape}, 4x4 is needed.", remedy=remedy
        )
    if not (np.abs(matrix) < _BEYOND_MM).all():
        raise GeometryError(f"{source}: affine holds NaN or infinite numbers.", remedy=remedy)
    if not np.allclose(matrix[3], (0, 0, 0, 1)):
        raise GeometryError(
            f"{source}: affine ends in the row {matrix[3].tolist()}, 0 0 0 1 is needed.",
            remedy=remedy,
        )
    lengths = np.linalg.norm(matrix[:3, :3], axis=0)
    if lengths.min() <= 0 or abs(np.linalg.det(matrix[:3, :3] / lengths)) < 1e-3:
        raise GeometryError(
            f"{source}: affine is singular, with spacing {_mm(lengths)} mm.", remedy=remedy
        )
    return matrix


def spacing_of(affine: Affine, spatial_dims: int = 3) -> tuple[float, ...]:
    """Return the distance in mm between neighbouring voxels along each array axis."""
    return tuple(float(length) for length in np.linalg.norm(affine[:3, :spatial_dims], axis=0))


def voxel_volume(affine: Affine, spatial_dims: int = 3) -> float:
    """Return the volume of a voxel in mm³, or the area of an image's pixel in mm².

    It is the product of the spacing only where the axes are at right angles.
    """
    sides = np.linalg.qr(affine[:3, :spatial_dims]).R.diagonal()
    return float(np.abs(sides.prod()))


def size_unit(unit: str, spatial_dims: int) -> tuple[float, str]:
    """Return how many mm³, or mm² of an image, make the unit of structures' sizes, and its name.

    Where lengths are in ``px`` that is one pixel.
    """
    if unit == "px":
        return 1.0, "px"
    return (1000.0, "ml") if spatial_dims == 3 else (100.0, "cm²")


def is_sheared(affine: Affine) -> bool:
    """Tell whether the axes fail to be at right angles (such as an uncorrected gantry tilt)."""
    direction = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    return bool(np.abs(direction.T @ direction - np.eye(3)).max() > 1e-3)


def affine_from(spacing: Sequence[float], origin: Sequence[float] = (0, 0, 0)) -> Affine:
    """Return the affine of an axis-aligned RAS+ grid; a missing third spacing counts as 1 mm."""
    affine = np.diag([*spacing, *[1.0] * (4 - len(spacing))]).astype(np.float64)
    affine[:3, 3] = origin
    return affine


def affine_along(orientation: str, spacing: Sequence[float]) -> Affine:
    """Return the affine of a grid at the origin whose axes run to ``orientation``.

    Args:
        orientation: Directions in the body, such as ``"LPS"``, or ``"LP"`` for an image.
        spacing: Distances in mm along these axes; a missing third counts as 1 mm.
    """
    axes = [next(i for i, ends in enumerate(_AXES) if end in ends) for end in orientation]
    axes += [axis for axis in range(3) if axis not in axes]
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for column, (axis, mm) in enumerate(zip(axes, [*spacing, 1.0][:3], strict=True)):
        against = column < len(orientation) and orientation[column] == _AXES[axis][0]
        affine[axis, column] = -mm if against else mm
    return affine


def corners(affine: Affine, spatial_shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the world positions in mm, ``(2**dims, 3)``, of the corner voxels' centres."""
    ends = [(0, size - 1) for size in spatial_shape] + [(0,)] * (3 - len(spatial_shape))
    grid = np.stack(np.meshgrid(*ends, indexing="ij"), axis=-1).reshape(-1, 3)
    return np.asarray(grid @ affine[:3, :3].T + affine[:3, 3])


def corner_distance(
    affine_a: Affine, shape_a: Sequence[int], affine_b: Affine, shape_b: Sequence[int]
) -> float:
    """Return how far apart, in mm, the worst pair of matching corners of two grids lies."""
    gap = corners(affine_a, shape_a) - corners(affine_b, shape_b)
    return float(np.linalg.norm(gap, axis=1).max())


def check_same_grid(
    affine_a: Affine, shape_a: Sequence[int], affine_b: Affine, shape_b: Sequence[int], what: str
) -> None:
    """Check that two arrays lie on one grid.

    Args:
        affine_a: Affine of the first.
        shape_a: Its size in voxels.
        affine_b: Affine of the second.
        shape_b: Its size in voxels.
        what: The two files, as the start of the message.

    Raises:
        GeometryError: Sizes differ, or a corner is off by more than the tolerance.
    """
    if tuple(shape_a) != tuple(shape_b):
        raise GeometryError(
            f"{what}: sizes differ, {_size(shape_a)} and {_size(shape_b)} voxels.",
            remedy="Resample one onto the other's grid, or pair the right files.",
        )
    distance = corner_distance(affine_a, shape_a, affine_b, shape_b)
    tolerance = max(GRID_TOLERANCE_MM, 0.01 * min(spacing_of(affine_a, len(shape_a))))
    if distance > tolerance:
        raise GeometryError(
            f"{what}: positions differ by {distance:.3g} mm at a corner, "
            f"{tolerance:.3g} mm is allowed.",
            remedy="Correct the header of one, or resample it onto the other's grid.",
        )


def orientation_of(affine: Affine, spatial_dims: int = 3) -> str:
    """Return the body direction nearest to each array axis, such as ``"RAS"`` or ``"LPI"``."""
    return "".join(
        _AXES[axis][int(sign > 0)] for axis, sign in _nearest_axes(affine)[:spatial_dims]
    )


@dataclass(frozen=True)
class Reorientation:
    """A permutation and flipping of array axes, exactly invertible; no voxel value changes."""

    axes: tuple[int, ...]
    """Source array axis of each target axis."""
    flips: tuple[bool, ...]
    """Whether each target axis runs against its source axis."""

    def apply(self, array: NDArray[Any]) -> NDArray[Any]:
        """Reorient an array ``(C, *S)``; a view where possible."""
        moved = array.transpose(0, *(axis + 1 for axis in self.axes))
        return moved[(slice(None), *(slice(None, None, -1 if flip else 1) for flip in self.flips))]

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """Bring a reoriented array ``(C, *S)`` back to its source order."""
        unflipped = array[
            (slice(None), *(slice(None, None, -1 if flip else 1) for flip in self.flips))
        ]
        return unflipped.transpose(0, *(int(axis) + 1 for axis in np.argsort(self.axes)))

    def affine(self, affine: Affine, spatial_shape: Sequence[int]) -> Affine:
        """Return the affine of the reoriented array, given the source's affine and shape."""
        moved = affine.copy()
        for target, (source, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            column = affine[:3, source]
            moved[:3, target] = -column if flip else column
            if flip:
                moved[:3, 3] += column * (spatial_shape[source] - 1)
        return moved


def reorientation(affine: Affine, target: str) -> Reorientation:
    """Return how to reorder array axes so that they run nearest to ``target``, such as ``"RAS"``.

    2D images pass a target of two letters and keep their plane.

    Raises:
        GeometryError: ``target`` names one body axis twice or an unknown direction, or no array
            axis runs along one of them.
    """
    wanted = [axis for code in target for axis, pair in enumerate(_AXES) if code in pair]
    if not len(target) == len(wanted) == len(set(wanted)):
        raise GeometryError(f"orientation {target!r} is not one letter each of L/R, P/A and I/S.")
    have = _nearest_axes(affine)[: len(target)]
    axes, flips = [], []
    for code, body_axis in zip(target, wanted, strict=True):
        source = next((i for i, (axis, _) in enumerate(have) if axis == body_axis), None)
        if source is None:
            found = orientation_of(affine, len(target))
            raise GeometryError(
                f"axes run {found}; none of them runs along {code!r} of {target!r}."
            )
        axes.append(source)
        flips.append((have[source][1] > 0) != (_AXES[body_axis].index(code) == 1))
    return Reorientation(axes=tuple(axes), flips=tuple(flips))


def resampled_grid(
    affine: Affine, spatial_shape: Sequence[int], target_spacing: Sequence[float]
) -> tuple[Affine, tuple[int, ...]]:
    """Return the affine and shape of the grid that covers the same box at another spacing.

    Voxels are boxes around their centres; both grids share the outer faces of the box as nearly as
    whole numbers of voxels allow, and exactly its middle, so that going there and back does not
    shift anything. An axis whose spacing is right to 1 in 10 000 is left alone.

    Raises:
        GeometryError: ``target_spacing`` is not one positive number of mm per axis.
    """
    dims = len(spatial_shape)
    spacing = np.array(spacing_of(affine, dims))
    target = np.asarray(target_spacing, dtype=np.float64)
    if target.shape != (dims,) or not (np.isfinite(target) & (target > 0)).all():
        raise GeometryError(f"target spacing {_mm(target)} mm: {dims} positive numbers are needed.")
    ratio = np.where(np.isclose(spacing, target, rtol=SAME_SPACING, atol=0), 1.0, target / spacing)
    shape = np.maximum(1, np.round(np.array(spatial_shape) / ratio)).astype(int)
    moved = affine.copy()
    moved[:3, :dims] = affine[:3, :dims] * ratio
    middle = (np.array(spatial_shape) - 1) / 2 - ratio * (shape - 1) / 2
    moved[:3, 3] += affine[:3, :dims] @ middle
    return moved, tuple(int(size) for size in shape)


def _nearest_axes(affine: Affine) -> list[tuple[int, float]]:
    """Pair each array axis with the body axis nearest to it, each used once, and its sign."""
    direction = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    strength = np.abs(direction)
    pairs: dict[int, tuple[int, float]] = {}
    for _ in range(3):
        body, axis = np.unravel_index(int(np.argmax(strength)), strength.shape)
        pairs[int(axis)] = (int(body), float(direction[body, axis]))
        strength[body, :] = -1
        strength[:, axis] = -1
    return [pairs[axis] for axis in range(3)]


def _mm(lengths: Sequence[float] | NDArray[np.float64]) -> str:
    return " x ".join(f"{length:.4g}" for length in lengths)


def _size(shape: Sequence[int]) -> str:
    return " x ".join(str(size) for size in shape)

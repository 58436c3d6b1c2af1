"""How a training patch lies in its case: bent, turned, zoomed and mirrored, at random."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import isclose

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lamina.data.augment import Augmentation
from lamina.geometry import SAME_SPACING


@dataclass(frozen=True, kw_only=True)
class Motion:
    """How a patch lies in its case: bent, turned and zoomed about its centre, then mirrored."""

    matrix: NDArray[np.float64] | None = None
    """From offsets in the patch to offsets in the case, in mm; ``None``: voxel by voxel."""
    shifts: NDArray[np.float32] | None = None
    """Shifts of the control points in mm, ``(dims, *grid)``, made before ``matrix``."""
    grid_mm: float = 1.0
    """Distance of the control points."""
    flips: tuple[int, ...] = ()
    """Spatial axes that run backwards."""
    turn: tuple[int, int, int] | None = None
    """Quarter turns, from which spatial axis, to which."""


def draw_motion(
    how: Augmentation,
    patch_size: Sequence[int],
    spacing: Sequence[float],
    mirror_axes: Sequence[int],
    rng: Generator,
) -> Motion:
    """Draw how a patch lies in its case.

    Args:
        how: Probabilities and ranges.
        patch_size: Voxels along each axis.
        spacing: Voxel size in mm, so that rotations keep anatomy in shape on anisotropic grids.
        mirror_axes: Spatial axes to mirror along, each with ``how.p_mirror``.
        rng: The patch's own generator.
    """
    dims = len(spacing)
    matrix = shifts = turn = None
    if rng.random() < how.p_affine:
        angles = np.deg2rad(rng.uniform(-how.rotation_deg, how.rotation_deg, 3))
        matrix = _rotation(angles, dims) / (1 + how.scale * rng.uniform(-1, 1))
    if rng.random() < how.p_elastic:
        grid = _control_points(patch_size, spacing, how.elastic_grid_mm)
        shifts = rng.uniform(-how.elastic_mm, how.elastic_mm, (dims, *grid)).astype(np.float32)
        matrix = np.eye(dims) if matrix is None else matrix
    flips = tuple(axis for axis in mirror_axes if rng.random() < how.p_mirror)
    planes = _square_planes(patch_size, spacing)
    if planes and rng.random() < how.p_quarter_turn:
        first, second = planes[rng.integers(len(planes))]
        turn = (int(rng.integers(1, 4)), first, second)
    return Motion(matrix=matrix, shifts=shifts, grid_mm=how.elastic_grid_mm, flips=flips, turn=turn)


def _control_points(
    patch_size: Sequence[int], spacing: Sequence[float], distance: float
) -> tuple[int, ...]:
    """Return how many control points a cubic spline over the patch needs along each axis."""
    sides = zip(patch_size, spacing, strict=True)
    return tuple(int((size - 1) * step // distance) + 4 for size, step in sides)


def _rotation(angles: NDArray[np.float64], dims: int) -> NDArray[np.float64]:
    """Return the rotation by angles in radians about the axes; 2D has the last one only."""
    matrix = np.eye(dims)
    planes = ((1, 2), (0, 2), (0, 1)) if dims == 3 else ((0, 1),)
    for angle, (a, b) in zip(angles[-len(planes) :], planes, strict=True):
        turn = np.eye(dims)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def _square_planes(patch_size: Sequence[int], spacing: Sequence[float]) -> list[tuple[int, int]]:
    """Return the pairs of axes along which a patch has as many voxels, of one size."""
    return [
        (a, b)
        for a, b in combinations(range(len(spacing)), 2)
        if patch_size[a] == patch_size[b] and isclose(spacing[a], spacing[b], rel_tol=SAME_SPACING)
    ]

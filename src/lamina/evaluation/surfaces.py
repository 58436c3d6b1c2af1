"""Distances between the surfaces of two masks.

The surface of a mask is the centres of those of its voxels that have a face neighbour outside it,
and what lies beyond the array is outside. A search tree over them gives the numbers of a distance
transform, but its cost follows the surface rather than the box around it.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from lamina.evaluation.comparison import Comparison, Mask

Points = NDArray[np.float64]
Distances = NDArray[np.float64]


def surface_distances(comparison: Comparison) -> tuple[Distances, Distances]:
    """Return how far each surface voxel is from the other surface, in the spacing's unit.

    Returns:
        Distances of the prediction's surface voxels ``(N,)``, then of the reference's ``(M,)``.
    """
    prediction, reference = (
        places(surface(mask), comparison.spacing)
        for mask in (comparison.prediction, comparison.reference)
    )
    return nearest(prediction, reference), nearest(reference, prediction)


def surface(mask: Mask) -> Mask:
    """Return the voxels ``(*S)`` of a mask that have a face neighbour outside it."""
    padded, inner = np.pad(mask, 1), mask.copy()
    middle = [slice(1, -1)] * mask.ndim
    for axis in range(mask.ndim):
        for shifted in (slice(None, -2), slice(2, None)):
            inner &= padded[(*middle[:axis], shifted, *middle[axis + 1 :])]
    return mask & ~inner


def places(marked: Mask, spacing: tuple[float, ...]) -> Points:
    """Return the positions ``(N, dims)`` of marked voxels, in the spacing's unit."""
    indices: tuple[NDArray[Any], ...] = np.unravel_index(np.flatnonzero(marked), marked.shape)
    return np.stack([index * size for index, size in zip(indices, spacing, strict=True)], axis=1)


def nearest(source: Points, target: Points, beyond: float = np.inf) -> Distances:
    """Return each source's distance ``(N,)`` to the nearest target; infinite from ``beyond`` on."""
    # Points of a grid make many ties, on which a balanced tree loses its time.
    tree = KDTree(target, compact_nodes=False, balanced_tree=False)
    found: Distances = tree.query(source, distance_upper_bound=beyond)[0]
    return found

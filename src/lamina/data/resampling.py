"""Resampling along the axes: each is a matrix, and a block needs only a few rows of it.

Splines, linear interpolation and smoothing are sums of neighbours with weights that are products,
one factor per axis. One matrix per axis therefore does all of them at once, in float32 and without
copies of the scan, and memory does not grow with the number of classes.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Weights = Sequence[NDArray[np.float32]]
"""One matrix ``(voxels, samples)`` per axis."""
_Slices = tuple[slice, ...]

_BLOCK_VOXELS = 100_000
"""Voxels that are resampled at a time; the processor's cache holds them."""

_NEGLIGIBLE = 1e-8
"""Weight that float32 does not tell; a spline depends a little on every voxel of its line."""


@lru_cache(maxsize=12)
def axis_weights(size: int, step: float, count: int, order: int) -> NDArray[np.float32]:
    """Return what each of ``size`` voxels adds to each of ``count`` samples, ``(size, count)``.

    Samples are ``step`` voxels apart, middles aligned, the scan continued at its edges.
    """
    offset = (size - 1) / 2 - step * (count - 1) / 2
    # Without smoothing, every other voxel of a finer scan would be skipped and its noise kept.
    sigma = max(0.0, (step - 1) / 2)
    weights = np.empty((size, count), np.float32)
    unit = np.zeros(size)
    for place, row in enumerate(weights):
        unit[:] = 0
        unit[place] = 1
        smooth = ndimage.gaussian_filter1d(unit, sigma, mode="nearest") if sigma > 0 else unit
        row[:] = ndimage.affine_transform(
            smooth, [step], offset, (count,), order=order, mode="nearest"
        )
    weights[np.abs(weights) < _NEGLIGIBLE] = 0
    weights.flags.writeable = False
    return weights


def blocks(weights: Weights) -> Iterator[tuple[_Slices, _Slices, Weights]]:
    """Cut what is resampled to into blocks, with the part of the array that each depends on."""
    axes = []
    for matrix, targets in zip(weights, _pieces([m.shape[1] for m in weights]), strict=True):
        used = [np.flatnonzero(matrix[:, target].any(axis=1)) for target in targets]
        axes.append([(t, slice(u[0], u[-1] + 1)) for t, u in zip(targets, used, strict=True)])
    for pairs in product(*axes):
        target, source = zip(*pairs, strict=True)
        cut = [matrix[s, t] for matrix, t, s in zip(weights, target, source, strict=True)]
        yield target, source, cut


def same_blocks(shape: Sequence[int]) -> Iterator[tuple[_Slices, _Slices, Weights]]:
    """Cut an array that is not resampled into blocks, as :func:`blocks` does, without weights."""
    for target in product(*_pieces(shape)):
        yield target, target, ()


def _pieces(shape: Sequence[int]) -> list[list[slice]]:
    """Return the parts of each axis."""
    edge = round(_BLOCK_VOXELS ** (1 / len(shape)))
    return [
        [slice(start, min(start + edge, size)) for start in range(0, size, edge)] for size in shape
    ]


def weighted(array: NDArray[Any], weights: Weights) -> NDArray[Any]:
    """Resample ``(*S)``, one axis after the other."""
    for matrix in weights:
        array = np.tensordot(array, matrix, (0, 0))  # the new axis comes last
    return array

"""Resampling along the axes: each is a matrix, and a block needs only a few rows of it.

Splines, linear interpolation and smoothing are sums of neighbours with weights that are products,
one factor per axis. One matrix per axis therefore does all of them at once, in float32 and without
copies of the scan, and memory does not grow with the number of classes.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Weights = Sequence[NDArray[np.float32]]
"""One matrix ``(voxels, samples)`` per axis."""
_Slices = tuple[slice, ...]

_BLOCK_VOXELS = 100_000
"""Voxels that are resampled at a time; the processor's cache holds them."""
_STREAMED_VOXELS = 16_384
"""The same for a block of all classes. Matrices are dense: smaller blocks multiply fewer zeros."""
_SLAB_ROWS = 16
"""Rows that are asked for at a time where blocks are walked along one axis."""

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


def blocks(
    weights: Weights, stream_axis: int | None = None
) -> Iterator[tuple[_Slices, _Slices, Weights]]:
    """Cut what is resampled to into blocks, with the part of the array that each depends on.

    Args:
        weights: One matrix per axis.
        stream_axis: Axis along which the blocks go forward; they are thin along it.
    """
    axes = [
        list(zip(targets, sources(matrix, targets), strict=True))
        for matrix, targets in zip(
            weights, _pieces([m.shape[1] for m in weights], stream_axis), strict=True
        )
    ]
    for pairs in _walked(axes, stream_axis or 0):
        target, source = zip(*pairs, strict=True)
        cut = [matrix[s, t] for matrix, t, s in zip(weights, target, source, strict=True)]
        yield target, source, cut


def same_blocks(
    shape: Sequence[int], stream_axis: int | None = None
) -> Iterator[tuple[_Slices, _Slices, Weights]]:
    """Cut an array that is not resampled into blocks, as :func:`blocks` does, without weights."""
    for target in _walked(_pieces(shape, stream_axis), stream_axis or 0):
        yield target, target, ()


def same_rows(size: int) -> int:
    """Return the most rows of a block along ``stream_axis`` where nothing is resampled."""
    return min(size, _SLAB_ROWS)


def slab_rows(matrix: NDArray[np.float32]) -> int:
    """Return the most rows that a block depends on along its ``stream_axis``."""
    needed = sources(matrix, _cut(matrix.shape[1], _SLAB_ROWS))
    return int(max(part.stop - part.start for part in needed))


def sources(matrix: NDArray[np.float32], targets: Sequence[slice]) -> list[slice]:
    """Return the voxels that each part of the samples of an axis depends on."""
    used = [np.flatnonzero(matrix[:, target].any(axis=1)) for target in targets]
    return [slice(int(u[0]), int(u[-1]) + 1) for u in used]


def _walked(axes: Sequence[Sequence[Any]], outermost: int) -> Iterator[tuple[Any, ...]]:
    """Yield each combination of one entry per axis; those of ``outermost`` change last."""
    inner = [entries for axis, entries in enumerate(axes) if axis != outermost]
    for entry in axes[outermost]:
        for others in product(*inner):
            yield (*others[:outermost], entry, *others[outermost:])


def _pieces(shape: Sequence[int], stream_axis: int | None) -> list[list[slice]]:
    """Return the parts of each axis."""
    edge = max(1, round(_BLOCK_VOXELS ** (1 / len(shape))))
    if stream_axis is None:
        return [_cut(size, edge) for size in shape]
    wide = max(1, round((_STREAMED_VOXELS / _SLAB_ROWS) ** (1 / (len(shape) - 1))))
    return [
        _cut(size, _SLAB_ROWS if axis == stream_axis else wide) for axis, size in enumerate(shape)
    ]


def _cut(size: int, edge: int) -> list[slice]:
    return [slice(start, min(start + edge, size)) for start in range(0, size, edge)]


def weighted(array: NDArray[Any], weights: Weights) -> NDArray[Any]:
    """Resample the last axes of an array, ``(*S)`` or ``(K, *S)``, one after the other."""
    for axis, matrix in enumerate(weights, start=array.ndim - len(weights)):
        before, rest = array.shape[:axis], array.shape[axis + 1 :]
        if rest:  # which lies together, and is one axis of the product
            together = array.reshape(*before, -1, prod(rest))
            array = (matrix.T @ together).reshape(*before, -1, *rest)
        else:
            array = array @ matrix
    return array

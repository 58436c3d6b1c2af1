"""A network applied window by window to an image, its logits kept no longer than they are needed.

Windows are taken in the order of the rows that they touch. A row that no later window touches is
finished; who reads the logits goes along the same axis, and what lies behind is forgotten. At any
time there are logits of about one window's depth, whatever the size of the image.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lamina.inference.windows import Start, Tiling, cut, importance

Network = Callable[[NDArray[np.float32]], NDArray[Any]]
"""``(B, C, *S) -> (B, K, *S)`` logits: a wrapped torch module, an exported graph, a test double."""

_Box = tuple[slice, ...]
_CACHED_VALUES = 1 << 18
"""Values that are multiplied before they are added."""


class SlidingWindow:
    """Logits ``(K, *S)`` of a whole image, read like an array, in order along one axis.

    ``logits[:, i0:i1, j0:j1, k0:k1]`` runs the network on the windows that those voxels lie in, as
    far as it has not. Along the tiling's ``stream_axis`` no box may begin before an earlier one
    did, nor be longer than its ``max_rows``. What is returned is only valid until the next reading.

    Args:
        network: Applied to ``(n, C, *roi_size)``, float32.
        image: ``(C, *S)``. Where it is smaller than the window it is continued at its edges.
        tiling: The windows.
        blending: Weights of a window's voxels where windows overlap: falling towards its edges, or
            equal.
        slice_axis: Spatial axis along which the window is 1 voxel and which the network does not
            see.
        progress: Called with windows done and windows in all.
        threads: That add windows up, class by class.
    """

    def __init__(
        self,
        network: Network,
        image: NDArray[np.float32],
        tiling: Tiling,
        *,
        blending: Literal["gaussian", "constant"] = "gaussian",
        slice_axis: int | None = None,
        progress: Callable[[int, int], None] | None = None,
        threads: int = 1,
    ) -> None:
        self.tiling = tiling
        self.has_nan = False
        """Whether a logit that was finished is no number."""
        self._network = network
        self._image = image
        self._slice_axis = slice_axis
        self._progress = progress
        self._threads = threads
        self._weights = importance(tiling.roi_size, blending)
        self._groups = deque(tiling.groups())
        self._sums = self._totals = np.empty(0, np.float32)
        self._first = self._finished = self._windows_done = 0
        self._constant: tuple[bytes, NDArray[Any]] | None = None

    def __getitem__(self, box: _Box) -> NDArray[np.float32]:
        """Return the logits of a box: a slice of all classes, then one slice per spatial axis."""
        axis = 1 + self.tiling.stream_axis
        rows = box[axis]
        self._forget(rows.start)
        while self._groups and self._groups[0][0][axis - 1] < rows.stop:
            for start, logits in self._predicted(self._groups.popleft()):
                self._add(start, logits)
        self._finish(rows.stop)
        parts = [
            self._sums[(*box[:axis], kept, *box[axis + 1 :])]
            for kept, _ in self._in_ring(rows.start, rows.stop)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis)

    def _forget(self, first: int) -> None:
        """Give the places of the rows before ``first`` to those that come."""
        if first < self._first:
            raise ValueError(f"rows from {first} are asked for, those before {self._first} gone.")
        if self._sums.size:
            for kept, _ in self._in_ring(self._first, first):
                self._sums[self._at(kept, 1)] = 0
                self._totals[self._at(kept)] = 0
        self._first = first

    def _finish(self, last: int) -> None:
        """Turn sums into means in the rows before ``last``, which no further window touches."""
        for kept, _ in self._in_ring(max(self._first, self._finished), last):
            means = self._sums[self._at(kept, 1)]
            means /= self._totals[self._at(kept)]
            self.has_nan = self.has_nan or bool(np.isnan(means.min()))
        self._finished = max(self._finished, last)

    def _add(self, start: Start, logits: NDArray[Any]) -> None:
        """Add one window's logits ``(K, *roi_size)``, as far as it lies in the image."""
        if not self._sums.size:
            self._allocate(len(logits))
        sizes = self._image.shape[1:]
        inside = [
            slice(max(0, first), min(first + side, size))
            for first, side, size in zip(start, self.tiling.roi_size, sizes, strict=True)
        ]
        axis, own = self.tiling.stream_axis, [part.start for part in inside]
        for kept, rows in self._in_ring(max(own[axis], self._first), inside[axis].stop):
            there = (*inside[:axis], kept, *inside[axis + 1 :])
            inside[axis] = rows
            here = tuple(
                slice(part.start - first, part.stop - first)
                for part, first in zip(inside, start, strict=True)
            )
            weights = self._weights[here]
            sums, added = self._sums[(slice(None), *there)], logits[(slice(None), *here)]
            add, of_classes = partial(_add_weighted, weights), zip(sums, added, strict=True)
            if self._threads < 2:
                for of_class in of_classes:
                    add(of_class)
            else:
                with ThreadPoolExecutor(self._threads) as pool:
                    list(pool.map(add, of_classes))
            self._totals[there] += weights

    def _allocate(self, num_classes: int) -> None:
        axis, sizes = self.tiling.stream_axis, [*self.tiling.slab_shape]
        self._totals = np.zeros(sizes, np.float32)
        if self.tiling.roi_size[axis] > 1:
            self._sums = np.zeros((num_classes, *sizes), np.float32)
            return
        # A slice is added as a whole: it must lie together.
        stacked = (sizes.pop(axis), num_classes, *sizes)
        self._sums = np.moveaxis(np.zeros(stacked, np.float32), 0, 1 + axis)

    def _in_ring(self, first: int, last: int) -> Iterator[tuple[slice, slice]]:
        """Yield where rows are kept, and which they are; there is a break where the ring closes."""
        capacity = self.tiling.slab_shape[self.tiling.stream_axis]
        while first < last:
            place = first % capacity
            count = min(last - first, capacity - place)
            yield slice(place, place + count), slice(first, first + count)
            first += count

    def _at(self, rows: slice, leading: int = 0) -> _Box:
        return (*[slice(None)] * (leading + self.tiling.stream_axis), rows)

    def _predicted(self, group: list[Start]) -> Iterator[tuple[Start, NDArray[Any]]]:
        """Yield windows in their order, each with its logits ``(K, *roi_size)``."""
        for windows in self._batches(group):
            tiles = [tile for _, tile, value in windows if value is None]
            found = iter(self._apply(np.stack(tiles)) if tiles else ())
            for start, tile, value in windows:
                yield start, next(found) if value is None else self._of_constant(tile, value)
            self._windows_done += len(windows)
            if self._progress is not None:
                self._progress(self._windows_done, self.tiling.num_windows)

    def _batches(
        self, group: list[Start]
    ) -> Iterator[list[tuple[Start, NDArray[np.float32], bytes | None]]]:
        """Yield windows in their order; of those that are not constant, one batch at a time."""
        batch, count = [], 0
        for start in group:
            tile = cut(self._image, start, self.tiling.roi_size)
            value = _value_of(tile)
            batch.append((start, tile, value))
            count += value is None
            if count == self.tiling.sw_batch_size:
                yield batch
                batch, count = [], 0
        if batch:
            yield batch

    def _of_constant(self, tile: NDArray[np.float32], value: bytes) -> NDArray[Any]:
        """Return the logits of a window of one value, such as air; all of them look the same."""
        if self._constant is None or self._constant[0] != value:
            self._constant = value, np.array(self._apply(tile[None])[0])
        return self._constant[1]

    def _apply(self, batch: NDArray[np.float32]) -> NDArray[Any]:
        if self._slice_axis is None:
            return self._network(batch)
        across = 2 + self._slice_axis
        return np.expand_dims(self._network(batch.squeeze(across)), across)


def _add_weighted(
    weights: NDArray[np.float32], of_class: tuple[NDArray[np.float32], NDArray[Any]]
) -> None:
    """Add weighted logits to sums, both ``(*S)``, part by part: the products stay in cache."""
    sums, logits = of_class
    rows = min(len(weights), max(1, _CACHED_VALUES // weights[0].size))
    products = np.empty((rows, *weights.shape[1:]), np.float32)
    for first in range(0, len(weights), rows):
        part = slice(first, first + rows)
        product = products[: len(weights[part])]
        np.multiply(logits[part], weights[part], out=product)
        sums[part] += product


def _value_of(tile: NDArray[np.float32]) -> bytes | None:
    """Return the one value of each channel of ``(C, *S)``; none where a channel has several."""
    first = tile[(slice(None), *[slice(0, 1)] * (tile.ndim - 1))]
    last = tile[(slice(None), *[slice(-1, None)] * (tile.ndim - 1))]
    if (first == last).all() and (tile == first).all():
        return first.tobytes()
    return None

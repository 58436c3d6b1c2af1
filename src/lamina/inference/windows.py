"""Where the windows of a sliding-window prediction lie, and what their voxels weigh.

The geometry is that of MONAI's ``SlidingWindowInferer``, against which it is tested.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_SIGMA = 0.125
"""Deviation of the Gaussian weights, in window sides."""
_LEAST = 1e-3
"""Weights do not fall below it, or a corner seen by one window would be a division of noise."""

Start = tuple[int, ...]


def stride_of(window: int, overlap: float) -> int:
    """Return the distance in voxels from one window to the next along an axis."""
    return max(1, int(window * (1 - overlap)))


def starts_along(size: int, window: int, overlap: float) -> list[int]:
    """Return where windows begin along an axis of ``size`` voxels, in order.

    The last is pushed back so that it ends with the image. An image smaller than the window lies in
    the middle of one, which then begins before it, at a negative place.
    """
    if size <= window:
        return [-((window - size) // 2)]
    stride = stride_of(window, overlap)
    count = 1 + -((size - window) // -stride)
    return [min(place * stride, size - window) for place in range(count)]


def importance(
    roi_size: Sequence[int], blending: Literal["gaussian", "constant"]
) -> NDArray[np.float32]:
    """Return the weight of each voxel of a window, ``roi_size``, float32."""
    weights = np.ones(tuple(roi_size), np.float32)
    if blending == "gaussian":
        for axis, side in enumerate(roi_size):
            away = np.arange(side, dtype=np.float32) - np.float32((side - 1) / 2)
            bell = np.exp(away**2 / np.float32(-2 * (_SIGMA * side) ** 2))
            weights *= bell.reshape([-1 if other == axis else 1 for other in range(len(roi_size))])
    return np.maximum(weights, max(float(weights.min()), _LEAST))


def cut(image: NDArray[np.float32], start: Start, roi_size: Sequence[int]) -> NDArray[np.float32]:
    """Return the window ``(C, *roi_size)`` of an image ``(C, *S)``, continued at its edges."""
    sizes = image.shape[1:]
    ends = [(first, first + side) for first, side in zip(start, roi_size, strict=True)]
    inside = [
        slice(max(0, first), min(last, size))
        for (first, last), size in zip(ends, sizes, strict=True)
    ]
    window = image[(slice(None), *inside)]
    beyond = [
        (part.start - first, last - part.stop)
        for (first, last), part in zip(ends, inside, strict=True)
    ]
    return np.pad(window, [(0, 0), *beyond], mode="edge") if any(map(any, beyond)) else window


@dataclass(frozen=True, kw_only=True)
class Tiling:
    """Which windows an image is seen through, and in which order.

    The rows along one axis are gone through once; a row is finished when no further window touches
    it.
    """

    spatial_shape: tuple[int, ...]
    """Of the image."""
    roi_size: tuple[int, ...]
    """Window in voxels; may be larger than the image."""
    overlap: float
    """Share by which neighbouring windows overlap, 0 to below 1."""
    stream_axis: int
    """Axis whose rows are gone through."""
    max_rows: int
    """The most of them that are asked for at a time."""
    sw_batch_size: int
    """Windows that go through the network at a time."""

    @classmethod
    def thinnest(
        cls,
        spatial_shape: tuple[int, ...],
        roi_size: tuple[int, ...],
        overlap: float,
        rows: Callable[[int], int],
        sw_batch_size: int,
    ) -> "Tiling":
        """Choose the axis along which the fewest voxels of logits exist at a time.

        Args:
            spatial_shape: Of the image.
            roi_size: Window in voxels.
            overlap: As above.
            rows: Returns how many are asked for at a time along an axis.
            sw_batch_size: As above.
        """
        options = [
            cls(
                spatial_shape=spatial_shape,
                roi_size=roi_size,
                overlap=overlap,
                stream_axis=axis,
                max_rows=rows(axis),
                sw_batch_size=sw_batch_size,
            )
            for axis in range(len(spatial_shape))
        ]
        return min(options, key=lambda tiling: prod(tiling.slab_shape))

    @cached_property
    def starts(self) -> list[list[int]]:
        """Where windows begin along each axis."""
        sides = zip(self.spatial_shape, self.roi_size, strict=True)
        return [starts_along(size, side, self.overlap) for size, side in sides]

    @property
    def num_windows(self) -> int:
        """Windows in all."""
        return prod(map(len, self.starts))

    @cached_property
    def layers_together(self) -> int:
        """Layers of windows whose batches are shared.

        A batch must not reach far ahead, for all rows that it touches are kept; but where a layer
        has few windows, such as a slice in one piece, a batch takes several layers.
        """
        layer = self.num_windows // len(self.starts[self.stream_axis])
        return min(len(self.starts[self.stream_axis]), max(1, self.sw_batch_size // layer))

    def groups(self) -> Iterator[list[Start]]:
        """Yield windows in the order of their rows, those together that share batches."""
        axis, together = self.stream_axis, self.layers_together
        across = [places for other, places in enumerate(self.starts) if other != axis]
        rows = self.starts[axis]
        for first in range(0, len(rows), together):
            yield [
                (*place[:axis], row, *place[axis:])
                for row in rows[first : first + together]
                for place in product(*across)
            ]

    @cached_property
    def slab_shape(self) -> tuple[int, ...]:
        """Size of the logits that exist at a time."""
        axis, sizes = self.stream_axis, [*self.spatial_shape]
        ahead = (self.layers_together - 1) * stride_of(self.roi_size[axis], self.overlap)
        sizes[axis] = min(sizes[axis], self.max_rows + self.roi_size[axis] + ahead)
        return tuple(sizes)

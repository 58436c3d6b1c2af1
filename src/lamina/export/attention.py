"""Attention maps drawn by an exported transformer, as :mod:`lamina.models.vit` draws them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lamina.data.slices import intensity_range, to_unit
from lamina.export.targets import Network

_BATCH = 8
_EVEN = 1e-5
"""Relative spread below which a map is the same everywhere, but for rounding."""


@dataclass(frozen=True, kw_only=True)
class MapDrawer:
    """A transformer's graph with what surrounds it."""

    graph: Network
    """Slices ``(B, C, size, size)`` -> shares of attention ``(B, h, size / t, size / t)``."""
    mean: tuple[float, ...]
    """Of each channel that it takes, grey values being 0 to 1; subtracted."""
    std: tuple[float, ...]
    """Divisor of each."""
    size: int
    """Sides in pixels to which slices are brought for it."""
    upsample: Literal["nearest", "bilinear"]
    """How maps are brought from tokens to ``size``."""
    axis: int | None
    """Across the slices; ``None`` where the scan is one."""

    @classmethod
    def of(cls, description: Mapping[str, Any], graph: Network, axis: int | None) -> "MapDrawer":
        """Take the settings from what a bundle says of its transformer."""
        return cls(
            graph=graph,
            mean=tuple(description["mean"]),
            std=tuple(description["std"]),
            size=description["size"],
            upsample=description["upsample"],
            axis=axis,
        )

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Return the maps ``(h, *S)``, 0 to 255 each, of a prepared scan ``(C, *S)``."""
        limits = intensity_range(image)
        stack = image[None] if self.axis is None else np.moveaxis(image, 1 + self.axis, 0)
        parts = []
        for first in range(0, len(stack), _BATCH):
            flats = [
                self._coloured(to_unit(flat, limits)) for flat in stack[first : first + _BATCH]
            ]
            parts.append(self._maps(np.stack(flats)))
        drawn = np.concatenate(parts)
        return drawn[0] if self.axis is None else np.moveaxis(drawn, 0, 1 + self.axis)

    def _coloured(self, flat: NDArray[np.float32]) -> NDArray[np.float32]:
        """Bring a slice ``(C, H, W)``, 0 to 1, to the colours the transformer was trained on."""
        if len(flat) != len(self.mean):
            flat = np.repeat(flat.mean(axis=0, keepdims=True), len(self.mean), axis=0)
        mean, std = np.array([self.mean, self.std], np.float32)[..., None, None]
        return np.asarray((flat - mean) / std, np.float32)

    def _maps(self, flats: NDArray[np.float32]) -> NDArray[np.uint8]:
        square = (self.size, self.size)
        maps = self.graph(resized(flats, square, _triangle(smooth=False)))
        smooth = self.upsample == "bilinear"
        maps = resized(maps, square, _triangle(smooth=False) if smooth else _nearest)
        maps = resized(maps, flats.shape[2:], _triangle(smooth=True))
        low, high = maps.min((2, 3), keepdims=True), maps.max((2, 3), keepdims=True)
        spread = high - low
        even = spread <= _EVEN * high
        unit = np.where(even, 0, (maps - low) / np.where(even, 1, spread))
        return (255 * unit).round().astype(np.uint8)


Weights = Callable[[int, int], NDArray[np.float32]]
"""``(size, count)`` -> what each of ``size`` pixels adds to each of ``count``, as a matrix."""


def resized(
    images: NDArray[np.float32], shape: tuple[int, ...], weights: Weights
) -> NDArray[np.float32]:
    """Bring ``(B, C, H, W)`` to ``(B, C, *shape)``; the grids share their edges."""
    height, width = images.shape[2:]
    if (height, width) == shape:
        return images
    rows, columns = weights(height, shape[0]), weights(width, shape[1])
    return np.asarray(rows.T @ images @ columns, np.float32)


@lru_cache(maxsize=2)
def _triangle(*, smooth: bool) -> Weights:
    """Interpolate linearly; ``smooth``: over as many pixels as become one."""

    def weights(size: int, count: int) -> NDArray[np.float32]:
        step = size / count
        reach = max(step, 1.0) if smooth else 1.0
        places = (np.arange(count) + 0.5) * step
        distance = np.abs(np.arange(size)[:, None] + 0.5 - places.clip(0.5, size - 0.5)) / reach
        found = (1 - distance).clip(0)
        return np.asarray(found / found.sum(axis=0), np.float32)

    return weights


def _nearest(size: int, count: int) -> NDArray[np.float32]:
    places = (np.arange(count) * size) // count
    return np.asarray(np.arange(size)[:, None] == places, np.float32)

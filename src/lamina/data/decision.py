"""From logits to class indices, or to probabilities."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.data.resampling import Weights, weighted

Drawing = Sequence[tuple[int, int]]
"""Where channels are regions: pairs (channel, class index to draw where its logit is above 0), in
order, as :attr:`lamina.labels.LabelSet.region_drawing` has them."""


def decided(
    logits: NDArray[Any], weights: Weights = (), drawing: Drawing | None = None
) -> NDArray[Any]:
    """Turn logits ``(K, *S)`` into class indices.

    Args:
        logits: Of classes, of which the largest wins, or of regions.
        weights: One matrix per axis, to resample each channel; none leaves it as it is.
        drawing: Of regions.

    Returns:
        Indices of the resampled size, or a single one where it holds everywhere.
    """
    if drawing is None:
        likely = _that_may_win(logits)
        return largest(likely, weighted(logits[likely], weights) if len(likely) > 1 else ())
    full = weighted(np.ascontiguousarray(logits), weights)
    indices = np.zeros(full.shape[1:], np.uint8)
    for channel, index in drawing:
        indices[full[channel] > 0] = index
    return indices


def to_probabilities(logits: NDArray[np.float32], exclusive: bool) -> NDArray[np.float32]:
    """Turn logits ``(K, *S)`` into probabilities, in place.

    Args:
        logits: Float32.
        exclusive: Whether just one class is true (soft-max), or each region by itself (sigmoid).
    """
    if exclusive:
        logits -= logits.max(axis=0)
        np.exp(logits, out=logits)
        logits /= logits.sum(axis=0)
        return logits
    np.tanh(np.multiply(logits, 0.5, out=logits), out=logits)  # a sigmoid that cannot overflow
    logits += 1
    logits *= 0.5
    return logits


def largest(names: NDArray[Any], channels: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Return, voxel by voxel, the name of the largest of as many channels as there are names.

    Args:
        names: Of up to 256 channels, 0 to 255.
        channels: One after the other; where several are largest, the first wins.
    """
    if len(names) == 1:
        return names
    rest = iter(channels)
    best = np.array(next(rest))
    winner, places = np.zeros((2, *best.shape), np.uint8)
    larger = np.empty(best.shape, np.bool_)
    for index, channel in enumerate(rest, start=1):
        # Indices rise, so that the largest of them stays; masked assignment is five times slower.
        np.greater(channel, best, out=larger)
        np.multiply(larger.view(np.uint8), np.uint8(index), out=places)
        np.maximum(winner, places, out=winner)
        np.maximum(best, channel, out=best)
    return np.asarray(names.astype(np.uint8)[winner])


def _that_may_win(logits: NDArray[Any]) -> NDArray[np.intp]:
    """Return the channels that can be largest somewhere between the voxels of ``(K, *S)``."""
    axes = tuple(range(1, logits.ndim))
    return np.flatnonzero(~(logits.max(axes) < logits.min(axes).max()))

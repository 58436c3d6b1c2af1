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
        return largest(likely, (weighted(logits[index], weights) for index in likely))
    indices = np.zeros([m.shape[1] for m in weights] or logits.shape[1:], np.uint8)
    for channel, index in drawing:
        indices[weighted(logits[channel], weights) > 0] = index
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
    """Return, voxel by voxel, the name of the largest of as many channels as there are names."""
    if len(names) == 1:
        return names
    best: NDArray[Any] | None = None
    for index, channel in enumerate(channels):
        if best is None:
            best, winner = np.array(channel), np.zeros(channel.shape, np.intp)
        else:
            larger = channel > best
            winner[larger] = index
            best[larger] = channel[larger]
    return np.asarray(names[winner])


def _that_may_win(logits: NDArray[Any]) -> NDArray[np.intp]:
    """Return the channels that can be largest somewhere between the voxels of ``(K, *S)``."""
    axes = tuple(range(1, logits.ndim))
    return np.flatnonzero(~(logits.max(axes) < logits.min(axes).max()))

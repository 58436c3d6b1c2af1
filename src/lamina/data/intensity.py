"""Intensities: voxels that are no numbers are mended, and channels brought to a common scale."""

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lamina.data.plan import Normalisation
from lamina.errors import DatasetError

log = logging.getLogger(__name__)


def normalise(
    image: NDArray[np.float32],
    normalisation: Sequence[Normalisation],
    source: str,
    out: NDArray[np.float32] | None = None,
) -> NDArray[np.float32]:
    """Bring each channel of ``(C, *S)`` to a common scale.

    NaN and -inf become the channel's smallest finite value, +inf its largest, with a warning.

    Args:
        image: Float32.
        normalisation: One per channel.
        source: The scan's file, for messages.
        out: Array to fill, which may be ``image``; a new one by default.

    Raises:
        DatasetError: A channel has no finite voxel, or there is not one normalisation per channel.
    """
    if len(normalisation) != image.shape[0]:
        raise DatasetError(
            f"{source}: {image.shape[0]} channels, the model takes {len(normalisation)}.",
            remedy="Give the channels the model was trained on, in the same order.",
        )
    scaled = np.empty_like(image) if out is None else out
    for channel, filled, how in zip(image, scaled, normalisation, strict=True):
        np.copyto(filled, finite(channel, source))
        _scale(filled, how)
    return scaled


def finite(channel: NDArray[np.float32], source: str) -> NDArray[np.float32]:
    """Return the channel with NaN and infinite voxels replaced by its extreme finite values.

    Raises:
        DatasetError: No voxel is finite.
    """
    good = np.isfinite(channel)
    if good.all():
        return channel
    if not good.any():
        raise DatasetError(f"{source}: no voxel holds a finite number.")
    low, high = channel.min(where=good, initial=np.inf), channel.max(where=good, initial=-np.inf)
    log.warning("%s: %d voxels are NaN or infinite; replaced.", source, int((~good).sum()))
    return np.nan_to_num(channel, nan=low, neginf=low, posinf=high)


def _scale(channel: NDArray[np.float32], how: Normalisation) -> None:
    """Normalise ``(*S)`` in place; nothing of its size is made beside it in float64."""
    if how.scheme == "ct":
        np.clip(channel, how.low, how.high, out=channel)
        channel -= how.mean
        channel /= max(how.std, 1e-8)
    elif how.scheme == "zscore_nonzero":
        empty = channel == 0
        tissue = channel[~empty]
        deviation = tissue.std() if tissue.size else 0
        channel -= tissue.mean() if tissue.size else 0
        channel *= 1 / deviation if deviation > 0 else 0
        channel[empty] = 0
    else:
        low, high = np.percentile(channel, (0.5, 99.5))
        if low < high:  # a structure below 0.5 % of an even background must not be clipped away
            np.clip(channel, low, high, out=channel)
        mean = channel.mean(dtype=np.float64)
        squares = sum(np.square(part - mean, dtype=np.float64).sum() for part in channel)
        deviation = np.sqrt(squares / channel.size)
        # A constant image carries nothing to scale: it becomes zero rather than rounding noise.
        constant = deviation <= 1e-6 * max(abs(channel.min()), abs(channel.max()))
        for part in channel:
            part[:] = 0 if constant else (part - mean) / deviation

"""Scans slice by slice: which axis runs through them, and what is black and white in them."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lamina.data.plan import Plan


def coarsest_axis(spacing: Sequence[float]) -> int:
    """Return the axis of the largest spacing; the last one of those within 1 % of it."""
    coarsest = max(spacing)
    return max(axis for axis, step in enumerate(spacing) if step > 0.99 * coarsest)


def slice_axis(plan: Plan) -> int | None:
    """Return the prepared axis whose slices a 2D network sees; ``None`` where images are 2D.

    That of the plan, else the coarsest.
    """
    if plan.slice_axis is not None or plan.spatial_dims == 2:
        return plan.slice_axis
    return coarsest_axis(plan.target_spacing)


def intensity_range(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what counts as black and white in each channel of a scan: ``(C, *S) -> (C, 2)``."""
    rows = []
    for channel in image:
        low, high = np.percentile(channel, (0.5, 99.5))
        if low == high:  # a small structure on an even background must not be lost
            low, high = channel.min(), channel.max()
        rows.append((low, high if high > low else low + 1))
    return np.array(rows, np.float32)


def to_unit(image: NDArray[np.float32], limits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Bring ``(C, *S)`` to 0..1 between the limits ``(C, 2)``."""
    low, high = limits.T.reshape(2, -1, *[1] * (image.ndim - 1))
    return np.asarray(np.clip((image - low) / (high - low), 0, 1), np.float32)

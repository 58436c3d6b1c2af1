"""Probabilities around a structure, for metrics of how far they can be trusted."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from lamina.evaluation.comparison import Comparison, Mask

BINS = 20
"""Bins of equal width between 0 and 1."""
MARGIN = 3
"""Voxels by which the reference's box is widened: enough for doubts about an outline to count, and
no more, as background that nobody doubts would hide every fault. In voxels, so that scans and
pictures share one definition."""
WHERE = (
    f"over the reference's box widened by {MARGIN} voxels and predicted voxels beyond it; per "
    "voxel of that box, at most 1."
)
"""What the definitions of these metrics end with."""


@dataclass(frozen=True)
class Surroundings:
    """The voxels in which a structure's probabilities count."""

    probability: NDArray[np.float64]
    """``(N,)``"""
    there: Mask
    """``(N,)``: whether the voxel is of the structure."""
    box_voxels: int
    """Those of the box, which the reference alone decides."""

    def per_voxel(self, total: float) -> float:
        """Return a sum of errors per voxel of the box, at most 1.

        Per voxel of all that count, a false one that is less wrong than the mean would improve it.
        """
        return min(1.0, total / self.box_voxels)


def probabilities_around(comparison: Comparison) -> Surroundings:
    """Return the voxels in the reference's widened box, and those that are predicted beyond it.

    Voxels without a probability are left out. Where the reference is empty there is no box.
    """
    assert comparison.probability is not None, "a metric of calibration was asked without any"
    inside = np.zeros_like(comparison.reference)
    if comparison.referenced:
        box = find_objects(comparison.reference.view(np.uint8), 1)[0]
        inside[widened(box, inside.shape)] = True
    known = ~np.isnan(comparison.probability)
    counted = known & (inside | comparison.prediction)
    return Surroundings(
        probability=comparison.probability[counted].astype(np.float64),
        there=comparison.reference[counted],
        box_voxels=int(np.count_nonzero(known & inside)),
    )


def widened(box: Sequence[slice], shape: Sequence[int]) -> tuple[slice, ...]:
    """Return a box with ``MARGIN`` voxels more on each side, as far as the grid goes."""
    return tuple(
        slice(max(part.start - MARGIN, 0), min(part.stop + MARGIN, size))
        for part, size in zip(box, shape, strict=True)
    )


def reliability(around: Surroundings) -> NDArray[np.float64]:
    """Return ``(3, BINS)``: voxels, sum of their probabilities, and how many are the structure."""
    bins = np.minimum((around.probability * BINS).astype(np.int64), BINS - 1)
    weights = np.ones_like(around.probability), around.probability, around.there.astype(np.float64)
    return np.stack([np.bincount(bins, each, minlength=BINS) for each in weights])

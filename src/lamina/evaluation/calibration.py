"""Probabilities around a structure, for metrics of how far they can be trusted."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from lamina.evaluation.comparison import Comparison, Mask

BINS = 20
"""Bins of equal width between 0 and 1."""


def probabilities_around(comparison: Comparison) -> tuple[NDArray[np.float64], Mask]:
    """Return the structure's probability and whether it is there, ``(N,)`` each.

    They are those of the smallest box around both masks: over a whole scan, background that nobody
    doubts would hide every fault. Voxels without a probability are left out.
    """
    assert comparison.probability is not None, "a metric of calibration was asked without any"
    either = (comparison.prediction | comparison.reference).view(np.uint8)
    box = find_objects(either, 1)[0]
    probability = comparison.probability[box].astype(np.float64)
    known = ~np.isnan(probability)
    return probability[known], comparison.reference[box][known]


def reliability(probability: NDArray[np.float64], there: Mask) -> NDArray[np.float64]:
    """Return ``(3, BINS)``: voxels, sum of their probabilities, and how many are the structure."""
    bins = np.minimum((probability * BINS).astype(np.int64), BINS - 1)
    weights = np.ones_like(probability), probability, there.astype(np.float64)
    return np.stack([np.bincount(bins, each, minlength=BINS) for each in weights])

"""Lesions of two masks, and which of them meet (BraTS 2023, lesion-wise performance metrics).

The reference is one lesion wherever its parts meet after both are widened by ``WIDENING``, so that
fragments of one lesion do not count apart; parts of the prediction are its lesions as they are, and
belong to every lesion that they reach into when it is so widened. Neighbours share a corner. BraTS
widens by three steps on its grid of 1 mm, each to the neighbours across faces and edges; on other
grids an axis takes part in as many steps as come next to 3 mm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, find_objects, generate_binary_structure

from lamina.components import connected_parts
from lamina.evaluation.comparison import Comparison, Mask

WIDENING = 3
"""How far the reference is widened, in mm or pixels."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """Lesions of a reference, each with the parts of the prediction that reach it."""

    sizes: Counts
    """Voxels of each lesion ``(L,)``."""
    found: NDArray[np.bool_]
    """Whether any part of the prediction reaches the lesion ``(L,)``."""
    shared: Counts
    """Voxels of each lesion that are predicted ``(L,)``."""
    predicted: Counts
    """Voxels of all predicted parts that reach the lesion ``(L,)``, inside it or not."""
    invented: int
    """Predicted parts that reach no lesion."""


def lesions(comparison: Comparison) -> Lesions:
    """Find the lesions of both masks and which of them meet."""
    parts, part_sizes = connected_parts(comparison.prediction)
    num_parts = len(part_sizes) - 1
    near = _surroundings(comparison.reference, comparison.spacing)
    reference, reached = comparison.reference[near], parts[near]
    widened, widened_sizes = connected_parts(_widened(reference, comparison.spacing))
    of_lesion = {"minlength": len(widened_sizes)}
    meet = (reached > 0) & (widened > 0)
    pairs = np.unique(widened[meet].astype(np.int64) * (num_parts + 1) + reached[meet])
    lesion, part = pairs // (num_parts + 1), pairs % (num_parts + 1)
    return Lesions(
        sizes=np.bincount(widened[reference], **of_lesion)[1:],
        found=np.bincount(lesion, **of_lesion)[1:] > 0,
        shared=np.bincount(widened[reference & (reached > 0)], **of_lesion)[1:],
        predicted=np.bincount(lesion, part_sizes[part], **of_lesion)[1:].astype(np.int64),
        invented=num_parts - len(np.unique(part)),
    )


def _surroundings(mask: Mask, spacing: tuple[float, ...]) -> tuple[slice, ...]:
    """Return the box of all that a mask reaches when it is widened."""
    box = find_objects(mask.view(np.uint8), 1)[0]
    return tuple(
        slice(max(0, side.start - steps), side.stop + steps)
        for side, steps in zip(box, _steps(spacing), strict=True)
    )


def _steps(spacing: tuple[float, ...]) -> list[int]:
    """Return the steps of widening along each axis."""
    return [round(WIDENING / size) for size in spacing]


def _widened(mask: Mask, spacing: tuple[float, ...]) -> Mask:
    steps, done = _steps(spacing), 0
    for stop in sorted({*steps} - {0}):
        reach = generate_binary_structure(mask.ndim, 2)
        for axis, own in enumerate(steps):
            if own <= done:
                np.moveaxis(reach, axis, 0)[[0, 2]] = False
        mask = binary_dilation(mask, reach, iterations=stop - done)
        done = stop
    return mask

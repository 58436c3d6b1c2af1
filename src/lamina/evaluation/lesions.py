"""Lesions of two masks, and which of them meet (BraTS 2023, lesion-wise performance metrics).

The reference is one lesion wherever its parts meet after both are widened by ``WIDENING``, so that
fragments of one lesion do not count apart; parts of the prediction are its lesions as they are.
Neighbours share a corner. BraTS widens by three steps on its grid of 1 mm, each to the neighbours
across faces and edges; on other grids an axis takes part in as many steps as come next to 3 mm.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, generate_binary_structure

from lamina.evaluation.comparison import Comparison, Mask

WIDENING = 3
"""How far the reference is widened before its parts are told apart, in mm or pixels."""

Counts = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Lesions:
    """Lesions of a reference, each with the parts of the prediction that touch it."""

    sizes: Counts
    """Voxels of each lesion ``(L,)``."""
    shared: Counts
    """Voxels of each lesion that are predicted ``(L,)``."""
    predicted: Counts
    """Voxels of all predicted parts that touch the lesion ``(L,)``, inside it or not."""
    invented: int
    """Predicted parts that touch no lesion."""


def lesions(comparison: Comparison) -> Lesions:
    """Find the lesions of both masks and which of them meet."""
    found, num_found = _parts(comparison.prediction)
    wanted, num_wanted = _reference_lesions(comparison)
    both = comparison.prediction & comparison.reference
    pairs = wanted[both].astype(np.int64) * (num_found + 1) + found[both]
    keys, shared = np.unique(pairs, return_counts=True)
    lesion, part = keys // (num_found + 1), keys % (num_found + 1)
    part_sizes = np.bincount(found[comparison.prediction], minlength=num_found + 1)
    per_lesion = {"minlength": num_wanted + 1}
    return Lesions(
        sizes=np.bincount(wanted[comparison.reference], **per_lesion)[1:],
        shared=np.bincount(lesion, shared, **per_lesion)[1:].astype(np.int64),
        predicted=np.bincount(lesion, part_sizes[part], **per_lesion)[1:].astype(np.int64),
        invented=num_found - len(np.unique(part)),
    )


def _reference_lesions(comparison: Comparison) -> tuple[NDArray[np.uint32], int]:
    """Number the reference's voxels by lesion; widening tells which of its parts are one."""
    reference = comparison.reference
    parts, count = _parts(reference)
    if count == 1:
        return parts, 1
    wide, count = _parts(_widened(reference, comparison.spacing))
    return np.where(reference, wide, 0), count


def _parts(mask: Mask) -> tuple[NDArray[np.uint32], int]:
    """Number the parts of a mask from 1 on; voxels that share a corner are of one part."""
    import cc3d

    corners = 8 if mask.ndim == 2 else 26
    numbered, count = cc3d.connected_components(mask, connectivity=corners, return_N=True)
    return numbered, int(count)


def _widened(mask: Mask, spacing: tuple[float, ...]) -> Mask:
    steps = [round(WIDENING / size) for size in spacing]
    done = 0
    for stop in sorted({*steps} - {0}):
        reach = generate_binary_structure(mask.ndim, 2)
        for axis, own in enumerate(steps):
            if own <= done:
                np.moveaxis(reach, axis, 0)[[0, 2]] = False
        mask = binary_dilation(mask, reach, iterations=stop - done)
        done = stop
    return mask

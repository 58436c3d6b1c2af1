"""Connected parts of a mask: the pieces that a structure lies in."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def connected_parts(mask: NDArray[np.bool_]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Number the parts of a mask from 1 on; voxels that share a corner are of one part.

    Args:
        mask: ``(*S)`` of two or three axes.

    Returns:
        The part of each voxel ``(*S)``, 0 outside the mask, and the voxels of each part, by its
        number; that of 0 is 0.
    """
    import cc3d

    corners = 8 if mask.ndim == 2 else 26
    # Of 2D masks of truth values, cc3d 4.1 also numbers pixels that are not in the mask.
    numbered = cc3d.connected_components(mask.astype(np.uint8), connectivity=corners)
    sizes = np.array(cc3d.statistics(numbered)["voxel_counts"], np.int64)
    sizes[0] = 0
    return numbered, sizes

"""95th percentile Hausdorff distance (Huttenlocher et al., IEEE TPAMI 15(9), 1993).

Tools disagree on this number. Ours is the definition of MONAI's ``compute_hausdorff_distance``: the
surface is the centres of those voxels of the mask that have a face neighbour outside it; each
direction takes the 95th percentile (linear interpolation) of its own distances; the result is the
larger of the two. A search tree over surface points gives the numbers of a distance transform, but
its cost follows the surface rather than the box around it.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree

from lamina.evaluation.metrics import DIAGONAL_WHEN_WRONG, METRICS, Mask, Metric

PERCENTILE = 95


def hd95(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> float:
    """Return the larger of the two directed 95th percentiles of surface distances."""
    points = _surface(prediction, spacing), _surface(reference, spacing)
    return max(_directed(*points), _directed(*reversed(points)))


def _surface(mask: Mask, spacing: Sequence[float]) -> NDArray[np.float64]:
    """Return the centres, ``(N, dims)``, of the voxels that have a face neighbour outside."""
    points: NDArray[np.float64] = np.argwhere(mask & ~binary_erosion(mask)).astype(np.float64)
    return points * np.asarray(spacing, dtype=np.float64)


def _directed(source: NDArray[np.float64], target: NDArray[np.float64]) -> float:
    distances, _ = KDTree(target).query(source)
    return float(np.percentile(distances, PERCENTILE))


_HD95 = Metric(
    name="hd95",
    title="HD95",
    unit="mm",
    higher_is_better=False,
    definition="Larger of both directed 95th percentiles of distances between surface voxels.",
    empty=DIAGONAL_WHEN_WRONG,
    function=hd95,
)
METRICS.register("hd95")(replace(_HD95, in_pixels=replace(_HD95, name="hd95_px", unit="px")))

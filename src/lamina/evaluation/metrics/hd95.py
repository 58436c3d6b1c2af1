"""95th percentile Hausdorff distance (Huttenlocher et al., IEEE TPAMI 15(9), 1993).

Tools disagree on this number. Ours is the definition of MONAI's ``compute_hausdorff_distance``:
each direction takes the 95th percentile (linear interpolation) of its own distances between surface
voxels, and the result is the larger of the two.
"""

from dataclasses import replace

import numpy as np

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import DIAGONAL_WHEN_WRONG, METRICS, Metric
from lamina.evaluation.surfaces import surface_distances

PERCENTILE = 95


def hd95(comparison: Comparison) -> float:
    """Return the larger of the two directed 95th percentiles of surface distances."""
    found = comparison.part(surface_distances)
    return max(float(np.percentile(distances, PERCENTILE)) for distances in found)


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

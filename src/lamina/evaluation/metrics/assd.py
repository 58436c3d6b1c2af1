"""Average symmetric surface distance (Heimann et al., IEEE TMI 28(8), 2009).

All distances of both surfaces weigh alike, so the longer surface counts for more; the mean of the
two directed means, which some tools call by the same name, is another number.
"""

from dataclasses import replace

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import DIAGONAL_WHEN_WRONG, METRICS, Metric
from lamina.evaluation.surfaces import surface_distances


def assd(comparison: Comparison) -> float:
    """Return the mean distance of all surface voxels to the other surface."""
    found = comparison.part(surface_distances)
    return float(sum(each.sum() for each in found) / sum(each.size for each in found))


_ASSD = Metric(
    name="assd",
    title="ASSD",
    unit="mm",
    higher_is_better=False,
    definition="Mean distance of all surface voxels of both masks to the other's surface.",
    empty=DIAGONAL_WHEN_WRONG,
    function=assd,
)
METRICS.register("assd")(replace(_ASSD, in_pixels=replace(_ASSD, name="assd_px", unit="px")))

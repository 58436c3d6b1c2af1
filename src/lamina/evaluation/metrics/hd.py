"""Hausdorff distance: how far the worst voxel of either surface lies from the other surface.

The largest distance of all: a single stray voxel decides it, which :mod:`hd95` forgives.
Huttenlocher et al., IEEE TPAMI 15(9), 1993.
"""

from dataclasses import replace

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import DIAGONAL_WHEN_WRONG, METRICS, Metric
from lamina.evaluation.surfaces import surface_distances


def hd(comparison: Comparison) -> float:
    """Return the largest distance between the surfaces, in the spacing's unit."""
    return max(float(found.max()) for found in comparison.part(surface_distances))


_HD = Metric(
    name="hd",
    title="HD",
    unit="mm",
    higher_is_better=False,
    definition="Largest distance of a surface voxel of either mask to the other's surface.",
    empty=DIAGONAL_WHEN_WRONG,
    function=hd,
)
METRICS.register("hd")(replace(_HD, in_pixels=replace(_HD, name="hd_px", unit="px")))

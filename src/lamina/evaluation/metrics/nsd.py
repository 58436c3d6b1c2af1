"""Normalised surface distance, or surface Dice (Nikolov et al., J Med Internet Res 23(7), 2021).

The surface runs between the voxels: every corner at which voxels of a mask meet others carries a
piece of it, whose area follows from which of the voxels around it are in the mask. The table of
areas is MONAI's, which has it from the authors; to count surface voxels gives other numbers.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lamina.evaluation.comparison import Comparison, Mask
from lamina.evaluation.metrics import METRICS, ZERO_WHEN_WRONG, Metric
from lamina.evaluation.surfaces import Points, nearest, places

TOLERANCE = 1.0
"""Deviation, in mm or pixels, that counts as agreement; the authors set it per organ, by how far
readers differ."""
_ROUNDING = 1e-6
"""Share of the tolerance by which a distance may exceed it: spacings in files are rounded."""


def nsd(comparison: Comparison) -> float:
    """Return the share of both surfaces, by area, within the tolerance of each other, 0 to 1."""
    here, own = _elements(comparison.prediction, comparison.spacing)
    there, other = _elements(comparison.reference, comparison.spacing)
    reach = TOLERANCE * (1 + _ROUNDING)
    within = own[np.isfinite(nearest(here, there, reach))].sum()
    within += other[np.isfinite(nearest(there, here, reach))].sum()
    return float(within / (own.sum() + other.sum()))


def _elements(mask: Mask, spacing: tuple[float, ...]) -> tuple[Points, NDArray[np.float64]]:
    """Return the positions ``(N, dims)`` of a surface's pieces and their areas ``(N,)``."""
    from monai.metrics.utils import get_code_to_measure_table

    codes = np.pad(mask, 1).view(np.uint8)
    for axis in reversed(range(mask.ndim)):  # each step joins pairs: 1, 2 and 4 bits each
        bits = 2 ** (mask.ndim - 1 - axis)
        first, second = (np.moveaxis(codes, axis, 0)[cut] for cut in (np.s_[:-1], np.s_[1:]))
        joined = first << bits
        joined |= second
        codes = np.moveaxis(joined, 0, axis)
    mixed = (codes != 0) & (codes != 2**2**mask.ndim - 1)
    areas: NDArray[np.float64] = get_code_to_measure_table(spacing)[0].numpy().astype(np.float64)
    return places(mixed, spacing), areas[codes[mixed]]


_NSD = Metric(
    name="nsd",
    title=f"NSD at {TOLERANCE:g} mm",
    unit="",
    higher_is_better=True,
    definition=f"Share of both surfaces, by area, within {TOLERANCE:g} mm of each other.",
    empty=ZERO_WHEN_WRONG,
    function=nsd,
)
_IN_PIXELS = replace(
    _NSD,
    name="nsd_px",
    title=f"NSD at {TOLERANCE:g} px",
    definition=f"Share of both outlines, by length, within {TOLERANCE:g} pixel of each other.",
)
METRICS.register("nsd")(replace(_NSD, in_pixels=_IN_PIXELS))

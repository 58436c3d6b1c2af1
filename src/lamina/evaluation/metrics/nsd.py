"""Normalised surface distance, or surface Dice (Nikolov et al., J Med Internet Res 23(7), 2021).

Computed by MONAI with sub-voxel surface elements weighted by their area, which reproduces the
authors' own implementation; counting surface voxels instead gives other numbers.
"""

import warnings
from collections.abc import Sequence
from dataclasses import replace

from lamina.evaluation.metrics import METRICS, ZERO_WHEN_WRONG, Mask, Metric

TOLERANCE = 1.0
"""Deviation, in mm or pixels, that counts as agreement; the authors set it per organ, by how far
readers differ."""


def nsd(prediction: Mask, reference: Mask, spacing: Sequence[float]) -> float:
    """Return the share of both surfaces, by area, within the tolerance of each other, 0 to 1."""
    import torch
    from monai.metrics.surface_dice import compute_surface_dice

    masks = [torch.from_numpy(mask.copy())[None, None] for mask in (prediction, reference)]
    with warnings.catch_warnings():  # MONAI warns of deprecations in its own calls
        warnings.simplefilter("ignore")
        share = compute_surface_dice(
            *masks,
            class_thresholds=[TOLERANCE],
            include_background=True,
            spacing=[float(size) for size in spacing],
            use_subvoxels=True,
        )
    return float(share)


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

"""TransUNet's protocol (Chen et al., arXiv 2102.04306), which MT-UNet and DAI-Net follow.

Per organ of a whole volume, then the mean over volumes and organs. The distance is that of MedPy:
the 95th percentile of the distances of both directions together.
"""

import numpy as np

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import EmptyRule, Metric
from lamina.evaluation.metrics.dice import dice
from lamina.evaluation.metrics.hd95 import PERCENTILE
from lamina.evaluation.protocols import PROTOCOLS, Protocol
from lamina.evaluation.surfaces import surface_distances


def pooled_hd95(comparison: Comparison) -> float:
    """Return the 95th percentile of all surface distances, in voxels whatever their size."""
    in_voxels = Comparison(
        comparison.prediction, comparison.reference, [1.0] * comparison.prediction.ndim
    )
    return float(np.percentile(np.concatenate(surface_distances(in_voxels)), PERCENTILE))


PROTOCOLS.register("transunet")(
    Protocol(
        name="transunet",
        paper="TransUNet, MT-UNet and DAI-Net",
        quirks="An invented organ has Dice 1 and distance 0; a missed or rightly absent one Dice 0 "
        "and distance 0; distances are in voxels and pool both directions.",
        metrics=(
            Metric(
                name="transunet_dice",
                title="Dice",
                unit="",
                higher_is_better=True,
                definition="Dice of TransUNet's program: 1 for an invented organ, 0 for an absent "
                "one that is rightly left out.",
                empty=EmptyRule(prediction_empty=0.0, reference_empty=1.0, both_empty=0.0),
                function=dice,
            ),
            Metric(
                name="transunet_hd95",
                title="HD95",
                unit="voxels",
                higher_is_better=False,
                definition="95th percentile of the surface distances of both directions together, "
                "in voxels; 0 wherever a mask is empty.",
                empty=EmptyRule(prediction_empty=0.0, reference_empty=0.0, both_empty=0.0),
                function=pooled_hd95,
            ),
        ),
    )
)

"""Soft Dice plus cross-entropy of regions that may overlap, such as a tumour and its core."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lamina.losses import LOSSES
from lamina.losses.terms import (
    at_least_float32,
    is_known,
    mean_of_known,
    over_processes,
    soft_dice,
)


@LOSSES.register("region_dice_ce")
@dataclass(frozen=True, kw_only=True)
class RegionDiceCE:
    """Dice plus binary cross-entropy, one logit per region, each region a question of its own.

    With p the sigmoid of a logit, y the region's mask and e = ``smooth``::

        dice  = mean over regions r of  1 - (2 sum p_r y_r + e) / (sum p_r + sum y_r + e)
        ce    = - mean over voxels and regions of  y log p + (1 - y) log(1 - p)
        total = dice_weight * dice + ce_weight * ce

    LGMSNet in 2D (Eq. 9) has one region, ``ce_weight`` 0.5 and no ``batch``. GLIMS (Eq. 2) on BraTS
    has three, ``squared``, no ``batch``. Its released code takes the softmax cross-entropy of
    mutually exclusive classes, though regions overlap (``ce="softmax"``), and a ``smooth`` of
    (1e-6, 0), by which the loss of an empty region has no lower bound.
    """

    smooth: float | tuple[float, float] = 1e-5
    """Keeps a region that is absent from truth and prediction at a Dice loss of 0. Two numbers: the
    first is for the numerator, the second for the denominator."""
    squared: bool = False
    """Whether the Dice term's denominator sums squares of p."""
    batch: bool = True
    """Whether Dice sums over the batch; off: it is the mean of each image's,
    without those that are ignored as a whole."""
    ce: Literal["binary", "softmax"] = "binary"
    """Cross-entropy of each region alone, or, to repeat GLIMS, of one softmax over all regions:
    minus the sum of y log softmax, averaged over voxels."""
    dice_weight: float = 1.0
    """Weight of the Dice term."""
    ce_weight: float = 1.0
    """Weight of the cross-entropy term."""

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss, computed in float32 at least; 0 when everything is ignored.

        Args:
            logits: ``(B, K, *S)``, any floating dtype.
            target: Masks of the same shape, 0 or 1, any dtype; 255 is ignored.

        Raises:
            ValueError: The shapes differ.
        """
        if target.shape != logits.shape:
            raise ValueError(
                f"target {tuple(target.shape)} must have the shape of logits {tuple(logits.shape)}."
            )
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            truth, known = target == 1, is_known(target)
            dice = soft_dice(
                logits.sigmoid() * known,
                truth,
                smooth=self.smooth,
                squared=self.squared,
                batch=self.batch,
            )
            dice = dice.mean() if self.batch else mean_of_known(dice, known)
            cross_entropy = self._cross_entropy(logits, truth, known)
            return self.dice_weight * dice + self.ce_weight * cross_entropy

    def _cross_entropy(self, logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
        if self.ce == "softmax":
            losses, counts = -logits.log_softmax(dim=1) * truth, known.any(dim=1)
        else:
            truth = truth.to(logits)
            losses = F.binary_cross_entropy_with_logits(logits, truth, reduction="none") * known
            counts = known
        total, count = over_processes(losses.sum(), counts.sum())
        return total / count.clamp(min=1)

"""Soft Dice plus cross-entropy, the usual pair: overlap of regions and calibration of voxels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lamina.losses import LOSSES
from lamina.losses.terms import (
    at_least_float32,
    is_known,
    mean_of_known,
    one_hot,
    over_processes,
    soft_dice,
)


@LOSSES.register("dice_ce")
@dataclass(frozen=True, kw_only=True)
class DiceCE:
    """Dice (Milletari et al., *V-Net*, 3DV 2016) plus cross-entropy of mutually exclusive classes.

    With softmax probabilities p, one-hot truth y, sums over the batch and all voxels v that are not
    ignored, N such voxels and e = ``smooth``::

        dice  = mean over classes c of  1 - (2 sum p_c y_c + e) / (sum p_c + sum y_c + e)
        ce    = - sum_v log p_(class of v) / N
        total = dice_weight * dice + ce_weight * ce

    All three papers have ``include_background``. DAI-Net (Eq. 4-6, without their sums and the mean
    over pixels) weighs both terms 0.5. GLIMS (Eq. 2, without the mean over voxels) is ``squared``
    and sums over each image, not the ``batch``. LGMSNet's code for volumes does so too, with a
    ``smooth`` of (0, 1e-6).
    """

    include_background: bool = False
    """Whether the background is one of the classes of the Dice term."""
    smooth: float | tuple[float, float] = 1e-5
    """Keeps a class that is absent from truth and prediction at a Dice loss of 0. Two numbers: the
    first is for the numerator, the second for the denominator."""
    squared: bool = False
    """Whether the Dice term's denominator sums squares of p, as V-Net does."""
    batch: bool = True
    """Whether Dice sums over the batch; off: it is the mean of each image's,
    without those that are ignored as a whole."""
    dice_weight: float = 1.0
    """Weight of the Dice term."""
    ce_weight: float = 1.0
    """Weight of the cross-entropy term."""

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss, computed in float32 at least; 0 when every voxel is ignored.

        Args:
            logits: ``(B, K, *S)``, K >= 2, any floating dtype.
            target: Class indices ``(B, *S)``, any integer dtype; 255 is ignored.
        """
        with torch.autocast(logits.device.type, enabled=False):
            log_p = at_least_float32(logits).log_softmax(dim=1)
            known = is_known(target).unsqueeze(1)
            truth = one_hot(target, logits.shape[1])
            dice = soft_dice(
                log_p.exp() * known,
                truth,
                smooth=self.smooth,
                squared=self.squared,
                batch=self.batch,
            )
            dice = dice if self.include_background else dice[..., 1:]
            dice = dice.mean() if self.batch else mean_of_known(dice, known)
            surprise, voxels = over_processes(-(log_p * truth).sum(), known.sum())
            cross_entropy = surprise / voxels.clamp(min=1)
            return self.dice_weight * dice + self.ce_weight * cross_entropy

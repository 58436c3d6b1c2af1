"""Soft Dice plus cross-entropy, the usual pair: overlap of regions and calibration of voxels."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lamina.labels import IGNORE_INDEX
from lamina.losses import LOSSES


@LOSSES.register("dice_ce")
@dataclass(frozen=True, kw_only=True)
class DiceCE:
    """Dice (Milletari et al., *V-Net*, 3DV 2016, without squares) plus cross-entropy.

    With softmax probabilities p, one-hot truth y, sums over the batch and all voxels v that are not
    ignored, N such voxels and e = ``smooth``::

        dice  = mean over classes c of  1 - (2 sum p_c y_c + e) / (sum p_c + sum y_c + e)
        ce    = - sum_v log p_(class of v) / N
        total = dice_weight * dice + ce_weight * ce
    """

    include_background: bool = False
    """Whether the background is one of the classes of the Dice term."""
    smooth: float = 1e-5
    """Keeps a class that is absent from truth and prediction at a Dice loss of 0."""
    dice_weight: float = 1.0
    """Weight of the Dice term."""
    ce_weight: float = 1.0
    """Weight of the cross-entropy term."""

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss, computed in float32; 0 when every voxel is ignored.

        Args:
            logits: ``(B, K, *S)``, K >= 2, any floating dtype.
            target: Class indices ``(B, *S)``, any integer dtype; 255 is ignored.
        """
        with torch.autocast(logits.device.type, enabled=False):
            log_p = logits.float().log_softmax(dim=1)
            classes = torch.arange(logits.shape[1], device=logits.device)
            valid = (target != IGNORE_INDEX).unsqueeze(1)
            truth = target.unsqueeze(1) == classes.reshape(-1, *[1] * (target.dim() - 1))
            dice = self._dice(log_p.exp() * valid, truth)
            cross_entropy = -(log_p * truth).sum() / valid.sum().clamp(min=1)
            return self.dice_weight * dice + self.ce_weight * cross_entropy

    def _dice(self, p: Tensor, truth: Tensor) -> Tensor:
        over = (0, *range(2, p.dim()))
        overlap, total = (p * truth).sum(over), p.sum(over) + truth.sum(over)
        loss = 1 - (2 * overlap + self.smooth) / (total + self.smooth)
        return (loss if self.include_background else loss[1:]).mean()

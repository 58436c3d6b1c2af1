"""Tversky plus cross-entropy: overlap that minds missed voxels more than surplus ones."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from lamina.losses import LOSSES
from lamina.losses.terms import at_least_float32, is_known, one_hot, over_processes, spatial_axes


@LOSSES.register("tversky_ce")
@dataclass(frozen=True, kw_only=True)
class TverskyCE:
    """Loss of MPU-Net (Yu, Han, 2023, arXiv 2307.05799, Eq. 19), its misprints mended.

    With softmax probabilities p, one-hot truth y, and sums over the voxels of one volume that are
    not ignored, N of them, in K classes c::

        tversky = 1 - mean over c of  TP_c / (TP_c + alpha FP_c + beta FN_c + smooth)
        TP_c = sum p_c y_c,   FP_c = sum p_c (1 - y_c),   FN_c = sum (1 - p_c) y_c
        ce   = - sum over c and voxels of  [y_c log q_c + (1 - y_c) log(1 - q_c)] / (N K)
        loss = mean over volumes of  tversky + ce_weight * ce

    Here q = p; the published figures come from q = sigmoid(p), which keeps ce above 0.50 for two
    classes. The paper sums the logarithms of all four outputs of its network; the network was
    trained with this whole loss of each, the coarser ones weighing 0.4 and, as the recipe
    ``mpunet-lits`` has it, a fifth less every 30 epochs.
    """

    alpha: float = 0.3
    """Weight of voxels wrongly given to a class."""
    beta: float = 0.7
    """Weight of voxels wrongly kept from a class."""
    smooth: float = 1.0
    """Keeps the fraction defined; a class that is absent from the truth costs its full share."""
    ce_weight: float = 1.0
    """Weight of the cross-entropy term (lambda)."""
    ce_input: Literal["prob", "sigmoid_of_prob"] = "prob"
    """What the cross-entropy takes for q: p, or as in the published training sigmoid(p)."""

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss, computed in float32 at least; 0 when every voxel is ignored.

        Volumes without any voxel that counts are left out of the mean.

        Args:
            logits: ``(B, K, *S)``, K >= 2, any floating dtype.
            target: Class indices ``(B, *S)``, any integer dtype; 255 is ignored.
        """
        with torch.autocast(logits.device.type, enabled=False):
            log_p = at_least_float32(logits).log_softmax(dim=1)
            known = is_known(target).unsqueeze(1)
            truth = one_hot(target, logits.shape[1])
            overlap = self._tversky(log_p.exp() * known, truth)
            losses = overlap + self.ce_weight * self._cross_entropy(log_p, truth, known)
            counts = known.flatten(1).any(dim=1)
            total, count = over_processes((losses * counts).sum(), counts.sum())
            return total / count.clamp(min=1)

    def _tversky(self, p: Tensor, truth: Tensor) -> Tensor:
        """``(B, K, *S)``, 0 and false at ignored voxels -> ``(B,)``."""
        axes = spatial_axes(p)
        hit = (p * truth).sum(axes)
        surplus, missed = p.sum(axes) - hit, truth.sum(axes) - hit
        index = hit / (hit + self.alpha * surplus + self.beta * missed + self.smooth)
        return 1 - index.mean(dim=1)

    def _cross_entropy(self, log_p: Tensor, truth: Tensor, known: Tensor) -> Tensor:
        """``(B, K, *S)``, truth alike, known ``(B, 1, *S)`` -> ``(B,)``."""
        p = log_p.exp()
        if self.ce_input == "prob":
            # Only 1 - p needs a bound: log_p keeps its slope however sure a wrong answer is.
            log_q, log_not_q = log_p, torch.log1p(-p.clamp(max=1 - 1e-7))
        else:
            log_q, log_not_q = F.logsigmoid(p), F.logsigmoid(-p)
        terms = torch.where(truth, log_q, log_not_q) * known
        voxels = known.flatten(1).sum(dim=1).clamp(min=1)
        return -terms.flatten(1).sum(dim=1) / (voxels * log_p.shape[1])

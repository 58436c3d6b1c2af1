"""The loss of a network that predicts at several sizes."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lamina.losses import Loss


@dataclass(frozen=True)
class DeepSupervision:
    """Weighted sum of one loss over a network's heads.

    GLIMS (Eq. 3) weighs the finest head 1 and each next one half as much; its code divides by the
    sum, as is done here. Lee et al.: *Deeply-Supervised Nets*, AISTATS 2015.
    """

    loss: Loss
    """Loss of one head."""
    weights: tuple[float, ...] | None = None
    """Weight of each head, finest first, taken as they are; by default 1, 1/2, 1/4, ... divided by
    their sum."""

    def __call__(self, logits: Tensor | Sequence[Tensor], target: Tensor) -> Tensor:
        """Return the loss of all heads; of a lone tensor, just its loss.

        Args:
            logits: ``(B, K, *S)``, or several, finest first, each of its own size.
            target: Class indices or masks, as ``loss`` takes them, of any size.

        Raises:
            ValueError: There are more or fewer heads than weights.
        """
        if isinstance(logits, Tensor):
            return self.loss(logits, target)
        weights = self.weights or _halving(len(logits))
        if len(weights) != len(logits):
            raise ValueError(f"weights = {weights} must be as many as the {len(logits)} heads.")
        losses = [self.loss(head, nearest(target, head.shape[2:])) for head in logits]
        return torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum()


def nearest(target: Tensor, size: Sequence[int]) -> Tensor:
    """Sample the last axes of ``target`` to ``size``.

    Voxel i of n takes that at i s of N, where a head of stride s, a power of two, has its first: a
    network pads and crops at the far end. Of other sizes, it takes that at floor(i N / n).
    """
    for axis, length in enumerate(size, start=target.dim() - len(size)):
        whole = target.shape[axis]
        if whole != length:
            step = 1 << (-(-whole // length) - 1).bit_length()
            index = torch.arange(length, device=target.device)
            strided = (length - 1) * step < whole
            index = index * step if strided else index * whole // length
            target = target.index_select(axis, index)
    return target


def _halving(count: int) -> tuple[float, ...]:
    weights = [0.5**head for head in range(count)]
    return tuple(weight / sum(weights) for weight in weights)

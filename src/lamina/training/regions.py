"""Training a network that says yes or no to each region, from label maps of structures."""

from dataclasses import dataclass

import torch
from torch import Tensor

from lamina.labels import IGNORE_INDEX, LabelSet
from lamina.losses import Loss


@dataclass(frozen=True)
class RegionTargets:
    """A loss of overlapping regions that takes class indices, as all patches come."""

    loss: Loss
    """Takes masks ``(B, K, *S)``, such as ``region_dice_ce``."""
    labels: LabelSet

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss.

        Args:
            logits: ``(B, K, *S)``, one channel per region.
            target: Class indices ``(B, *S)``; 255 is ignored.
        """
        return self.loss(logits, self.masks(target))

    def masks(self, target: Tensor) -> Tensor:
        """Turn class indices ``(B, *S)`` into masks ``(B, K, *S)`` of 0, 1 and, ignored, 255."""
        classes = {name: i for i, name in enumerate(self.labels.foreground, start=1)}
        table = torch.zeros(len(self.labels.regions), IGNORE_INDEX + 1, dtype=torch.uint8)
        for region, members in zip(table, self.labels.regions.values(), strict=True):
            region[[classes[name] for name in members]] = 1
        table[:, IGNORE_INDEX] = IGNORE_INDEX
        return table.to(target.device)[:, target.long()].movedim(0, 1)

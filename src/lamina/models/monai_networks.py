"""What the networks that MONAI builds need to keep the promises of all networks here.

They take images of any size, return the logits of coarser stages in training, and have MONAI
imported only when one is built.
"""

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lamina.models import NetworkConfig
from lamina.models.layers.size import crop_to, pad_to_two


@dataclass(frozen=True, kw_only=True)
class MonaiConfig(NetworkConfig):
    """Settings that all of them have; each network's own follow."""

    spatial_dims: int = 3

    def build(self) -> "MonaiNetwork":
        """Return the network with fresh weights."""
        return MonaiNetwork(self, self._network())

    @abstractmethod
    def _network(self) -> nn.Module:
        """Return the network for sizes that are multiples of the divisor.

        In training it may return several logits, finest first; in evaluation it returns one tensor.
        """

    def _monai(self, name: str, **settings: Any) -> nn.Module:
        """Return what MONAI calls ``name``, for these images and classes."""
        from monai.networks import nets

        network: nn.Module = getattr(nets, name)(
            spatial_dims=self.spatial_dims,
            in_channels=self.in_channels,
            out_channels=self.num_classes,
            **settings,
        )
        return network


class MonaiNetwork(nn.Module):
    """Any size: it pads for the network inside and crops the logits back."""

    def __init__(self, config: MonaiConfig, network: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.network = network

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """``(B, in_channels, *S)`` -> logits ``(B, num_classes, *S)``, or in training a list.

        The others in the list are those of coarser stages or shallower paths.
        """
        padded = pad_to_two(image, self.config.size_divisor)
        logits = self.network(padded)
        if isinstance(logits, Tensor):
            return _crop(logits, image, padded)
        return [_crop(head, image, padded) for head in logits]


def _crop(logits: Tensor, image: Tensor, padded: Tensor) -> Tensor:
    """Keep the part of ``logits``, perhaps coarser than ``padded``, that covers ``image``."""
    step = padded.shape[2] // logits.shape[2]
    return crop_to(logits, torch.Size(-(-size // step) for size in image.shape[2:]))

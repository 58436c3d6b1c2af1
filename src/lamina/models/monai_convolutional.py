"""Convolutional networks that MONAI builds: SegResNet, V-Net and MedNeXt.

Each configuration names its paper. Where MONAI's networks differ from the papers':

* SegResNet has no autoencoder branch, which would only regularise training, and no dropout.
* V-Net drops half of the channels of deep stages and skips in training, and normalises batches. It
  wants a number of channels that divides its sixteen: the image's are repeated until it does.

Shapes: ``B`` batch, ``C`` channels, ``*S`` two or three spatial axes in array order.
"""

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lamina.models import Constraints, preset
from lamina.models.monai_networks import MonaiConfig
from lamina.models.published import Published


@dataclass(frozen=True, kw_only=True)
class SegResNetConfig(MonaiConfig):
    """Residual encoder, thin decoder, group normalisation.

    Myronenko: *3D MRI Brain Tumor Segmentation Using Autoencoder Regularization*, BrainLes 2018.
    """

    size_divisor: ClassVar[int] = 8
    learning_rate: ClassVar[float] = 1e-3

    init_filters: int = 32
    """Width of the first stage; each of the three deeper ones has twice that of the one before."""

    def _constraints(self) -> Constraints:
        fits = self.init_filters >= 8 and self.init_filters % 8 == 0
        return {"init_filters": (fits, "a multiple of 8")}

    def _network(self) -> nn.Module:
        return self._monai("SegResNet", init_filters=self.init_filters)


@dataclass(frozen=True, kw_only=True)
class VNetConfig(MonaiConfig):
    """Residual stages of convolutions that are five voxels wide.

    Milletari et al.: *V-Net: Fully Convolutional Neural Networks for Volumetric Medical Image
    Segmentation*, 3DV 2016.
    """

    size_divisor: ClassVar[int] = 16

    def _constraints(self) -> Constraints:
        return {"in_channels": (1 <= self.in_channels <= 16, "at least 1 and at most 16")}

    def _network(self) -> nn.Module:
        channels = 1 << (self.in_channels - 1).bit_length()
        fitting = replace(self, in_channels=channels)
        network = fitting._monai("VNet", dropout_dim=self.spatial_dims)
        return nn.Sequential(_RepeatChannels(channels - self.in_channels), network)


class _RepeatChannels(nn.Module):
    """Appends the first channels of an image to it once more."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C + count, *S)``; ``count`` is at most ``C``."""
        return torch.cat([image, image[:, : self.count]], dim=1)


@dataclass(frozen=True, kw_only=True)
class MedNeXtConfig(MonaiConfig):
    """ConvNeXt blocks throughout, changes of size included.

    Roy et al.: *MedNeXt: Transformer-driven Scaling of ConvNets for Medical Image Segmentation*,
    MICCAI 2023.
    """

    size_divisor: ClassVar[int] = 16

    variant: Literal["S", "B", "M", "L"] = "S"
    """Small, base, medium or large: how far blocks expand and how many there are."""
    kernel_size: int = 3
    """Width of the depthwise convolutions, odd."""
    deep_supervision: bool = True
    """Have heads on the four coarser stages, too, and return their logits in training."""

    def _constraints(self) -> Constraints:
        return {
            "variant": (self.variant in ("S", "B", "M", "L"), "'S', 'B', 'M' or 'L'"),
            "kernel_size": (self.kernel_size >= 3 and self.kernel_size % 2 == 1, "odd, at least 3"),
        }

    def _network(self) -> nn.Module:
        return self._monai(
            f"MedNeXt{self.variant}",
            kernel_size=self.kernel_size,
            deep_supervision=self.deep_supervision,
        )


@preset("segresnet")
def segresnet(in_channels: int, num_classes: int) -> SegResNetConfig:
    """Return the network as wide as the paper's: 18,796,002 weights for 1 channel, 2 classes."""
    return SegResNetConfig(in_channels=in_channels, num_classes=num_classes)


@preset("vnet")
def vnet(in_channels: int, num_classes: int) -> VNetConfig:
    """Return the network: 45,597,898 weights for 1 channel and 2 classes."""
    return VNetConfig(in_channels=in_channels, num_classes=num_classes)


@preset("mednext_s")
def mednext_s(in_channels: int, num_classes: int) -> MedNeXtConfig:
    """Return the small network: 5,552,842 weights for 1 channel and 2 classes."""
    return MedNeXtConfig(in_channels=in_channels, num_classes=num_classes)


@preset(
    "mednext_b",
    Published(
        where="LGMSNet, Table 3, MedNeXt",
        in_channels=1,
        num_classes=14,
        size=(96, 96, 96),
        parameters="10.51 M",
        note="Without deep supervision, whose heads are 13,496 weights.",
    ),
)
def mednext_b(in_channels: int, num_classes: int) -> MedNeXtConfig:
    """Return the base network: 10,524,742 weights for 1 channel and 14 classes."""
    return MedNeXtConfig(in_channels=in_channels, num_classes=num_classes, variant="B")

"""UNeXt: convolutions while maps are large, then MLPs over shifted channels; 1.5 M weights.

Valanarasu, Patel: *UNeXt: MLP-based Rapid Medical Image Segmentation Network*, MICCAI 2022, arXiv
2203.04967. Weights match the 1.47 M that the paper and LGMSNet print. Where text and published code
disagree, this follows the code, which alone meets them:

* The five widths are 16, 32, 128, 160 and 256; the paper says 32, 64, 128, 160 and 256.
* The first shift is along the height, the second along the width; hidden layers do not widen.
* A block adds its input to what the MLP makes of the normalised input, and its stage normalises the
  sum. Tokens overlap: they come from convolutions of kernel 3 and stride 2.
* Skips are added, not concatenated. The finest decoder stage has no normalisation.

Shapes: ``B`` batch, ``C`` channels, ``H, W`` spatial axes in array order.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.models import Constraints, NetworkConfig, preset
from lamina.models.layers.convolution import conv
from lamina.models.layers.norm import ChannelNorm
from lamina.models.layers.size import crop_to, pad_to_train
from lamina.models.published import Published

REACH = 2  # of the shifts, in voxels to either side


@dataclass(frozen=True, kw_only=True)
class UNeXtConfig(NetworkConfig):
    """Settings of :class:`UNeXt`, in the order data meet them."""

    size_divisor: ClassVar[int] = 32

    spatial_dims: int = 2
    """Only 2: images."""
    channels: tuple[int, ...] = (16, 32, 128, 160, 256)
    """Widths of three convolutional and two tokenized stages; the decoder mirrors them."""

    def _constraints(self) -> Constraints:
        return {
            "spatial_dims": (self.spatial_dims == 2, "2"),
            "channels": (len(self.channels) == 5 and min(self.channels) >= 1, "five widths from 1"),
        }

    def build(self) -> "UNeXt":
        """Return the network with fresh weights."""
        return UNeXt(self)


def shifted(x: Tensor, axis: int) -> Tensor:
    """Shift five groups of channels of ``(B, C, H, W)`` by -2 to 2 voxels along ``axis``.

    Zeros move in. Where five does not divide C, the last group is the smallest.
    """
    room = (REACH, REACH) if axis == 3 else (0, 0, REACH, REACH)
    groups = F.pad(x, room).chunk(2 * REACH + 1, dim=1)
    starts = range(2 * REACH, -1, -1)
    moved = [
        group.narrow(axis, start, x.shape[axis])
        for group, start in zip(groups, starts, strict=False)
    ]
    return torch.cat(moved, dim=1)


class TokenizedMLP(nn.Module):
    """An MLP whose two layers look at their input shifted along one axis each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels)
        self.first = conv(2, channels, channels, 1)
        self.position = conv(2, channels, channels, 3, groups=channels)
        self.second = conv(2, channels, channels, 1)
        self.norm_after = ChannelNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, H, W) -> (B, C, H, W)``."""
        hidden = self.position(self.first(shifted(self.norm(x), axis=2)))
        mixed: Tensor = self.norm_after(x + self.second(shifted(F.gelu(hidden), axis=3)))
        return mixed


def _convolution(c_in: int, c: int) -> nn.Sequential:
    return nn.Sequential(conv(2, c_in, c, 3), nn.BatchNorm2d(c), nn.MaxPool2d(2), nn.ReLU())


def _tokenization(c_in: int, c: int) -> nn.Sequential:
    return nn.Sequential(conv(2, c_in, c, 3, stride=2), ChannelNorm(c), TokenizedMLP(c))


def _upsampling(c_in: int, c: int, norm: nn.Module) -> nn.Sequential:
    larger = nn.Upsample(scale_factor=2, mode="bilinear")
    return nn.Sequential(conv(2, c_in, c, 3), norm, larger, nn.ReLU())


class UNeXt(nn.Module):
    """The network of Fig. 2. Any size: it pads to a multiple of 32 and crops the logits back."""

    def __init__(self, config: UNeXtConfig) -> None:
        super().__init__()
        self.config = config
        c1, c2, c3, c4, c5 = config.channels
        convolutions = (_convolution(a, b) for a, b in pairwise((config.in_channels, c1, c2, c3)))
        self.encoder = nn.ModuleList([*convolutions, _tokenization(c3, c4), _tokenization(c4, c5)])
        self.up = nn.ModuleList(
            _upsampling(a, b, nn.BatchNorm2d(b)) for a, b in pairwise((c5, c4, c3, c2, c1))
        )
        self.refine = nn.ModuleList(
            [TokenizedMLP(c4), TokenizedMLP(c3), nn.Identity(), nn.Identity()]
        )
        self.head = nn.Sequential(
            _upsampling(c1, c1, nn.Identity()), conv(2, c1, config.num_classes, 1)
        )

    def forward(self, image: Tensor) -> Tensor:
        """``(B, in_channels, H, W)`` -> logits ``(B, num_classes, H, W)``."""
        x, encoded = pad_to_train(image, self.config.size_divisor, self.training), []
        for stage in self.encoder:  # 16, 32, 128, 160, 256 channels; each half as large
            x = stage(x)
            encoded.append(x)
        skips = encoded[-2::-1]
        for up, refine, skip in zip(self.up, self.refine, skips, strict=True):
            x = refine(up(x) + skip)  # 160, 128, 32, 16 channels; (B, 16, H/2, W/2)
        return crop_to(self.head(x), image.shape[2:])


@preset(
    "unext",
    Published(
        where="LGMSNet, Table 1, UNeXt",
        in_channels=3,
        num_classes=1,
        size=(256, 256),
        parameters="1.47 M",
        macs="0.58 G",
    ),
)
def unext(in_channels: int, num_classes: int) -> UNeXtConfig:
    """Return the paper's network: 1,471,921 weights for 3 channels and 1 class."""
    return UNeXtConfig(in_channels=in_channels, num_classes=num_classes)

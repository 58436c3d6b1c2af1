"""CMUNeXt: a thin U-Net of wide depthwise convolutions and inverted bottlenecks.

Tang, Ding, Quan, Wang, Ning, Zhou: *CMUNeXt: An Efficient Medical Image Segmentation Network Based
on Large Kernel and Skip Fusion*, ISBI 2024, arXiv 2308.01239. Weights match the 3.14 M that LGMSNet
prints. Widths, depths and kernels are those of the authors' published presets; that they also make
volumes is ours.

Shapes: ``B`` batch, ``C`` channels, ``*S`` two or three spatial axes in array order.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from lamina.models import Constraints, NetworkConfig, preset
from lamina.models.layers.convolution import Layer, conv, conv_unit
from lamina.models.layers.lms import UpStage
from lamina.models.layers.size import crop_to, pad_to_train
from lamina.models.published import Published

EXPANSION = 4  # of every inverted bottleneck

_NORM: dict[int, Layer] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_LINEAR = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True, kw_only=True)
class CMUNeXtConfig(NetworkConfig):
    """Settings of :class:`CMUNeXt`, in the order data meet them."""

    size_divisor: ClassVar[int] = 16
    learning_rate: ClassVar[float] = 2e-3  # found by trying; 6e-3 was too high

    spatial_dims: int = 2
    channels: tuple[int, ...] = (16, 32, 128, 160, 256)
    """Widths of the five encoder stages; the decoder mirrors them."""
    depths: tuple[int, ...] = (1, 1, 1, 3, 1)
    """Blocks of the five encoder stages."""
    kernel_sizes: tuple[int, ...] = (3, 3, 7, 7, 7)
    """Widths of the depthwise convolutions of the five encoder stages, odd."""

    def _constraints(self) -> Constraints:
        odd = all(k >= 1 and k % 2 == 1 for k in self.kernel_sizes)
        return {
            "channels": (len(self.channels) == 5 and min(self.channels) >= 1, "five widths from 1"),
            "depths": (len(self.depths) == 5 and min(self.depths) >= 1, "five numbers from 1"),
            "kernel_sizes": (len(self.kernel_sizes) == 5 and odd, "five odd numbers"),
        }

    def build(self) -> "CMUNeXt":
        """Return the network with fresh weights."""
        return CMUNeXt(self)


def _mix(dims: int, c_in: int, c: int, kernel_size: int = 1, groups: int = 1) -> nn.Sequential:
    convolution = conv(dims, c_in, c, kernel_size, groups=groups)
    return nn.Sequential(convolution, nn.GELU(), _NORM[dims](c))


def _bottleneck(dims: int, c_in: int, c: int) -> nn.Sequential:
    """Widen to a multiple of ``c`` channels and narrow to ``c``, voxel by voxel."""
    return nn.Sequential(_mix(dims, c_in, EXPANSION * c), _mix(dims, EXPANSION * c, c))


class CMUNeXtBlock(nn.Module):
    """A wide depthwise convolution beside a skip, then an inverted bottleneck."""

    def __init__(self, dims: int, channels: int, kernel_size: int) -> None:
        super().__init__()
        self.look = _mix(dims, channels, channels, kernel_size, groups=channels)
        self.bottleneck = _bottleneck(dims, channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        mixed: Tensor = self.bottleneck(x + self.look(x))
        return mixed


def _stage(dims: int, c_in: int, c: int, depth: int, kernel_size: int) -> nn.Sequential:
    blocks = (CMUNeXtBlock(dims, c_in, kernel_size) for _ in range(depth))
    return nn.Sequential(*blocks, conv_unit(dims, c_in, c, 3, _NORM[dims], nn.ReLU, bias=True))


def _skip_fusion(dims: int, c: int) -> nn.Sequential:
    """Filter skip and decoder apart, then mix both by an inverted bottleneck: 2 ``c`` -> ``c``."""
    return nn.Sequential(_mix(dims, 2 * c, 2 * c, 3, groups=2), _bottleneck(dims, 2 * c, c))


class CMUNeXt(nn.Module):
    """The network. Any size: it pads to a multiple of 16 and crops the logits back."""

    def __init__(self, config: CMUNeXtConfig) -> None:
        super().__init__()
        self.config = config
        dims, widths, norm = config.spatial_dims, config.channels, _NORM[config.spatial_dims]
        self.stem = conv_unit(dims, config.in_channels, widths[0], 3, norm, nn.ReLU, bias=True)
        steps = zip(pairwise((widths[0], *widths)), config.depths, config.kernel_sizes, strict=True)
        self.encoder = nn.ModuleList(_stage(dims, a, b, depth, k) for (a, b), depth, k in steps)
        self.pool = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(2)
        self.decoder = nn.ModuleList(
            UpStage(dims, a, b, norm, mode=_LINEAR[dims], merge=_skip_fusion(dims, b))
            for a, b in pairwise(widths[::-1])
        )
        self.head = conv(dims, widths[0], config.num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, in_channels, *S)`` -> logits ``(B, num_classes, *S)``."""
        first, *deeper = self.encoder
        x = self.stem(pad_to_train(image, self.config.size_divisor, self.training))
        encoded = [first(x)]  # (B, 16, *S)
        for stage in deeper:  # (B, 32, *S/2), (B, 128, *S/4), (B, 160, *S/8), (B, 256, *S/16)
            encoded.append(stage(self.pool(encoded[-1])))
        *skips, x = encoded
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            x = stage(x, skip)  # (B, 160, *S/8), (B, 128, *S/4), (B, 32, *S/2), (B, 16, *S)
        return crop_to(self.head(x), image.shape[2:])


@preset(
    "cmunext",
    Published(
        where="LGMSNet, Table 1, CMUNeXt",
        in_channels=3,
        num_classes=1,
        size=(256, 256),
        parameters="3.14 M",
        macs="7.41 G",
        note="The paper cuts off where others round: 3.149 M.",
    ),
)
def cmunext(in_channels: int, num_classes: int) -> CMUNeXtConfig:
    """Return the paper's network: 3,149,185 weights for 3 channels and 1 class."""
    return CMUNeXtConfig(in_channels=in_channels, num_classes=num_classes)


@preset("cmunext_s")
def cmunext_s(in_channels: int, num_classes: int) -> CMUNeXtConfig:
    """Return the small network: 417,505 weights for 3 channels and 1 class."""
    return CMUNeXtConfig(
        in_channels=in_channels,
        num_classes=num_classes,
        channels=(8, 16, 32, 64, 128),
        depths=(1, 1, 1, 1, 1),
        kernel_sizes=(3, 3, 7, 7, 9),
    )


@preset("cmunext_l")
def cmunext_l(in_channels: int, num_classes: int) -> CMUNeXtConfig:
    """Return the large network: 8,286,721 weights for 3 channels and 1 class."""
    return CMUNeXtConfig(
        in_channels=in_channels,
        num_classes=num_classes,
        channels=(32, 64, 128, 256, 512),
        depths=(1, 1, 1, 6, 3),
        kernel_sizes=(3, 3, 7, 7, 7),
    )

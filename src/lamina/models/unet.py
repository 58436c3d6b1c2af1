"""U-Net: the classic encoder and decoder, of plain convolutions or with LGMSNet's local blocks.

Ronneberger, Fischer, Brox: *U-Net: Convolutional Networks for Biomedical Image Segmentation*,
MICCAI 2015, in the form that LGMSNet was compared with: convolutions that keep the size, batch
normalisation, and upsampling to the nearest voxel with a convolution behind it. Weights match the
34.53 M of that comparison, and the 17.33 M with local multi-scale blocks (``lms``).

Shapes: ``B`` batch, ``C`` channels, ``*S`` two or three spatial axes in array order.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor, nn

from lamina.models import Constraints, NetworkConfig, preset
from lamina.models.layers.convolution import Layer, conv, conv_unit
from lamina.models.layers.lms import KERNELS, UpStage, lms_stage
from lamina.models.layers.size import crop_to, pad_to_train
from lamina.models.published import Published

_NORM: dict[int, Layer] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@dataclass(frozen=True, kw_only=True)
class UNetConfig(NetworkConfig):
    """Settings of :class:`UNet`, in the order data meet them."""

    size_divisor: ClassVar[int] = 16
    learning_rate: ClassVar[float] = 2e-3  # found by trying; 6e-3 was too high

    spatial_dims: int = 2
    channels: tuple[int, ...] = (64, 128, 256, 512, 1024)
    """Widths of the five encoder stages; the decoder mirrors them."""
    lms: bool = False
    """Local multi-scale blocks in place of the convolutions of all encoder stages but the first."""

    def _constraints(self) -> Constraints:
        step = len(KERNELS) if self.lms else 1
        widths_fit = all(c >= 1 and c % step == 0 for c in self.channels)
        return {
            "channels": (len(self.channels) == 5 and widths_fit, f"five multiples of {step}"),
        }

    def build(self) -> "UNet":
        """Return the network with fresh weights."""
        return UNet(self)


def _convolutions(dims: int, c_in: int, c: int) -> nn.Sequential:
    norm = _NORM[dims]
    first = conv_unit(dims, c_in, c, 3, norm, nn.ReLU, bias=True)
    return nn.Sequential(*first, *conv_unit(dims, c, c, 3, norm, nn.ReLU, bias=True))


class UNet(nn.Module):
    """The network. Any size: it pads to a multiple of 16 and crops the logits back."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        dims, norm, widths = config.spatial_dims, _NORM[config.spatial_dims], config.channels
        self.encoder = nn.ModuleList([_convolutions(dims, config.in_channels, widths[0])])
        self.encoder.extend(
            lms_stage(dims, a, b, norm) if config.lms else _convolutions(dims, a, b)
            for a, b in pairwise(widths)
        )
        self.pool = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(2)
        self.decoder = nn.ModuleList(
            UpStage(dims, a, b, norm, mode="nearest", merge=_convolutions(dims, 2 * b, b))
            for a, b in pairwise(widths[::-1])
        )
        self.head = conv(dims, widths[0], config.num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, in_channels, *S)`` -> logits ``(B, num_classes, *S)``."""
        padded = pad_to_train(image, self.config.size_divisor, self.training)
        first, *deeper = self.encoder
        encoded = [first(padded)]  # (B, 64, *S)
        for stage in deeper:  # (B, 128, *S/2), (B, 256, *S/4), (B, 512, *S/8), (B, 1024, *S/16)
            encoded.append(stage(self.pool(encoded[-1])))
        *skips, x = encoded
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            x = stage(x, skip)  # (B, 512, *S/8), (B, 256, *S/4), (B, 128, *S/2), (B, 64, *S)
        return crop_to(self.head(x), image.shape[2:])


@preset(
    "unet",
    Published(
        where="LGMSNet, Table 1, U-Net",
        in_channels=3,
        num_classes=1,
        size=(256, 256),
        parameters="34.52 M",
        macs="65.52 G",
        note="34.53 M where LMS is added; thop counts normalisation and upsampling as well.",
    ),
)
def unet(in_channels: int, num_classes: int) -> UNetConfig:
    """Return the plain network: 34,527,041 weights for 3 channels and 1 class."""
    return UNetConfig(in_channels=in_channels, num_classes=num_classes)


@preset(
    "unet_lms",
    Published(
        where="LGMSNet, section 4.5, U-Net +LMS",
        in_channels=3,
        num_classes=1,
        size=(256, 256),
        parameters="17.33 M",
    ),
)
def unet_lms(in_channels: int, num_classes: int) -> UNetConfig:
    """Return the network with local blocks: 17,330,081 weights for 3 channels and 1 class."""
    return UNetConfig(in_channels=in_channels, num_classes=num_classes, lms=True)

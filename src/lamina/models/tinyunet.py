"""TinyU-Net: half a million weights that see far through cascades of depthwise convolutions.

Chen, Chen, Wang, Cheng, Zhang, Chen: *TinyU-Net: Lighter Yet Better U-Net with Cascaded
Multi-Receptive Fields*, MICCAI 2024, doi 10.1007/978-3-031-72114-4_60. Weights match its 0.48 M,
and LGMSNet's 0.69 M with local multi-scale blocks (``lms``). What these follow is the architecture
that the authors published:

* Upsampling is bicubic, which exists for images only. There is no block below the fourth pooling:
  its result goes straight to the decoder.
* The residual that a block of equal input and output width would have occurs nowhere.
* The LMS variant keeps the first encoder stage and the whole decoder, as U-Net's does.

Shapes: ``B`` batch, ``C`` channels, ``H, W`` spatial axes in array order.
"""

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.models import Constraints, NetworkConfig, preset
from lamina.models.layers.convolution import conv, conv_unit
from lamina.models.layers.lms import lms_stage
from lamina.models.layers.size import crop_to, pad_to_multiple
from lamina.models.published import Published

CASCADE = 7  # depthwise convolutions of every block, each of which sees one voxel further

_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03)


@dataclass(frozen=True, kw_only=True)
class TinyUNetConfig(NetworkConfig):
    """Settings of :class:`TinyUNet`, in the order data meet them."""

    size_divisor: ClassVar[int] = 16

    spatial_dims: int = 2
    """Only 2: images."""
    channels: tuple[int, ...] = (64, 128, 256, 512)
    """Widths of the four encoder stages; the decoder mirrors them."""
    lms: bool = False
    """Local multi-scale blocks in place of the cascades of all encoder stages but the first."""

    def _constraints(self) -> Constraints:
        step = 2 * (CASCADE + 1)
        widths_fit = all(c >= 1 and c % step == 0 for c in self.channels)
        return {
            "spatial_dims": (self.spatial_dims == 2, "2, for upsampling is bicubic"),
            "channels": (len(self.channels) == 4 and widths_fit, f"four multiples of {step}"),
        }

    def build(self) -> "TinyUNet":
        """Return the network with fresh weights."""
        return TinyUNet(self)


class CMRF(nn.Module):
    """Cascaded multi-receptive fields: one thin map and ever wider views of it, mixed pointwise."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        share = channels // (2 * (CASCADE + 1))
        self.squeeze = conv_unit(2, in_channels, 2 * share, 1, _norm, nn.GELU)
        self.cascade = nn.ModuleList(
            conv_unit(2, share, share, 3, _norm, nn.Identity, groups=share) for _ in range(CASCADE)
        )
        self.expand = conv_unit(2, (CASCADE + 1) * share, channels, 1, _norm, nn.GELU)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, H, W) -> (B, C, H, W)``."""
        squeezed = self.squeeze(x)  # (B, C/8, H, W)
        view = squeezed[:, 1::2]
        views = [squeezed[:, ::2] + view]
        for look in self.cascade:
            view = look(view)
            views.append(view)
        expanded: Tensor = self.expand(torch.cat(views, dim=1))
        return expanded


class TinyUNet(nn.Module):
    """The network. Any size: it pads to a multiple of 16 and crops the logits back."""

    def __init__(self, config: TinyUNetConfig) -> None:
        super().__init__()
        self.config = config
        widths = config.channels
        self.encoder = nn.ModuleList([CMRF(config.in_channels, widths[0])])
        self.encoder.extend(
            lms_stage(2, a, b, nn.BatchNorm2d) if config.lms else CMRF(a, b)
            for a, b in pairwise(widths)
        )
        self.pool = nn.MaxPool2d(2)
        below = (widths[-1], *widths[:0:-1])
        self.decoder = nn.ModuleList(
            CMRF(a + b, b) for a, b in zip(below, widths[::-1], strict=True)
        )
        self.head = conv(2, widths[0], config.num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, in_channels, H, W)`` -> logits ``(B, num_classes, H, W)``."""
        x, skips = pad_to_multiple(image, self.config.size_divisor), []
        for stage in self.encoder:  # skips of 64, 128, 256, 512 channels; (B, 512, H/16, W/16)
            skips.append(stage(x))
            x = self.pool(skips[-1])
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            larger = F.interpolate(x, scale_factor=2, mode="bicubic", align_corners=False)
            x = stage(torch.cat([larger, skip], dim=1))  # 512, 256, 128, 64 channels
        return crop_to(self.head(x), image.shape[2:])


@preset(
    "tinyunet",
    Published(
        where="LGMSNet, Table 1, TinyUnet",
        in_channels=3,
        num_classes=1,
        size=(256, 256),
        parameters="0.48 M",
        macs="1.66 G",
        note="thop counts normalisation as well.",
    ),
)
def tinyunet(in_channels: int, num_classes: int) -> TinyUNetConfig:
    """Return the paper's network: 481,105 weights for 3 channels and 1 class."""
    return TinyUNetConfig(in_channels=in_channels, num_classes=num_classes)


@preset(
    "tinyunet_lms",
    Published(
        where="LGMSNet, section 4.5, TinyU-Net +LMS",
        in_channels=3,
        num_classes=1,
        size=(256, 256),
        parameters="0.69 M",
        note="690,941 were counted elsewhere; but 481,105 less the 199,864 of the stages exchanged "
        "and with the 409,696 of the blocks in their place are 690,937.",
    ),
)
def tinyunet_lms(in_channels: int, num_classes: int) -> TinyUNetConfig:
    """Return the network with local blocks: 690,937 weights for 3 channels and 1 class."""
    return TinyUNetConfig(in_channels=in_channels, num_classes=num_classes, lms=True)

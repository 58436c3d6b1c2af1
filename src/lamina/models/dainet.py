"""DAI-Net: a U-Net whose second encoder reads where a vision transformer looks in the same slice.

Yeganeh, Farshad, Weinberger, Ahmadi, Adeli, Navab: *Transformers Pay Attention to Convolutions:
Leveraging Emerging Properties of ViTs by Dual Attention-Image Network*, ICCV Workshops 2023. The
maps come from :mod:`lamina.models.vit` and are computed once per slice, beforehand. The paper
prints neither widths nor counts of weights. Where its text leaves choices open:

* Full resolution has 32 channels; both encoders are 4 times as wide at their fourth level, so that
  what is merged is as wide as in a plain U-Net. ``width`` and ``e4`` offer the alternatives.
* A block is twice a convolution without bias, batch normalisation and ReLU, in this order.
* Switch 1 is the skip of full resolution, 4 the deepest: removing the *last* one is said to help
  (section 4.3.2), and the ablation removes 1 first. One that is off narrows the decoder.

Shapes: ``B`` batch, ``C`` image channels, ``h`` attention maps, ``f`` width at full resolution.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lamina.models import Constraints, NetworkConfig, Preset, preset
from lamina.models.layers.convolution import conv, conv_unit, upsampling_conv
from lamina.models.layers.size import crop_to, pad_to_train
from lamina.models.published import Published


@dataclass(frozen=True, kw_only=True)
class DAINetConfig(NetworkConfig):
    """Settings of :class:`DAINet`, in the order data meet them."""

    size_divisor: ClassVar[int] = 16
    learning_rate: ClassVar[float] = 2e-3  # found by trying; 6e-3 was too high

    attention_maps: int = 6
    """Further channels of the input, after those of the image; without any: a plain U-Net."""
    spatial_dims: int = 2
    """2: attention maps are those of slices."""
    encoders: Literal["dual", "single"] = "dual"
    """One encoder each for image and maps, or one for both: a U-Net with more input channels."""
    width: int = 32
    """Channels f at full resolution."""
    e4: Literal[4, 8] = 4
    """Channels of each of two encoders at 1/8, in units of f; a single one has 8."""
    att_skips: tuple[bool, bool, bool, bool] = (True, True, True, True)
    """Switches 1 to 4: whether skips of a second encoder at 1, 1/2, 1/4, 1/8 reach the decoder."""

    def _constraints(self) -> Constraints:
        return {
            "attention_maps": (self.attention_maps >= 0, "at least 0"),
            "spatial_dims": (self.spatial_dims == 2, "2"),
            "encoders": (self.encoders in ("dual", "single"), "'dual' or 'single'"),
            "width": (self.width >= 1, "at least 1"),
            "e4": (self.e4 in (4, 8), "4 or 8"),
            "att_skips": (len(self.att_skips) == 4, "four switches"),
        }

    def build(self) -> "DAINet":
        """Return the network with fresh weights."""
        return DAINet(self)


def _block(c_in: int, c: int) -> nn.Sequential:
    units = (conv_unit(2, a, c, 3, nn.BatchNorm2d, nn.ReLU) for a in (c_in, c))
    return nn.Sequential(*(layer for unit in units for layer in unit))


class Encoder(nn.Module):
    """Four blocks, each followed by max-pooling: E_x or E_v of Fig. 2."""

    def __init__(self, c_in: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(_block(a, b) for a, b in pairwise((c_in, *widths)))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> tuple[list[Tensor], Tensor]:
        """``(B, C_in, H, W)`` -> four levels, at 1, 1/2, 1/4 and 1/8, and the last one pooled."""
        levels = []
        for block in self.blocks:
            levels.append(block(x))
            x = self.pool(levels[-1])
        return levels, x


class DecoderStage(nn.Module):
    """Doubles the size, halves the channels, and takes in the skips of one level (Fig. 2)."""

    def __init__(self, c_in: int, skip_channels: int) -> None:
        super().__init__()
        c = c_in // 2
        self.upsample = upsampling_conv(2, c_in, c)
        self.fuse = _block(c + skip_channels, c)

    def forward(self, x: Tensor, skips: Sequence[Tensor]) -> Tensor:
        """``(B, C_in, H / 2, W / 2)``, skips ``(B, *, H, W)`` -> ``(B, C_in / 2, H, W)``."""
        fused: Tensor = self.fuse(torch.cat([self.upsample(x), *skips], dim=1))
        return fused


class DAINet(nn.Module):
    """The network of section 3.3. Any size: pads to a multiple of 16 and crops the logits back."""

    def __init__(self, config: DAINetConfig) -> None:
        super().__init__()
        self.config = config
        f, channels, maps = config.width, config.in_channels, config.attention_maps
        dual = config.encoders == "dual" and maps > 0
        self.inputs = (channels, maps) if dual else (channels + maps,)
        self.num_skips = [1 + (dual and kept) for kept in config.att_skips]
        widths = (f, 2 * f, 4 * f, (config.e4 if dual else 8) * f)
        self.encoders = nn.ModuleList(Encoder(c, widths) for c in self.inputs)
        self.merge = _block(len(self.inputs) * widths[-1], 16 * f)
        stages = zip((2 * f, 4 * f, 8 * f, 16 * f), widths, self.num_skips, strict=True)
        deepest_first = [DecoderStage(c, width * skips) for c, width, skips in stages][::-1]
        self.decoder = nn.ModuleList(deepest_first)
        self.head = conv(2, f, config.num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C + h, H, W)``, the maps last -> logits ``(B, num_classes, H, W)``."""
        padded = pad_to_train(image, self.config.size_divisor, self.training)
        parts = padded.split(self.inputs, dim=1)
        encoded = [encoder(part) for encoder, part in zip(self.encoders, parts, strict=True)]
        x = self.merge(torch.cat([pooled for _, pooled in encoded], dim=1))  # (B, 16 f, *S/16)
        for level, stage in zip((3, 2, 1, 0), self.decoder, strict=True):
            skips = [levels[level] for levels, _ in encoded[: self.num_skips[level]]]
            x = stage(x, skips)  # (B, 8 f, *S/8), (B, 4 f, *S/4), (B, 2 f, *S/2), (B, f, *S)
        return crop_to(self.head(x), image.shape[2:])


def _row(**options: Any) -> Preset:
    def row(in_channels: int, num_classes: int) -> DAINetConfig:
        return DAINetConfig(in_channels=in_channels, num_classes=num_classes, **options)

    return row


_ROWS: dict[str, dict[str, Any]] = {
    "dainet": {},
    "dainet_0111": {"att_skips": (False, True, True, True)},
    "dainet_0001": {"att_skips": (False, False, False, True)},
    "dainet_0000": {"att_skips": (False, False, False, False)},
    "dainet_single": {"encoders": "single"},
    "dainet_unet": {"attention_maps": 0},
    "dainet_wide": {"width": 64},
}
"""The ablation of Table 3, its baseline of Table 2, and the network with twice the width (ours)."""

_SETTING = Published(
    where="DAI-Net, ACDC",
    in_channels=1,
    num_classes=4,
    size=(224, 224),
    note="The paper prints neither weights nor operations.",
)

for _name, _options in _ROWS.items():
    preset(_name, _SETTING)(_row(**_options))

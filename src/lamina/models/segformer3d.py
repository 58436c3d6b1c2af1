"""SegFormer3D: a transformer over maps of four sizes, decoded by a few linear layers.

Perera, Navard, Yilmaz: *SegFormer3D: an Efficient Transformer for 3D Medical Image Segmentation*,
CVPR Workshops 2024, arXiv 2404.10156. Weights match its 4.51 M, and the 4,511,939 that its authors
counted. Where its text leaves choices open, these meet them:

* Widths, depths, heads and reductions are those of the authors' BraTS experiment.
* Queries, keys and values have no biases. Their later code gives them some, and adds a batch
  normalisation to every feed-forward network and layer normalisations to the decoder.
* Each stage normalises its patches and its result. Weights start as PyTorch's layers do.

Shapes: ``B`` batch, ``C`` channels, ``*S`` two or three spatial axes in array order.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.models import Constraints, NetworkConfig, preset
from lamina.models.layers.convolution import Layer, conv, conv_unit
from lamina.models.layers.norm import ChannelNorm
from lamina.models.layers.size import crop_to, pad_to_multiple, resize
from lamina.models.published import Published

STRIDES, KERNELS = (4, 2, 2, 2), (7, 3, 3, 3)  # of the four patch embeddings, which overlap

_CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_NORM: dict[int, Layer] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@dataclass(frozen=True, kw_only=True)
class SegFormer3DConfig(NetworkConfig):
    """Settings of :class:`SegFormer3D`, in the order data meet them."""

    size_divisor: ClassVar[int] = 32

    spatial_dims: int = 3
    channels: tuple[int, ...] = (32, 64, 160, 256)
    """Widths of the four encoder stages, whose maps are 4, 8, 16 and 32 times smaller."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Transformer blocks of the four stages."""
    num_heads: tuple[int, ...] = (1, 2, 5, 8)
    """Heads of every attention in the four stages."""
    reductions: tuple[int, ...] = (4, 2, 1, 1)
    """How much coarser, along each axis, keys and values are than queries, in the four stages."""
    mlp_ratio: int = 4
    """Hidden width of the feed-forward networks, as a multiple of the stage's."""
    decoder_channels: int = 256
    """Width of the decoder."""

    def _constraints(self) -> Constraints:
        widths = zip(self.channels, self.num_heads, strict=False)
        heads_fit = all(heads >= 1 and c % heads == 0 for c, heads in widths)
        coarsest = zip((8, 4, 2, 1), self.reductions, strict=False)
        reductions_fit = all(r >= 1 and most % r == 0 for most, r in coarsest)
        return {
            "channels": (len(self.channels) == 4 and min(self.channels) >= 1, "four widths from 1"),
            "depths": (len(self.depths) == 4 and min(self.depths) >= 1, "four numbers from 1"),
            "num_heads": (len(self.num_heads) == 4 and heads_fit, "four divisors of channels"),
            "reductions": (
                len(self.reductions) == 4 and reductions_fit,
                "four divisors of 8, 4, 2 and 1",
            ),
            "mlp_ratio": (self.mlp_ratio >= 1, "at least 1"),
            "decoder_channels": (self.decoder_channels >= 1, "at least 1"),
        }

    def build(self) -> "SegFormer3D":
        """Return the network with fresh weights."""
        return SegFormer3D(self)


class EfficientSelfAttention(nn.Module):
    """Attention of every voxel to a coarser copy of the map."""

    def __init__(self, dims: int, channels: int, num_heads: int, reduction: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query = conv(dims, channels, channels, 1, bias=False)
        self.reduce = nn.Sequential()
        if reduction > 1:
            self.reduce.append(_CONV[dims](channels, channels, reduction, stride=reduction))
            self.reduce.append(ChannelNorm(channels))
        self.key_value = conv(dims, channels, 2 * channels, 1, bias=False)
        self.project = conv(dims, channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        key, value = self.key_value(self.reduce(x)).chunk(2, dim=1)
        query, key, value = (self._heads(part) for part in (self.query(x), key, value))
        mixed = F.scaled_dot_product_attention(query, key, value)
        projected: Tensor = self.project(mixed.transpose(-1, -2).reshape(x.shape))
        return projected

    def _heads(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, num_heads, prod(S), C / num_heads)``."""
        heads: Tensor = x.flatten(2).unflatten(1, (self.num_heads, -1))
        return heads.transpose(-1, -2)


class TransformerBlock(nn.Module):
    """Attention, then a feed-forward network that sees its neighbours (mix-FFN)."""

    def __init__(self, config: SegFormer3DConfig, stage: int) -> None:
        super().__init__()
        dims, c = config.spatial_dims, config.channels[stage]
        heads, reduction = config.num_heads[stage], config.reductions[stage]
        hidden = config.mlp_ratio * c
        self.attention = nn.Sequential(
            ChannelNorm(c), EfficientSelfAttention(dims, c, heads, reduction)
        )
        self.mix = nn.Sequential(
            ChannelNorm(c),
            conv(dims, c, hidden, 1),
            conv(dims, hidden, hidden, 3, groups=hidden),
            nn.GELU(),
            conv(dims, hidden, c, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        x = x + self.attention(x)
        mixed: Tensor = x + self.mix(x)
        return mixed


def _stage(config: SegFormer3DConfig, stage: int, c_in: int, c: int) -> nn.Sequential:
    """Return overlapping patches and what transforms them, each step normalised."""
    patches = conv(config.spatial_dims, c_in, c, KERNELS[stage], stride=STRIDES[stage])
    blocks = (TransformerBlock(config, stage) for _ in range(config.depths[stage]))
    return nn.Sequential(patches, ChannelNorm(c), *blocks, ChannelNorm(c))


class SegFormer3D(nn.Module):
    """The network. Any size: it pads to a multiple of 32 and crops the logits back."""

    def __init__(self, config: SegFormer3DConfig) -> None:
        super().__init__()
        self.config = config
        dims, width = config.spatial_dims, config.decoder_channels
        steps = enumerate(pairwise((config.in_channels, *config.channels)))
        self.encoder = nn.ModuleList(_stage(config, stage, a, b) for stage, (a, b) in steps)
        self.unify = nn.ModuleList(conv(dims, c, width, 1) for c in config.channels)
        self.fuse = conv_unit(dims, 4 * width, width, 1, _NORM[dims], nn.ReLU)
        self.head = conv(dims, width, config.num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, in_channels, *S)`` -> logits ``(B, num_classes, *S)``."""
        x = padded = pad_to_multiple(image, self.config.size_divisor)
        unified: list[Tensor] = []  # each (B, 256, *S/4), the coarsest first
        for stage, unify in zip(self.encoder, self.unify, strict=True):
            x = stage(x)  # (B, 32, *S/4), (B, 64, *S/8), (B, 160, *S/16), (B, 256, *S/32)
            finest = unified[-1].shape[2:] if unified else x.shape[2:]
            unified.insert(0, resize(unify(x), finest))
        logits = self.head(self.fuse(torch.cat(unified, dim=1)))
        return crop_to(resize(logits, padded.shape[2:]), image.shape[2:])


@preset(
    "segformer3d",
    Published(
        where="LightMedSeg, Table 3, SegFormer3D",
        in_channels=4,
        num_classes=3,
        size=(128, 128, 128),
        parameters="4.51 M",
        macs="17.5 G",
        note="The paper does not say what it counts; its authors' profile has 12.8 G.",
    ),
)
def segformer3d(in_channels: int, num_classes: int) -> SegFormer3DConfig:
    """Return the paper's network: 4,511,939 weights for 4 channels and 3 classes."""
    return SegFormer3DConfig(in_channels=in_channels, num_classes=num_classes)

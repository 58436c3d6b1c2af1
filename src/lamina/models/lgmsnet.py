"""LGMSNet: a thin U-shaped network with kernels of four widths above and sparse attention below.

Dong, Tang, Mao, Gao, Zhou: *LGMSNet: Thinning a medical image segmentation model via dual-level
multiscale fusion*, 2025, arXiv 2508.15476. Weights for images match Table 1's 2.32 M. No public
configuration for volumes has Table 3's 9.86 M; the presets are two that the authors published.
Where text and published code disagree, these follow the code, which alone meets the 2.32 M:

* LMS adds its input before the group normalisation and activates by GELU; SiLU follows the others.
* LMS serves the three high-resolution encoder stages only. Their decoder stages are Fusion alone,
  the deepest decoder stage is GMS alone, and the one above it is both.
* GMS widens in its first convolution. Its convolutional branch is two depthwise convolutions, the
  second of which is one number per channel, and adds its input.
* Volumes are normalised case by case and without weights, except in that branch. Constants in front
  of such a normalisation, such as the biases of stem and upsampling, cannot change the output.

The deepest map has at least two voxels along each axis, so that images of one voxel train as well.
Shapes: ``B`` batch, ``C`` channels, ``*S`` two or three spatial axes in array order.
"""

from dataclasses import dataclass
from functools import partial
from itertools import chain, pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.models import Constraints, NetworkConfig, preset
from lamina.models.layers.convolution import Layer, conv, conv_unit
from lamina.models.layers.lms import KERNELS, UpStage, lms_stage
from lamina.models.layers.size import crop_to, pad_to_multiple
from lamina.models.published import Published

HEADS, HEAD_CHANNELS = 4, 8  # of every attention
PATCH = 2  # voxels along each axis

_NORM: dict[int, Layer] = {2: nn.BatchNorm2d, 3: nn.InstanceNorm3d}
_BRANCH_NORM: dict[tuple[str, int], Layer] = {
    ("batch", 2): nn.BatchNorm2d,
    ("batch", 3): nn.BatchNorm3d,
    ("instance", 2): partial(nn.InstanceNorm2d, affine=True),
    ("instance", 3): partial(nn.InstanceNorm3d, affine=True),
}


@dataclass(frozen=True, kw_only=True)
class LGMSNetConfig(NetworkConfig):
    """Settings of :class:`LGMSNet`, in the order data meet them."""

    size_divisor: ClassVar[int] = 32

    spatial_dims: int = 2
    channels: tuple[int, ...] = (16, 32, 64, 128, 128)
    """Widths of the five encoder stages; the decoder mirrors them."""
    depths: tuple[int, ...] = (1, 1, 1)
    """LMS blocks in each of the first three stages."""
    kernels: tuple[int, ...] = KERNELS
    """Width of the convolution of each quarter of an LMS block's channels (Fig. 7)."""
    splits: tuple[tuple[int, int], ...] = ((96, 32), (96, 32), (96, 32), (48, 16))
    """Channels for attention and for convolution in each GMS block, in the order data meet them; 0:
    a block without that branch (Fig. 7)."""
    branch_norm: Literal["batch", "instance"] = "batch"
    """Normalisation of the convolutional branch of GMS; "instance" where batches are of one case
    (ours), for batch statistics of training are then far from the running ones of evaluation."""

    @property
    def learning_rate(self) -> float | None:
        """Of images less than the usual one, as trying some showed; of volumes the usual one."""
        return 2e-3 if self.spatial_dims == 2 else None

    def _constraints(self) -> Constraints:
        channels_fit = len(self.channels) == 5 and min(self.channels) >= 1
        lms_fits = all(c % len(KERNELS) == 0 for c in self.channels[:2])
        widths = [self.channels[stage] for stage in (3, 4, 3, 2)] if channels_fit else None
        split_widths = [sum(pair) for pair in self.splits]
        shares_fit = len(self.splits) == 4 and all(min(pair) >= 0 for pair in self.splits)
        odd = all(k >= 1 and k % 2 for k in self.kernels)
        return {
            "channels": (channels_fit and lms_fits, "five widths, the first two multiples of 4"),
            "depths": (len(self.depths) == 3 and min(self.depths) >= 1, "three, each at least 1"),
            "kernels": (len(self.kernels) == len(KERNELS) and odd, "four odd numbers"),
            "splits": (
                shares_fit and split_widths == (widths or split_widths),
                f"four pairs of widths{f' with sums {widths}' if widths else ''}",
            ),
            "branch_norm": (self.branch_norm in ("batch", "instance"), "'batch' or 'instance'"),
        }

    def build(self) -> "LGMSNet":
        """Return the network with fresh weights."""
        return LGMSNet(self)


def _norm(config: LGMSNetConfig) -> Layer:
    return _NORM[config.spatial_dims]


def to_tokens(x: Tensor) -> Tensor:
    """Gather voxels that have the same place in their patch: ``(B, C, *S) -> (B * P, N, C)``.

    ``P`` is the number of voxels of a patch, ``N`` the number of patches; both count row by row.
    """
    dims = x.dim() - 2
    patched = x.reshape(*x.shape[:2], *(k for n in x.shape[2:] for k in (n // PATCH, PATCH)))
    patches, places = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    tokens = patched.permute(0, *places, *patches, 1)  # (B, *places, *patches, C)
    return tokens.reshape(x.shape[0] * PATCH**dims, -1, x.shape[1])


def from_tokens(tokens: Tensor, size: torch.Size) -> Tensor:
    """Undo :func:`to_tokens`: ``(B * P, N, C) -> (B, C, *size)``."""
    dims = len(size)
    patched = tokens.reshape(-1, *(PATCH,) * dims, *(n // PATCH for n in size), tokens.shape[2])
    axes = (axis for i in range(dims) for axis in (1 + dims + i, 1 + i))
    return patched.permute(0, 1 + 2 * dims, *axes).reshape(-1, tokens.shape[2], *size)


class SparseTransformer(nn.Module):
    """One layer of attention among the voxels of equal place in their patch (section 3.2, Eq. 6).

    Places never mix, so that attention costs as many times less as a patch has voxels.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        inner = HEADS * HEAD_CHANNELS
        self.norm = nn.LayerNorm(channels)
        self.qkv = nn.Linear(channels, 3 * inner, bias=False)
        self.out = nn.Linear(inner, channels)
        widen, narrow = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.feed_forward = nn.Sequential(nn.LayerNorm(channels), widen, nn.SiLU(), narrow)

    def attend(self, tokens: Tensor) -> Tensor:
        """``(M, N, C) -> (M, N, C)``: each of M sets of N tokens for itself."""
        heads = self.qkv(self.norm(tokens)).unflatten(2, (3, HEADS, HEAD_CHANNELS))
        query, key, value = heads.transpose(1, 3).unbind(2)  # (M, heads, N, 8)
        attended = F.scaled_dot_product_attention(query, key, value)
        mixed: Tensor = self.out(attended.transpose(1, 2).flatten(2))
        return mixed

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)`` for even sizes."""
        tokens = to_tokens(x)
        tokens = tokens + self.attend(tokens)
        tokens = tokens + self.feed_forward(tokens)
        return from_tokens(tokens, x.shape[2:])


class GMS(nn.Module):
    """Attention for some channels, depthwise convolution for the others (section 3.2, Eq. 5-8)."""

    def __init__(self, config: LGMSNetConfig, in_channels: int, split: tuple[int, int]) -> None:
        super().__init__()
        dims, norm, c, (wide, narrow) = config.spatial_dims, _norm(config), sum(split), split
        self.split = split
        self.local = conv_unit(dims, in_channels, c, 3, norm)
        self.mix = conv_unit(dims, c, c, 1, norm)
        self.transformer = SparseTransformer(wide, hidden=2 * c) if wide else nn.Identity()
        branch_norm = _BRANCH_NORM[config.branch_norm, dims]
        units = (
            conv_unit(dims, narrow, narrow, k, branch_norm, activation, groups=narrow)
            for k, activation in ((3, nn.ReLU), (1, nn.Identity))
        )
        self.branch = nn.Sequential(*chain(*units)) if narrow else nn.Identity()
        self.fuse = conv_unit(dims, c, c, 1, norm)
        self.out = conv_unit(dims, c + in_channels, c, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, *S) -> (B, C, *S)`` for even sizes."""
        far, near = self.mix(self.local(x)).split(self.split, dim=1)
        both = torch.cat([self.transformer(far), near + self.branch(near)], dim=1)
        merged: Tensor = self.out(torch.cat([self.fuse(both), x], dim=1))
        return merged


def fusion(config: LGMSNetConfig, channels: int) -> nn.Sequential:
    """Return what halves the channels of skip and decoder, first each for itself (section 3.3)."""
    dims, norm, c = config.spatial_dims, _norm(config), channels
    return nn.Sequential(
        *(conv(dims, 2 * c, 2 * c, 3, groups=2), nn.GELU(), norm(2 * c)),
        *(conv(dims, 2 * c, 4 * c, 1), nn.GELU(), norm(4 * c)),
        *(conv(dims, 4 * c, c, 1), nn.GELU(), norm(c)),
    )


class LGMSNet(nn.Module):
    """The network of section 3. Any size: it pads to a multiple of 32 and crops the logits back."""

    def __init__(self, config: LGMSNetConfig) -> None:
        super().__init__()
        self.config = config
        dims, norm, (d0, d1, d2, d3, d4) = config.spatial_dims, _norm(config), config.channels
        split4, split5, split_up5, split_up4 = config.splits
        self.stem = conv_unit(dims, config.in_channels, d0, 3, norm, nn.ReLU, bias=True)
        widths = zip((d0, d0, d1), (d0, d1, d2), config.depths, strict=True)
        self.encoder = nn.ModuleList(
            lms_stage(dims, a, b, norm, depth, config.kernels) for a, b, depth in widths
        )
        self.encoder.extend([GMS(config, d2, split4), GMS(config, d3, split5)])
        self.pool = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(2)
        merges = (
            GMS(config, 2 * d3, split_up5),
            nn.Sequential(fusion(config, d2), GMS(config, d2, split_up4)),
            fusion(config, d1),
            fusion(config, d0),
        )
        mode = "bilinear" if dims == 2 else "trilinear"
        self.decoder = nn.ModuleList(
            UpStage(dims, a, b, norm, mode=mode, merge=merge)
            for (a, b), merge in zip(pairwise((d4, d3, d2, d1, d0)), merges, strict=True)
        )
        self.head = conv(dims, d0, config.num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, in_channels, *S)`` -> logits ``(B, num_classes, *S)``."""
        x = pad_to_multiple(image, self.config.size_divisor)
        first, *deeper = self.encoder
        encoded = [first(self.stem(x))]  # (B, 16, *S)
        for stage in deeper:  # (B, 32, *S/2), (B, 64, *S/4), (B, 128, *S/8), (B, 128, *S/16)
            encoded.append(stage(self.pool(encoded[-1])))
        *skips, x = encoded
        for stage, skip in zip(self.decoder, reversed(skips), strict=True):
            x = stage(x, skip)  # (B, 128, *S/8), (B, 64, *S/4), (B, 32, *S/2), (B, 16, *S)
        return crop_to(self.head(x), image.shape[2:])


@preset(
    "lgmsnet_2d",
    Published(
        where="LGMSNet, Table 1, LGMSNet",
        in_channels=3,
        num_classes=1,
        size=(256, 256),
        parameters="2.32 M",
        macs="4.89 G",
        note="thop leaves attention's matrix products out and counts normalisation and upsampling.",
    ),
)
def lgmsnet_2d(in_channels: int, num_classes: int) -> LGMSNetConfig:
    """Return the paper's network for images: 2,321,393 weights for 3 channels and 1 class."""
    return LGMSNetConfig(in_channels=in_channels, num_classes=num_classes)


@preset(
    "lgmsnet_3d",
    Published(
        where="LGMSNet, Table 3, LGMSNet",
        in_channels=1,
        num_classes=14,
        size=(96, 96, 96),
        note="Unmatched: the 9.86 M printed there are of no public configuration.",
    ),
)
def lgmsnet_3d(in_channels: int, num_classes: int) -> LGMSNetConfig:
    """Return what the authors' launch script trains: 6,193,742 weights for 1 channel, 14 classes.

    It is not the network of Table 3, whose 9.86 M weights no public configuration has.
    """
    return LGMSNetConfig(in_channels=in_channels, num_classes=num_classes, spatial_dims=3)


@preset("lgmsnet_3d_l1")
def lgmsnet_3d_l1(in_channels: int, num_classes: int) -> LGMSNetConfig:
    """Return the authors' larger configuration: 14,805,134 weights for 1 channel, 14 classes."""
    return LGMSNetConfig(
        in_channels=in_channels,
        num_classes=num_classes,
        spatial_dims=3,
        channels=(32, 64, 128, 160, 256),
        depths=(1, 1, 2),
        splits=((120, 40), (192, 64), (120, 40), (96, 32)),
    )

"""GLIMS: dilated depthwise convolutions on fine grids, attention within windows on coarse ones.

Yazici, Oksuz, Ekenel: *GLIMS: Attention-Guided Lightweight Multi-Scale Hybrid Network for
Volumetric Semantic Segmentation*, 2024, arXiv 2404.17854. Blocks name their section and figure;
where text and authors' code differ, the code decides, whose weights are as many as Table 4 says.

* ``released`` networks compute what that code does, slips included: CSAB's spatial gate is one
  number for all voxels, and attention has the slips that :mod:`lamina.models.layers.swin` lists.
* It takes 96x96x96 voxels only; for other sizes we interpolate position embeddings.
* It runs in float32, and so do we, unless told otherwise: bfloat16 changes logits by a third.
* Table 3 names networks without describing them. A convolutional branch has a 3x3x3 convolution,
  instance normalisation and PReLU for each DACB. A transformer branch has Swin stages on all levels
  but the finest, which is convolutional: T2's depth at 1/16 of the resolution, T1's above. Without
  transformer bottleneck, as without T2 in Table 4, DACBs take the place of Swin stages.

Shapes: ``B`` batch, ``C`` channels, ``*S`` three spatial axes in array order.
"""

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lamina.models import Constraints, NetworkConfig, preset
from lamina.models.layers import swin
from lamina.models.layers.convolution import conv, downsampling_conv, upsampling_conv
from lamina.models.layers.gating import over_space, spatial_mean
from lamina.models.layers.size import crop_to, pad_to_multiple
from lamina.models.published import Published

LEVELS = 5  # with a skip connection: of 1, 1/2, ... 1/16 of the resolution
T1 = 3  # the level that T1 stands beside; T2 is the next one, T_b is below all

Branch = Literal["hybrid", "conv", "swin"]


@dataclass(frozen=True, kw_only=True)
class GLIMSConfig(NetworkConfig):
    """Settings of :class:`GLIMS`, in the order data meet them."""

    size_divisor: ClassVar[int] = 32
    precision: ClassVar[Literal["fp32"]] = "fp32"

    spatial_dims: int = 3
    """3: volumes only."""
    roi_size: tuple[int, int, int] = (96, 96, 96)
    """Usual size of the image, which position embeddings are learned for."""
    feature_size: int = 24
    """Channels of the finest level; each further one has twice as many."""
    encoder: Branch = "hybrid"
    """``"hybrid"``: DACBs, T1 and T2; ``"conv"``, ``"swin"``: one kind only (Table 3)."""
    decoder: Branch = "hybrid"
    """The same for the way up."""
    dilations: tuple[int, ...] = (1, 2, 3)
    """Of each DACB's branches."""
    depths: tuple[int, int, int] = (2, 6, 2)
    """Blocks of T1, T2 and T_b; 0: no such stage, for T2: DACBs instead."""
    heads: tuple[int, int, int] = (6, 12, 24)
    """Attention heads of T1, T2 and T_b."""
    attention_guidance: bool = True
    """CSABs in the skip connections."""
    deep_supervision: bool = True
    """Have heads on the next three levels, too, and return their logits in training."""
    released: bool = True
    """Compute what the authors' code does; off: its slips mended."""

    def _constraints(self) -> Constraints:
        c, transformer = self.feature_size, "swin" in (self.encoder, self.decoder)
        widths = (2 * c if transformer else 8 * c, 16 * c, 32 * c)
        divide = all(n >= 1 and w % n == 0 for n, w in zip(self.heads, widths, strict=True))
        deep = min(self.depths) >= 0 and (min(self.depths[:2]) >= 1 or not transformer)
        return {
            "spatial_dims": (self.spatial_dims == 3, "3"),
            "roi_size": (all(n >= 32 and n % 32 == 0 for n in self.roi_size), "multiples of 32"),
            "feature_size": (c >= 2 and c % 2 == 0, "an even number from 2"),
            "dilations": (bool(self.dilations) and min(self.dilations) >= 1, "one or more, from 1"),
            "depths": (deep, "at least 0, for T1 and T2 of a transformer branch at least 1"),
            "heads": (divide, f"divisors of {widths}"),
        }

    def build(self) -> "GLIMS":
        """Return the network with fresh weights."""
        return GLIMS(self)


class InstanceNorm(nn.GroupNorm):
    """Instance normalisation; fewer than 8 voxels, whose spread says little, stay as they are."""

    min_voxels = 8

    def __init__(self, c: int, *, affine: bool = False) -> None:
        super().__init__(c, c, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        # Channels-last memory gets a kernel that rounds a hundred times more.
        return super().forward(x.contiguous()) if prod(x.shape[2:]) >= self.min_voxels else x


def unit(convolution: nn.Module, c: int) -> nn.Sequential:
    """Return a convolution to ``c`` channels and what follows it, but in DACB's branches."""
    return nn.Sequential(convolution, InstanceNorm(c), nn.PReLU())


class DACB(nn.Module):
    """Dilated Feature Aggregator Convolutional Block (section 3.1, Fig. 2)."""

    def __init__(self, c: int, dilations: tuple[int, ...]) -> None:
        super().__init__()
        norm = partial(InstanceNorm, affine=True)
        self.branches = nn.ModuleList(
            nn.Sequential(conv(3, c, c, 3, dilation=d, groups=c), norm(c), nn.PReLU())
            for d in dilations
        )
        self.expand = unit(conv(3, len(dilations) * c, 2 * c, 1), 2 * c)
        self.project = unit(conv(3, 2 * c, c, 1), c)
        self.out = nn.Sequential(InstanceNorm(c), nn.PReLU())
        self.spare = nn.PReLU().requires_grad_(False)  # in every checkpoint, but never used

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        branches = torch.cat([branch(x) for branch in self.branches], dim=1)
        mixed: Tensor = self.out(x + self.project(self.expand(branches)))
        return mixed


class EncoderLevel(nn.Module):
    """Blocks, then half the size: DMSF (section 3.1, Fig. 3), or Swin blocks and patch merging."""

    def __init__(self, blocks: nn.Module, down: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.blocks, self.down, self.norm = blocks, down, norm

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, *S)`` -> what goes down, ``(B, 2 C, *S / 2)``, and the skip, ``(B, C, *S)``."""
        x = self.blocks(x)
        return self.norm(self.down(x)), self.norm(x)


class DecoderLevel(nn.Module):
    """Twice the size, the skip, blocks: DMSU (section 3.4, Fig. 3), or patch expanding and Swin."""

    def __init__(self, c: int, up: nn.Module, blocks: nn.Module) -> None:
        super().__init__()
        self.up, self.fuse, self.blocks = up, unit(conv(3, 2 * c, c, 1), c), blocks

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``(B, 2 C, *S / 2)``, skip ``(B, C, *S)`` -> ``(B, C, *S)``."""
        decoded: Tensor = self.blocks(self.fuse(torch.cat([self.up(x), skip], dim=1)))
        return decoded


class CSAB(nn.Module):
    """Channel and Spatial-Wise Attention Block (section 3.3, Fig. 4).

    As released, the spatial gate is normalised over its single channel, which leaves one learned
    number, whatever the convolution finds; so the convolution is not run.
    """

    def __init__(self, c: int, *, released: bool) -> None:
        super().__init__()
        self.released = released
        self.mlp = nn.Sequential(nn.Linear(c, c // 2), nn.ReLU(), nn.Linear(c // 2, c))
        self.conv = conv(3, 2, 1, 7, bias=False).requires_grad_(not released)
        self.norm, self.act = nn.GroupNorm(1, 1), nn.PReLU()
        if released:
            self.norm.weight.requires_grad_(False)
            nn.init.constant_(self.norm.bias, -0.1)  # above 0 the PReLU's slope would not learn

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        return x * self.gate(x)

    def gate(self, x: Tensor) -> Tensor:
        """``(B, C, *S)`` -> numbers in [0, 1] by channel, and by voxel unless as released."""
        channels = self.mlp(spatial_mean(x)) + self.mlp(x.amax(dim=(2, 3, 4)))
        voxels: Tensor = self.norm.bias
        if not self.released:
            pooled = torch.cat([x.amax(dim=1, keepdim=True), x.mean(dim=1, keepdim=True)], dim=1)
            voxels = self.norm(self.conv(pooled))
        gate: Tensor = over_space(channels.sigmoid(), x) * self.act(voxels).sigmoid()
        return gate


class GLIMS(nn.Module):
    """The network of Fig. 1. Any size: it pads to a multiple of 32 and crops the logits back."""

    def __init__(self, config: GLIMSConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.feature_size * 2**level for level in range(LEVELS)]
        t1, _, bottleneck = (depth > 0 for depth in config.depths)
        self.stem = unit(conv(3, config.in_channels, widths[0], 1), widths[0])
        self.encoder = nn.ModuleList(_level(config, level, down=True) for level in range(LEVELS))
        self.t3 = _stage(config, T1, there=t1 and config.encoder == "hybrid")
        self.t4 = _stage(config, LEVELS, there=bottleneck)
        self.guidance = nn.ModuleList(
            CSAB(c, released=config.released) if config.attention_guidance else nn.Identity()
            for c in widths
        )
        self.decoder = nn.ModuleList(_level(config, level, down=False) for level in range(LEVELS))
        self.t3_up = _stage(config, T1, there=t1 and config.decoder == "hybrid")
        supervised = widths[: 4 if config.deep_supervision else 1]
        self.heads = nn.ModuleList(conv(3, c, config.num_classes, 1) for c in supervised)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """``(B, in_channels, *S)`` -> logits ``(B, num_classes, *S)``, or in training four of them.

        The others are of ``*S / 2``, ``*S / 4`` and ``*S / 8``, rounded up.
        """
        x, skips, decoded = self.stem(pad_to_multiple(image, self.config.size_divisor)), [], []
        for level, stage in enumerate(self.encoder):
            x = self.t3(x) if level == T1 else x
            x, skip = stage(x)
            skips.append(skip)  # (B, 24, *S) to (B, 384, *S/16)
        x = self.t4(x)  # (B, 768, *S/32)
        for level in reversed(range(LEVELS)):
            x = self.decoder[level](x, self.guidance[level](skips[level]))
            decoded.append(x)
            x = self.t3_up(x) if level == T1 else x
        several, logits = self.training and self.config.deep_supervision, []
        for level, head in enumerate(self.heads if several else self.heads[:1]):
            size = torch.Size(-(-n // 2**level) for n in image.shape[2:])
            logits.append(crop_to(head(decoded[-1 - level]), size))
        return logits if several else logits[0]


def _level(config: GLIMSConfig, level: int, *, down: bool) -> EncoderLevel | DecoderLevel:
    """Return a level of the encoder, which goes down, or of the decoder; 0 is the finest."""
    c, branch = config.feature_size * 2**level, config.encoder if down else config.decoder
    if level >= {"hybrid": LEVELS - (config.depths[1] > 0), "conv": LEVELS, "swin": 1}[branch]:
        position, attention = _swin(config, level)
        if down:
            merge = swin.PatchMerging(c, released=config.released)
            return EncoderLevel(nn.Sequential(position, attention), merge, swin.TokenNorm())
        return DecoderLevel(c, nn.Sequential(swin.PatchExpanding(2 * c), position), attention)
    dacb, dilations = branch == "hybrid", config.dilations
    pair = (DACB(c, dilations) if dacb else unit(conv(3, c, c, 3), c) for _ in range(2))
    blocks = nn.Sequential(*pair)
    if down:
        return EncoderLevel(blocks, unit(downsampling_conv(3, c, 2 * c), 2 * c), nn.Identity())
    return DecoderLevel(c, unit(upsampling_conv(3, 2 * c, c), c), blocks)


def _stage(config: GLIMSConfig, level: int, *, there: bool) -> nn.Module:
    return nn.Sequential(*_swin(config, level), swin.TokenNorm()) if there else nn.Identity()


def _swin(config: GLIMSConfig, level: int) -> tuple[nn.Module, nn.Module]:
    c, place = config.feature_size * 2**level, max(level - T1, 0)
    grid = tuple(n // 2**level for n in config.roi_size)
    settings = config.depths[place], config.heads[place], grid
    blocks = swin.SwinBlocks(c, *settings, released=config.released)
    return swin.PositionEmbedding(c, grid), blocks


def _file(name: str, published: Published | None = None, **settings: Any) -> None:
    @preset(name, published)
    def configure(in_channels: int, num_classes: int) -> GLIMSConfig:
        return GLIMSConfig(in_channels=in_channels, num_classes=num_classes, **settings)


def _row(row: str, parameters: str | None = None, **printed: str) -> Published:
    figures: dict[str, Any] = {"parameters": parameters, "size": (96, 96, 96), **printed}
    return Published(where=f"GLIMS, {row}", in_channels=4, num_classes=3, **figures)


_OUTPUT_SIZE = "The paper's tool counts transposed convolutions at the size of their output."
_READ = "Read from the count; 27.747 M, which would round up."
_CONV = {"encoder": "conv", "decoder": "conv", "depths": (0, 0, 0), "attention_guidance": False}
_SWIN_ENCODER = _CONV | {"encoder": "swin", "depths": (2, 6, 0)}
_SWIN = _SWIN_ENCODER | {"decoder": "swin"}

_file("glims", _row("Tables 3, 6 and 5", "47.16 M", macs="72.30 G", note=_OUTPUT_SIZE))
_file("glims_v2", released=False)
_file("glims_baseline", _row("Table 3, 0"), **_CONV, deep_supervision=False)
_file("glims_swin_encoder", _row("Table 3, 1"), **_SWIN_ENCODER, deep_supervision=False)
_file("glims_swin", _row("Table 3, 2"), **_SWIN, deep_supervision=False)
_file("glims_swin_deep_supervision", _row("Table 3, 3"), **_SWIN)
_file("glims_multi_scale", _row("Table 3, 4"), depths=(0, 0, 0), attention_guidance=False)
_file("glims_attention_guidance", _row("Table 3, 5"), depths=(0, 0, 0))
_file("glims_dilations_1_2", _row("Table 4, A", "46.73 M"), dilations=(1, 2))
_file("glims_dilations_1", _row("Table 4, B", "46.29 M"), dilations=(1,))
_file("glims_depths_0_6_2", _row("Table 4, C", "44.67 M"), depths=(0, 6, 2))
_file("glims_depths_0_0_2", _row("Table 4, D", "27.74 M", note=_READ), depths=(0, 0, 2))
_file("glims_depths_2_4_2", _row("Table 4, E", "39.96 M"), depths=(2, 4, 2))
_file("glims_depths_2_2_2", _row("Table 4, F", "32.76 M"), depths=(2, 2, 2))
_file("glims_depths_2_2_4", _row("Table 4, G", "47.04 M"), depths=(2, 2, 4))
_file("glims_depths_2_2_6", _row("Table 4, H", "61.32 M"), depths=(2, 2, 6))
_file("glims_depths_4_2_2", _row("Table 4, I", "34.59 M"), depths=(4, 2, 2))
_file("glims_depths_6_2_2", _row("Table 4, J", "36.42 M"), depths=(6, 2, 2))

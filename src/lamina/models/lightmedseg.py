"""LightMedSeg: a U-shaped network of half a million weights, steered by learned spatial anchors.

Tyagi, Rathi, Goyal: *LightMedSeg: Lightweight 3D Medical Image Segmentation with Learned Spatial
Anchors*, 2026, arXiv 2603.07228. Blocks name their section and equations; weights match the paper's
0.48 M (8 anchors), 0.49 M (16), 0.52 M (32). Where its text leaves choices open, these meet them:

* Encoder widths 16, 32, 64, 128 after a stem of 8; the decoder mirrors them. With plain
  convolutions this makes 0.69 M weights, where the paper says 0.66 M.
* One router controller per deep decoder stage; E_1 and E_2 are resized down to it.
* The four stride-2 decoder stages already undo the stem and the three poolings, so the transposed
  convolution that section 3.6 puts after the head, which would double the output, is left out.
* A ghost convolution has no activation of its own. FiLM starts as the identity.

Shapes: ``B`` batch, ``C`` channels, ``K`` anchors, ``*S`` two or three spatial axes in array order.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lamina.models import preset, require
from lamina.models.layers.convolution import GhostConv, conv, upsampling_conv
from lamina.models.layers.gating import FiLM, SqueezeExcite, over_space, spatial_mean, weighted_sum
from lamina.models.layers.size import crop_to, pad_to_multiple, resize
from lamina.models.published import Published

GROUPS = 4  # of every group normalisation (section 3.1)


@dataclass(frozen=True, kw_only=True)
class LightMedSegConfig:
    """Settings of :class:`LightMedSeg`, in the order data meet them.

    Raises:
        ConfigError: Values out of range, all of them at once.
    """

    size_divisor: ClassVar[int] = 16

    in_channels: int
    """Channels of the image."""
    num_classes: int
    """Channels of the logits, the background included."""
    spatial_dims: int = 3
    """2 for images, 3 for volumes."""
    channels: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Widths of the stem and of the four encoder stages; the decoder mirrors them."""
    ghost: bool = True
    """Ghost convolutions; off: plain ones, the paper's "standard" variant."""
    anchors: bool = True
    """Learned anchors; off: neither FiLM nor position bias."""
    num_anchors: int = 8
    """Anchors K (Eq. 1)."""
    lspm: bool = True
    """Local structural prior; off: texture 0.5 everywhere and the stem's features as they are."""
    router: bool = True
    """Skips mixed from all encoder stages; off: from the stage of the same size alone."""
    router_channels: int = 64
    """Width at which the router compares encoder stages (Eq. 11)."""
    spb: Literal["sum", "l2"] = "sum"
    """Position bias from offsets summed over axes (Eq. 14) or from Euclidean distances (ours)."""

    def __post_init__(self) -> None:
        widths_fit = all(c >= GROUPS and c % GROUPS == 0 for c in self.channels)
        require(
            self,
            in_channels=(self.in_channels >= 1, "at least 1"),
            num_classes=(self.num_classes >= 1, "at least 1"),
            spatial_dims=(self.spatial_dims in (2, 3), "2 or 3"),
            channels=(len(self.channels) == 5 and widths_fit, f"five multiples of {GROUPS}"),
            num_anchors=(self.num_anchors >= 1, "at least 1"),
            router_channels=(self.router_channels >= 1, "at least 1"),
            spb=(self.spb in ("sum", "l2"), "'sum' or 'l2'"),
        )

    def build(self) -> "LightMedSeg":
        """Return the network with fresh weights."""
        return LightMedSeg(self)


def _unit(dims: int, c_in: int, c: int, k: int, stride: int = 1, groups: int = 1) -> nn.Module:
    convolution = conv(dims, c_in, c, k, stride=stride, groups=groups)
    return nn.Sequential(convolution, nn.GroupNorm(GROUPS, c), nn.SiLU())


def _projection(config: LightMedSegConfig, c_in: int, c: int, stride: int = 1) -> nn.Module:
    """GhostConv3D of section 3.1 with its normalisation, or a plain convolution in its place."""
    dims, norm = config.spatial_dims, nn.GroupNorm(GROUPS, c)
    if config.ghost:
        return nn.Sequential(GhostConv(dims, c_in, c, stride=stride), norm)
    return nn.Sequential(conv(dims, c_in, c, 3, stride=stride, bias=False), norm)


class AnchorDetector(nn.Module):
    """Predicts K points, each axis in [0, 1], from the raw image (section 3.2, Eq. 1).

    They come from spatially averaged features: a learned global descriptor rather than landmarks.
    """

    def __init__(self, config: LightMedSegConfig) -> None:
        super().__init__()
        dims, widths, hidden = config.spatial_dims, (config.in_channels, 8, 8, 8), 128
        self.shape = (config.num_anchors, dims)
        self.encode = nn.Sequential(*(_unit(dims, a, b, 3, stride=2) for a, b in pairwise(widths)))
        widen, locate = nn.Linear(8, hidden), nn.Linear(hidden, config.num_anchors * dims)
        self.locate = nn.Sequential(widen, nn.SiLU(), locate, nn.Sigmoid())

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C_in, *S) -> (B, K, spatial_dims)``."""
        coordinates: Tensor = self.locate(spatial_mean(self.encode(image)))
        return coordinates.reshape(-1, *self.shape)


class LocalStructuralPrior(nn.Module):
    """Finds where structure is and mixes two projections accordingly (section 3.3, Eq. 2-5)."""

    def __init__(self, dims: int, c: int) -> None:
        super().__init__()
        self.smooth = _unit(dims, c, c, 5, groups=c)
        self.texture = nn.Sequential(conv(dims, c, 1, 1), nn.Sigmoid())
        units = _unit(dims, c, 2 * c, 3), _unit(dims, 2 * c, 2 * c, 3)
        self.complexity = nn.Sequential(*units, conv(dims, 2 * c, 1, 1), nn.Sigmoid())
        self.mixture = nn.Sequential(conv(dims, 1, 2, 1), nn.Softmax(dim=1))
        self.experts = nn.ModuleList(conv(dims, c, c, 1) for _ in range(2))

    def forward(self, stem: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, *S)`` -> texture ``(B, 1, *S)`` in [0, 1] and features ``(B, C, *S)``."""
        texture = self.texture((stem - self.smooth(stem)).abs())  # Eq. 2-3
        mixture = self.mixture(self.complexity(stem))  # Eq. 4
        return texture, weighted_sum(mixture, [expert(stem) for expert in self.experts])  # Eq. 5


class EncoderStage(nn.Module):
    """Anchor-conditioned projection, then a detail and a smooth path (section 3.4, Eq. 6-10)."""

    def __init__(self, config: LightMedSegConfig, c_in: int, c: int) -> None:
        super().__init__()
        dims = config.spatial_dims
        self.project = _projection(config, c_in, c)
        if config.anchors:
            self.film = FiLM(config.num_anchors * dims, c)
        self.detail = _unit(dims, c, c, 3, groups=c)
        self.smooth = _unit(dims, c, c, 1)
        self.recalibrate = SqueezeExcite(c, squeezed=max(4, c // 8))

    def forward(self, x: Tensor, texture: Tensor | None, anchors: Tensor | None) -> Tensor:
        """``(B, C_in, *S)``, texture ``(B, 1, *S')``, anchors -> ``(B, C, *S)``."""
        x = self.project(x)
        if anchors is not None:
            x = self.film(x, anchors.flatten(1))
        smooth = self.smooth(x)
        gate = 0.5 if texture is None else resize(texture, x.shape[2:])
        encoded: Tensor = self.recalibrate(smooth + gate * (self.detail(x) - smooth))  # Eq. 9-10
        return encoded


class SkipFusion(nn.Module):
    """Makes the skip of each decoder stage (section 3.5, Eq. 11-13).

    The two deep stages get a mixture of all encoder stages, weighted voxel by voxel; the two
    shallow ones get the first encoder stage and the stem.
    """

    def __init__(self, config: LightMedSegConfig) -> None:
        super().__init__()
        dims, width = config.spatial_dims, config.router_channels
        stem, e1, e2, e3, e4 = config.channels
        sources, targets = [e3, e2, e1, stem], [e3, e2, e1, stem]
        self.align, self.controllers = nn.ModuleList(), nn.ModuleList()
        if config.router:
            sources[:2] = [width, width]
            self.align.extend(conv(dims, c, width, 1, bias=False) for c in (e1, e2, e3, e4))
            self.controllers.extend(self._controller(dims, width) for _ in range(2))
        self.project = nn.ModuleList(
            conv(dims, a, b, 1) for a, b in zip(sources, targets, strict=True)
        )

    @staticmethod
    def _controller(dims: int, width: int) -> nn.Sequential:
        squeeze, weigh = conv(dims, 4 * width, width, 1), conv(dims, width, 4, 1)
        return nn.Sequential(squeeze, nn.SiLU(), weigh, nn.Softmax(dim=1))

    def forward(self, stem: Tensor, encoded: list[Tensor]) -> list[Tensor]:
        """Stem and E_1..E_4 -> four skips, deepest first, as large as E_3, E_2, E_1 and stem."""
        e1, e2, e3, _ = encoded
        sources = [e3, e2, e1, stem]
        for stage, controller in enumerate(self.controllers):
            aligned = self._align(encoded, sources[stage].shape[2:])
            weights = controller(torch.cat(aligned, dim=1))  # Eq. 12
            sources[stage] = weighted_sum(weights, aligned)  # Eq. 13
        return [project(x) for project, x in zip(self.project, sources, strict=True)]

    def _align(self, encoded: list[Tensor], size: torch.Size) -> list[Tensor]:
        # Pointwise convolution and interpolation commute: convolve on the smaller of the two grids.
        return [
            align(resize(x, size)) if x.shape[2] > size[0] else resize(align(x), size)
            for align, x in zip(self.align, encoded, strict=True)
        ]


class PositionBias(nn.Module):
    """Projects every voxel's offsets from the K anchors to channels (section 3.6, Eq. 14-15).

    Offsets summed over axes are one ramp minus a number per anchor. Their projection is the ramp
    times the summed weights plus a constant, so that the K maps themselves are never built.
    """

    def __init__(self, config: LightMedSegConfig, channels: int) -> None:
        super().__init__()
        self.kind = config.spb
        self.project = conv(config.spatial_dims, config.num_anchors, channels, 1)

    def forward(self, x: Tensor, anchors: Tensor) -> Tensor:
        """``(B, C, *S), (B, K, spatial_dims)`` -> bias ``(B, C, *S)``."""
        axes = [torch.arange(n, device=x.device) / n for n in x.shape[2:]]
        grid = torch.stack(torch.meshgrid(axes, indexing="ij"))  # (spatial_dims, *S)
        if self.kind == "l2":
            offsets = grid - over_space(anchors, x)  # (B, K, spatial_dims, *S)
            # Shifted because the root's slope is infinite where a voxel meets an anchor.
            bias: Tensor = self.project(offsets.square().sum(dim=2).add(1e-6).sqrt())
        else:
            constant = self.project(over_space(-anchors.sum(dim=2), x))
            bias = self.project.weight.sum(dim=1) * grid.sum(dim=0) + constant
        return bias.to(x.dtype)


class DecoderStage(nn.Module):
    """Upsampling with position bias, skip, three gated paths (section 3.6, Eq. 14-21)."""

    def __init__(self, config: LightMedSegConfig, c_in: int, c: int) -> None:
        super().__init__()
        dims = config.spatial_dims
        self.upsample = upsampling_conv(dims, c_in, c)
        if config.anchors:
            self.position_bias = PositionBias(config, c)
        self.fuse = _unit(dims, 2 * c, c, 1)
        self.gate = nn.Sequential(conv(dims, c, 3, 1), nn.Softmax(dim=1))
        self.local = _unit(dims, c, c, 3, groups=c)  # Eq. 19
        self.multi_scale = nn.Sequential(_projection(config, c, c), nn.SiLU())  # Eq. 20
        self.pointwise = _unit(dims, c, c, 1)  # Eq. 21
        self.recalibrate = SqueezeExcite(c, squeezed=max(4, c // 8))

    def forward(self, x: Tensor, skip: Tensor, anchors: Tensor | None) -> Tensor:
        """``(B, C_in, *S / 2)``, skip ``(B, C, *S')``, anchors -> ``(B, C, *S)``."""
        x = self.upsample(x)
        if anchors is not None:
            x = x + self.position_bias(x, anchors)
        x = self.fuse(torch.cat([x, resize(skip, x.shape[2:])], dim=1))  # Eq. 16
        paths = self.local(x), self.multi_scale(x), self.pointwise(x)
        decoded: Tensor = self.recalibrate(weighted_sum(self.gate(x), paths))  # Eq. 17-18
        return decoded


class LightMedSeg(nn.Module):
    """The network of section 3. Any size: it pads to a multiple of 16 and crops the logits back."""

    def __init__(self, config: LightMedSegConfig) -> None:
        super().__init__()
        self.config = config
        dims, widths, (stem, *_, e4) = config.spatial_dims, config.channels, config.channels
        self.stem = _projection(config, config.in_channels, stem, stride=2)
        if config.anchors:
            self.anchor_detector = AnchorDetector(config)
        if config.lspm:
            self.lspm = LocalStructuralPrior(dims, stem)
        self.encoder = nn.ModuleList(EncoderStage(config, a, b) for a, b in pairwise(widths))
        self.pool = (nn.MaxPool2d if dims == 2 else nn.MaxPool3d)(2)
        self.skips = SkipFusion(config)
        self.seed = nn.Sequential(conv(dims, e4, e4, 1), nn.GroupNorm(GROUPS, e4))
        self.decoder = nn.ModuleList(DecoderStage(config, a, b) for a, b in pairwise(widths[::-1]))
        self.head = conv(dims, stem, config.num_classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        """``(B, in_channels, *S)`` -> logits ``(B, num_classes, *S)``."""
        x = pad_to_multiple(image, self.config.size_divisor)
        anchors = self.anchor_detector(x) if self.config.anchors else None  # (B, K, spatial_dims)
        stem = self.stem(x)  # (B, 8, *S/2)
        texture, x = self.lspm(stem) if self.config.lspm else (None, stem)
        first, *deeper = self.encoder
        encoded = [first(x, texture, anchors)]  # (B, 16, *S/2)
        for stage in deeper:  # (B, 32, *S/4), (B, 64, *S/8), (B, 128, *S/16)
            encoded.append(stage(self.pool(encoded[-1]), texture, anchors))
        x = self.seed(encoded[-1])
        for stage, skip in zip(self.decoder, self.skips(stem, encoded), strict=True):
            x = stage(x, skip, anchors)  # (B, 64, *S/8), (B, 32, *S/4), (B, 16, *S/2), (B, 8, *S)
        return crop_to(self.head(x), image.shape[2:])



@preset(
    "lightmedseg",
    Published(
        where="LightMedSeg, Table 3, GhostConv",
        in_channels=4,
        num_classes=4,
        size=(128, 128, 128),
        parameters="0.48 M",
        macs="14.64 G",
        note="thop counts transposed convolutions eightfold: 15.19 G for this network.",
    ),
)
def lightmedseg(in_channels: int, num_classes: int) -> LightMedSegConfig:
    """Return the paper's main network: 477,242 weights for 4 channels and 4 classes."""
    return LightMedSegConfig(in_channels=in_channels, num_classes=num_classes)


@preset("lightmedseg_standard")
def lightmedseg_standard(in_channels: int, num_classes: int) -> LightMedSegConfig:
    """Return the paper's variant with plain convolutions: 693,026 weights for 4 and 4."""
    return LightMedSegConfig(in_channels=in_channels, num_classes=num_classes, ghost=False)

"""LightMedSeg: a U-shaped network of half a million weights, steered by learned spatial anchors.

Tyagi, Rathi, Goyal: *LightMedSeg: Lightweight 3D Medical Image Segmentation with Learned Spatial
Anchors*, 2026, arXiv 2603.07228. Blocks name their section and equations; weights match the paper's
0.48 M (8 anchors), 0.49 M (16), 0.52 M (32). Where its text leaves choices open, these meet them:

* Encoder widths 16, 32, 64, 128 after a stem of 8; E_1 and E_2 are resized down to the router.
* Reading "a" of the decoder: it mirrors the encoder, narrows where it upsamples, and has one router
  controller per deep stage. With plain convolutions this makes 0.69 M weights, not 0.66 M.
* Reading "b": widths 32, 16, 8, 8, narrowing where skips are fused, by one more ghost convolution;
  the deep stages share a controller. It meets 0.66 M too, but 128 to 32 is no halving.
* Four stride-2 decoder stages undo the stem and the poolings already: the transposed convolution
  that section 3.6 puts after the head is left out. FiLM starts as the identity.

Shapes: ``B`` batch, ``C`` channels, ``K`` anchors, ``*S`` two or three spatial axes in array order.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from lamina.models import Constraints, NetworkConfig, preset
from lamina.models.layers.convolution import GhostConv, conv, upsampling_conv
from lamina.models.layers.gating import FiLM, SqueezeExcite, spatial_mean, weighted_sum
from lamina.models.layers.position_bias import PositionBias
from lamina.models.layers.size import crop_to, pad_to_multiple, resize
from lamina.models.published import Published

GROUPS = 4  # of every group normalisation (section 3.1)


@dataclass(frozen=True, kw_only=True)
class LightMedSegConfig(NetworkConfig):
    """Settings of :class:`LightMedSeg`, in the order data meet them."""

    size_divisor: ClassVar[int] = 16

    spatial_dims: int = 3
    channels: tuple[int, ...] = (8, 16, 32, 64, 128)
    """Widths of the stem and of the four encoder stages; the decoder follows from them."""
    reading: Literal["a", "b"] = "a"
    """How the paper's decoder is read: see the top of this file."""
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

    def _constraints(self) -> Constraints:
        widths_fit = all(c >= GROUPS and c % GROUPS == 0 for c in self.channels)
        return {
            "channels": (len(self.channels) == 5 and widths_fit, f"five multiples of {GROUPS}"),
            "num_anchors": (self.num_anchors >= 1, "at least 1"),
            "router_channels": (self.router_channels >= 1, "at least 1"),
            "reading": (self.reading in ("a", "b"), "'a' or 'b'"),
            "spb": (self.spb in ("sum", "l2"), "'sum' or 'l2'"),
        }

    @property
    def decoder_stages(self) -> tuple[tuple[int, int, int], ...]:
        """Channels that each stage takes, meets its skip with, and returns; deepest first."""
        stem, e1, e2, e3, e4 = self.channels
        if self.reading == "a":
            return (e4, e3, e3), (e3, e2, e2), (e2, e1, e1), (e1, stem, stem)
        return (e4, e4, e2), (e2, e2, e1), (e1, e1, stem), (stem, stem, stem)

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
        sources = [e3, e2, e1, stem]
        self.align, self.controllers = nn.ModuleList(), nn.ModuleList()
        if config.router:
            sources[:2] = [width, width]
            self.align.extend(conv(dims, c, width, 1, bias=False) for c in (e1, e2, e3, e4))
            count = 2 if config.reading == "a" else 1
            self.controllers.extend(self._controller(dims, width) for _ in range(count))
        widths = zip(sources, config.decoder_stages, strict=True)
        self.project = nn.ModuleList(conv(dims, c, met, 1) for c, (_, met, _) in widths)

    @staticmethod
    def _controller(dims: int, width: int) -> nn.Sequential:
        squeeze, weigh = conv(dims, 4 * width, width, 1), conv(dims, width, 4, 1)
        return nn.Sequential(squeeze, nn.SiLU(), weigh, nn.Softmax(dim=1))

    def forward(self, stem: Tensor, encoded: list[Tensor]) -> list[Tensor]:
        """Stem and E_1..E_4 -> four skips, deepest first, as large as E_3, E_2, E_1 and stem."""
        sources = [*reversed(encoded[:3]), stem]
        for stage in range(2 if self.controllers else 0):
            aligned = self._align(encoded, sources[stage].shape[2:])
            controller = self.controllers[stage % len(self.controllers)]
            weights = controller(torch.cat(aligned, dim=1))  # Eq. 12
            sources[stage] = weighted_sum(weights, aligned)  # Eq. 13
        return [project(x) for project, x in zip(self.project, sources, strict=True)]

    def _align(self, encoded: list[Tensor], size: torch.Size) -> list[Tensor]:
        # Pointwise convolution and interpolation commute: convolve on the smaller of the two grids.
        return [
            align(resize(x, size)) if x.shape[2] > size[0] else resize(align(x), size)
            for align, x in zip(self.align, encoded, strict=True)
        ]


class DecoderStage(nn.Module):
    """Upsampling with position bias, skip, three gated paths (section 3.6, Eq. 14-21)."""

    def __init__(self, config: LightMedSegConfig, c_in: int, c_skip: int, c: int) -> None:
        super().__init__()
        dims = config.spatial_dims
        self.upsample = upsampling_conv(dims, c_in, c_skip)
        if config.anchors:
            self.position_bias = PositionBias(dims, config.num_anchors, c_skip, config.spb)
        self.fuse = _unit(dims, 2 * c_skip, c, 1)
        if config.reading == "b":
            self.fuse = nn.Sequential(self.fuse, _projection(config, c, c))
        self.gate = nn.Sequential(conv(dims, c, 3, 1), nn.Softmax(dim=1))
        self.local = _unit(dims, c, c, 3, groups=c)  # Eq. 19
        self.multi_scale = nn.Sequential(_projection(config, c, c), nn.SiLU())  # Eq. 20
        self.pointwise = _unit(dims, c, c, 1)  # Eq. 21
        self.recalibrate = SqueezeExcite(c, squeezed=max(4, c // 8))

    def forward(self, x: Tensor, skip: Tensor, anchors: Tensor | None) -> Tensor:
        """``(B, C_in, *S / 2)``, skip ``(B, C_skip, *S')``, anchors -> ``(B, C, *S)``."""
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
        self.decoder = nn.ModuleList(DecoderStage(config, *c) for c in config.decoder_stages)
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


def _file(name: str, row: str, options: dict[str, Any], **printed: str) -> None:
    """Register a row of the paper's tables, with what it prints of the network for BraTS."""
    where, size = f"LightMedSeg, {row}", (128, 128, 128)
    published = Published(where=where, in_channels=4, num_classes=4, size=size, **printed)

    @preset(name, published)
    def configured(in_channels: int, num_classes: int) -> LightMedSegConfig:
        return LightMedSegConfig(in_channels=in_channels, num_classes=num_classes, **options)


_B, _PLAIN = {"reading": "b"}, {"ghost": False}
_THOP = "{} by thop, which counts transposed convolutions eightfold."
_SPARE = "The paper's 0.66 M are met by reading b of its decoder."
_MAIN = {"parameters": "0.48 M", "macs": "14.64 G"}
_file("lightmedseg", "Table 3", {}, **_MAIN, note=_THOP.format("15.19 G"))
_file("lightmedseg_k16", "Table 4, K = 16", {"num_anchors": 16}, parameters="0.49 M")
_file("lightmedseg_k32", "Table 4, K = 32", {"num_anchors": 32}, parameters="0.52 M")
_file("lightmedseg_standard", "Table 1, Standard Conv", _PLAIN, parameters="0.66 M", note=_SPARE)
_file("lightmedseg_b", "Table 3", _B, **_MAIN, note=_THOP.format("14.58 G"))
_file("lightmedseg_b_standard", "Table 1, Standard Conv", _B | _PLAIN, parameters="0.66 M")

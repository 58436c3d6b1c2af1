"""MPU-Net: a U-shaped network with position attention at its bottom, gates, and merged outputs.

Yu, Han: *3D Medical Image Segmentation based on multi-scale MPU-Net*, 2023, arXiv 2307.05799.
Network and baseline match Table 6 to the unit: 22,557,009 weights, of which 1,049,754 are never
used, and 2,326,638. The text describes another network in places, so choices were made:

* As trained: no patch embedding or layer normalisation; one attention head, not scaled; gates on
  decoder outputs, not on skips; a plain mean of four probability maps; plain decoder blocks.
* ``multiscale_block`` puts our reading of Eq. 14-17 in their place. No published figure has it.
* The trained network passed its channel numbers to ELU as alpha: the preset ``mpunet_released``.
* The image is added to the first block's output. Of several channels, their mean is.
* Both networks return logits: MPU-Net the logarithm of the mean of its probability maps.
* The baseline, for which no initialisation is published, gets that of MPU-Net.

Shapes: ``B`` batch, ``C`` channels, ``*S`` two or three spatial axes in array order.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from lamina.models import Constraints, NetworkConfig, preset
from lamina.models.layers.convolution import conv, downsampling_conv, upsampling_conv
from lamina.models.layers.position_attention import PositionAttention
from lamina.models.layers.size import crop_to, pad_to_multiple, pad_to_train, resize
from lamina.models.published import Published

UNUSED_WEIGHTS = 1_049_754
"""Of the published 22,557,009, those in modules that are never called; they are not built here."""

_POOL = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
_NORM = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@dataclass(frozen=True, kw_only=True)
class MPUNetConfig(NetworkConfig):
    """Settings of :class:`MPUNet`, in the order data meet them."""

    size_divisor: ClassVar[int] = 8
    learning_rate: ClassVar[float] = 1e-4  # it hardly normalises
    exclusive_classes: ClassVar[bool] = True  # logarithms of probabilities, which are never above 0

    spatial_dims: int = 3
    width: int = 16
    """Channels of the first stage; each further one has twice as many, up to 32 times."""
    elu_alpha: Literal["channels"] | float = 1.0
    """What ELU tends to, negated, after each reduction; ``"channels"``: its number of channels."""
    dropout: float = 0.2
    """Probability that training drops an element, after every stage but the first and the last."""
    multiscale_block: bool = False
    """Decoder blocks of two branches with different reach in place of three convolutions."""
    deep_supervision: bool = True
    """In training, return the maps of the three coarser stages, too."""

    def _constraints(self) -> Constraints:
        alpha = self.elu_alpha
        alpha_fits = alpha == "channels" if isinstance(alpha, str) else alpha > 0
        return {
            "width": (self.width >= 1, "at least 1"),
            "elu_alpha": (alpha_fits, "'channels' or positive"),
            "dropout": (0 <= self.dropout < 1, "in [0, 1)"),
        }

    def build(self) -> "MPUNet":
        """Return the network with fresh weights."""
        return MPUNet(self)


def _convolutions(dims: int, c_in: int, c: int, depth: int = 3, dilation: int = 1) -> nn.Module:
    """Return convolutions of kernel 3, each with a PReLU of one slope per channel."""
    pairs = pairwise((c_in, *[c] * depth))
    units = ((conv(dims, a, b, 3, dilation=dilation), nn.PReLU(b)) for a, b in pairs)
    return nn.Sequential(*(module for unit in units for module in unit))


class Reduction(nn.Sequential):
    """Maximum of neighbours, then a convolution that halves the size or keeps it (section 3.2)."""

    def __init__(self, config: MPUNetConfig, c_in: int, c: int, *, halve: bool) -> None:
        dims = config.spatial_dims
        alpha = c if isinstance(config.elu_alpha, str) else config.elu_alpha
        step = downsampling_conv(dims, c_in, c) if halve else conv(dims, c_in, c, 3)
        super().__init__(_POOL[dims](3, stride=1, padding=1), step, _NORM[dims](c), nn.ELU(alpha))


class PositionAttentionModule(nn.Sequential):
    """Attention between all positions, and a convolution before and after it (section 3.2.3)."""

    def __init__(self, dims: int, c_in: int, c: int) -> None:
        before = conv(dims, c_in, c, 3), _NORM[dims](c), nn.PReLU()
        after = conv(dims, c, c, 3), _NORM[dims](c), nn.PReLU()
        super().__init__(*before, PositionAttention(dims, c), *after)


class AttentionGate(nn.Module):
    """Weakens positions that features and guide together call unimportant (section 3.3.1)."""

    def __init__(self, dims: int, c: int) -> None:
        super().__init__()
        norm, inner = _NORM[dims], c // 2
        self.features = nn.Sequential(conv(dims, c, inner, 1), norm(inner))
        self.guide = nn.Sequential(conv(dims, c, inner, 1), norm(inner))
        self.weigh = nn.Sequential(nn.ReLU(), conv(dims, inner, 1, 1), norm(1), nn.Sigmoid())

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """``(B, C, *S)``, guide of the same shape -> ``(B, C, *S)`` (Eq. 10-12)."""
        gated: Tensor = x * self.weigh(self.features(x) + self.guide(guide))
        return gated


class MultiScaleBlock(nn.Module):
    """Two branches, one dilated, of half the channels each, merged (our reading of Eq. 14-17)."""

    def __init__(self, dims: int, c_in: int, c: int) -> None:
        super().__init__()
        self.near = _convolutions(dims, c_in, c // 2, depth=2)
        self.far = _convolutions(dims, c_in, c // 2, depth=2, dilation=2)
        self.merge = nn.Sequential(conv(dims, c, c, 1), nn.PReLU(c))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, *S) -> (B, C, *S)``."""
        merged: Tensor = self.merge(torch.cat([self.near(x), self.far(x)], dim=1))
        return merged


class DecoderStage(nn.Module):
    """Adds what a block makes of its input to the guide, and gates the sum (section 3.3)."""

    def __init__(self, config: MPUNetConfig, c_in: int, c: int, *, dropout: float) -> None:
        super().__init__()
        block = MultiScaleBlock if config.multiscale_block else _convolutions
        self.block = block(config.spatial_dims, c_in, c)
        self.gate = AttentionGate(config.spatial_dims, c)
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, guide: Tensor) -> Tensor:
        """``(B, C_in, *S)``, guide ``(B, C, *S)`` -> ``(B, C, *S)``."""
        decoded: Tensor = self.drop(self.gate(self.block(x) + guide, guide))
        return decoded


class MPUNet(nn.Module):
    """The network of Fig. 1. Any size: it pads to a multiple of 8 and crops the logits back."""

    def __init__(self, config: MPUNetConfig) -> None:
        super().__init__()
        self.config = config
        dims = config.spatial_dims
        w1, w2, w3, w4, w5, w6 = (config.width * 2**stage for stage in range(6))
        self.stem = _convolutions(dims, config.in_channels, w1, depth=2)
        steps = pairwise((w1, w2, w3, w4, w5))
        self.reductions = nn.ModuleList(Reduction(config, a, b, halve=b < w5) for a, b in steps)
        self.encoder = nn.ModuleList(_convolutions(dims, c, c, depth=2) for c in (w2, w3, w4, w5))
        self.drop = nn.Dropout(config.dropout)
        bottom = Reduction(config, w5, w6, halve=False), PositionAttentionModule(dims, w6, w5)
        risers = ((upsampling_conv(dims, a, b), nn.PReLU(b)) for a, b in pairwise((w5, w4, w3, w2)))
        self.guides = nn.ModuleList(nn.Sequential(*modules) for modules in (bottom, *risers))
        widths = (w4, w5), (w4 + w3, w4), (w3 + w2, w3), (w2 + w1, w2)
        self.decoder = nn.ModuleList(
            DecoderStage(config, a, b, dropout=config.dropout if b > w2 else 0) for a, b in widths
        )
        self.heads = nn.ModuleList(conv(dims, c, config.num_classes, 1) for _, c in widths)
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """``(B, in_channels, *S)`` -> logits ``(B, num_classes, *S)``, or in training four of them.

        Those of the merged map come first, then those of the three coarser stages, finest first.
        """
        padded = pad_to_train(image, self.config.size_divisor, self.training)
        encoded = [self.stem(padded) + padded.mean(dim=1, keepdim=True)]  # (B, 16, *S)
        for reduce, block in zip(self.reductions, self.encoder, strict=True):
            x = reduce(encoded[-1])  # (B, 32, *S/2), (B, 64, *S/4), (B, 128, *S/8), (B, 256, *S/8)
            encoded.append(self.drop(block(x) + x))
        x = encoded.pop()
        maps: list[Tensor] = []
        for lift, stage, head in zip(self.guides, self.decoder, self.heads, strict=True):
            guide, skip = lift(x), encoded.pop()
            joint = torch.cat([guide, skip], dim=1) if maps else skip
            x = stage(joint, guide)  # (B, 256, *S/8), (B, 128, *S/4), (B, 64, *S/2), (B, 32, *S)
            logits = resize(head(x), padded.shape[2:])
            maps.append(crop_to(logits, image.shape[2:]).log_softmax(dim=1))
        merged = torch.stack(maps).logsumexp(dim=0) - math.log(len(maps))
        coarse = maps[-2::-1] if self.training and self.config.deep_supervision else []
        return [merged, *coarse] if coarse else merged


@dataclass(frozen=True, kw_only=True)
class MPUNetBaselineConfig(NetworkConfig):
    """Settings of :class:`MPUNetBaseline`; those out of range raise ``ConfigError``."""

    size_divisor: ClassVar[int] = 16

    spatial_dims: int = 3
    deep_supervision: bool = True
    """Have heads on three coarser stages, too, and return their maps in training."""

    def build(self) -> "MPUNetBaseline":
        """Return the network with fresh weights."""
        return MPUNetBaseline(self)


class MPUNetBaseline(nn.Module):
    """The U-Net of Table 6. Any size: it pads to a multiple of 16 and crops the logits back."""

    def __init__(self, config: MPUNetBaselineConfig) -> None:
        super().__init__()
        self.config = config
        dims, classes, widths = config.spatial_dims, config.num_classes, (32, 64, 128, 256)
        self.encoder = nn.ModuleList(
            nn.Sequential(conv(dims, a, b, 3), _POOL[dims](2), nn.ReLU())
            for a, b in pairwise((config.in_channels, *widths))
        )
        narrowing = pairwise((*reversed(widths), classes))
        self.decoder = nn.ModuleList(conv(dims, a, b, 3) for a, b in narrowing)
        coarse = widths[1:] if config.deep_supervision else ()
        self.heads = nn.ModuleList(conv(dims, c, classes, 1) for c in (classes, *coarse))
        _initialise(self)

    def forward(self, image: Tensor) -> Tensor | list[Tensor]:
        """``(B, in_channels, *S)`` -> logits ``(B, num_classes, *S)``, four of them in training."""
        encoded = [pad_to_multiple(image, self.config.size_divisor)]
        for stage in self.encoder:  # (B, 32, *S/2), (B, 64, *S/4), (B, 128, *S/8), (B, 256, *S/16)
            encoded.append(stage(encoded[-1]))
        decoded = [encoded.pop()]
        for narrow in self.decoder:  # (B, 128, *S/8), ..., (B, 32, *S/2), (B, num_classes, *S)
            skip = encoded.pop()
            x = resize(narrow(decoded[-1]), skip.shape[2:]).relu()
            decoded.append(x + skip if encoded else x)  # the image itself is not added
        *coarse, _, finest = decoded
        heads = list(self.heads) if self.training else [self.heads[0]]
        maps = zip(heads, (finest, *reversed(coarse)), strict=False)
        logits = [crop_to(resize(head(x), finest.shape[2:]), image.shape[2:]) for head, x in maps]
        return logits if len(logits) > 1 else logits[0]


def _initialise(network: nn.Module) -> None:
    """Kaiming's normal initialisation for rectifiers of slope 0.25, biases 0."""
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:
            nn.init.kaiming_normal_(parameter, a=0.25)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


_MPUNET = Published(
    where="MPU-Net, Table 6, MPU-Net",
    in_channels=1,
    num_classes=2,
    size=(48, 256, 256),
    parameters="22,557,009",
    note=f"{UNUSED_WEIGHTS:,} of them are in modules that are never called, and not built here. "
    "8.46 of the GMAC are zeros, with which queries and keys become as wide as values.",
)
_UNET = replace(_MPUNET, where="MPU-Net, Table 6, U-Net", parameters="2,326,638", note="")


@preset("mpunet", _MPUNET)
def mpunet(in_channels: int, num_classes: int) -> MPUNetConfig:
    """Return the network with an ordinary ELU: 21,507,255 weights for 1 channel and 2 classes."""
    return MPUNetConfig(in_channels=in_channels, num_classes=num_classes)


@preset("mpunet_released", _MPUNET)
def mpunet_released(in_channels: int, num_classes: int) -> MPUNetConfig:
    """Return the network as the paper's figures were made: ELU's alpha is the channel number."""
    return MPUNetConfig(in_channels=in_channels, num_classes=num_classes, elu_alpha="channels")


@preset("mpunet_unet", _UNET)
def mpunet_unet(in_channels: int, num_classes: int) -> MPUNetBaselineConfig:
    """Return the paper's baseline: 2,326,638 weights for 1 channel and 2 classes."""
    return MPUNetBaselineConfig(in_channels=in_channels, num_classes=num_classes)

"""Fast forms of the stages of LightMedSeg: what happens voxel by voxel happens in one pass."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.models.accelerate.forms import fast, fast_parts, form_of
from lamina.models.accelerate.rows import (
    Moments,
    applied,
    measured,
    moments,
    scaled,
    to_map,
    to_rows,
)
from lamina.models.accelerate.steps import Pointwise, joined
from lamina.models.layers.convolution import GhostConv, conv
from lamina.models.layers.gating import FiLM, SqueezeExcite, over_space
from lamina.models.layers.position_bias import PositionBias
from lamina.models.layers.size import resize
from lamina.models.lightmedseg import DecoderStage, EncoderStage


@form_of(EncoderStage)
class FastEncoderStage(nn.Module):
    """Ends of both paths and their mixture in one pass (Eq. 9), its means on the way (Eq. 10)."""

    film: FiLM

    def __init__(self, stage: Any) -> None:
        super().__init__()
        self.project = fast(stage.project)
        if hasattr(stage, "film"):
            self.film = stage.film
        self.detail, self.detail_end = fast(stage.detail[0]), stage.detail[1:]
        self.smooth, self.smooth_end = Pointwise(stage.smooth[0]), stage.smooth[1:]
        self.recalibrate = stage.recalibrate

    def forward(self, x: Tensor, texture: Tensor | None, anchors: Tensor | None) -> Tensor:
        """``(1, C_in, *S)``, texture ``(1, 1, *S')``, anchors -> ``(1, C, *S)``."""
        x = self.project(x)
        if anchors is not None:
            x = self.film(x, anchors.flatten(1)).to(x.dtype)
        rows, size = to_rows(x), x.shape[2:]
        smooth, found = measured(lambda piece: piece, [rows], product=self.smooth.product)
        smooth_end, _ = joined(self.smooth_end, found, len(rows), fresh=False)
        detail = to_rows(self.detail(x))
        detail_end, _ = joined(self.detail_end, moments(detail), len(rows), fresh=False)
        gate = rows.new_full((), 0.5).expand(len(rows), 1)
        if texture is not None:
            gate = to_rows(resize(texture, size)).to(x.dtype)

        def mix(smooth: Tensor, detail: Tensor, gate: Tensor) -> Tensor:
            return torch.lerp(smooth_end(smooth), detail_end(detail), gate)

        mixed, found = measured(mix, [smooth, detail, gate], smooth)
        return to_map(_recalibrated(self.recalibrate, mixed, found), size)


class FastDecoderStage(nn.Module):
    """The 1x1x1 convolution after the skip (Eq. 16) taken into what comes before it.

    It acts on the upsampled features through the transposed convolution, on the skip before that is
    made larger, and on the position bias, of which a ramp along every axis is left.
    """

    own: Tensor

    def __init__(self, stage: Any) -> None:
        super().__init__()
        fuse, self.fuse_end = cast(nn.Conv3d, stage.fuse[0]), stage.fuse[1:]
        own, skip = fuse.weight.flatten(1).chunk(2, dim=1)
        self.up = deepcopy(cast(nn.ConvTranspose3d, stage.upsample))
        up, bias = self.up, cast(nn.Parameter, fuse.bias)
        up.weight = nn.Parameter(torch.einsum("om,im...->io...", own, up.weight), False)
        up.bias = nn.Parameter(own @ cast(Tensor, up.bias) + bias, False)
        up.out_channels = len(own)
        dims = up.weight.dim() - 2
        self.skip = Pointwise(conv(dims, skip.shape[1], len(skip), 1, bias=False))
        self.skip.weight = nn.Parameter(over_space(skip, fuse.weight), False)
        self.position_bias = getattr(stage, "position_bias", None)
        self.register_buffer("own", own, persistent=False)
        self.local, self.local_end = fast(stage.local[0]), stage.local[1:]
        scales, *self_end = stage.multi_scale[0]
        ghost = isinstance(scales, GhostConv)
        self.scales = nn.ModuleList([scales.primary, scales.cheap] if ghost else [scales])
        self.scales_end = nn.ModuleList([*self_end, stage.multi_scale[1]])
        self.point, self.point_end = Pointwise(stage.pointwise[0]), stage.pointwise[1:]
        self.gate = cast(nn.Conv3d, stage.gate[0])
        self.recalibrate = stage.recalibrate

    def forward(self, x: Tensor, skip: Tensor, anchors: Tensor | None) -> Tensor:
        """``(1, C_in, *S / 2)``, skip ``(1, C_skip, *S')``, anchors -> ``(1, C, *S)``."""
        x = self.up(x)
        rows, size = to_rows(x), x.shape[2:]
        parts = [rows, to_rows(resize(self.skip(skip), size))]
        if anchors is not None:
            parts = [part.view(-1, size[-1] * rows.shape[1]) for part in parts]
            fused = applied(self._with_ramp(size, anchors), [*parts, _heights(size)], parts[0])
        else:
            fused = applied(torch.add, parts, parts[0])
        rows = fused.view(rows.shape)
        n = len(rows)
        end, _ = joined(self.fuse_end, moments(rows), n, fresh=True)
        rows = applied(end, [rows], rows)
        mixed, found = self._paths(rows, size)
        return to_map(_recalibrated(self.recalibrate, mixed, found), size)

    def _with_ramp(self, size: torch.Size, anchors: Tensor) -> Callable[..., Tensor]:
        """Return what adds up features, skip and position bias, line of voxels by line."""
        project = cast(PositionBias, self.position_bias).project
        slope = self.own @ project.weight.flatten(1).float().sum(1)
        bias = cast(Tensor, project.bias).float()
        points = -anchors.float().sum(dim=2)[0]
        constant = self.own @ (project.weight.flatten(1).float() @ points + bias)
        along = torch.arange(size[-1])[:, None] / size[-1]
        line, steps = (along * slope + constant).flatten(), slope.repeat(size[-1])

        def fuse(x: Tensor, skip: Tensor, height: Tensor) -> Tensor:
            return torch.addcmul(line, height, steps).add_(x).add_(skip).to(x.dtype)

        return fuse

    def _paths(self, rows: Tensor, size: torch.Size) -> tuple[Tensor, Moments]:
        """Return the mixture of the three gated paths (Eq. 17-18)."""
        x, n = to_map(rows, size), len(rows)
        local = to_rows(self.local(x))
        scales = []
        for look in self.scales:
            x = look(x)
            scales.append(to_rows(x))
        point, found = measured(lambda piece: piece, [rows], product=self.point.product)
        spread = Moments(*map(torch.cat, zip(*map(moments, scales), strict=True)))
        ends = [
            joined(layers, seen, n, fresh=False)[0]
            for layers, seen in (
                (self.local_end, moments(local)),
                (self.scales_end, spread),
                (self.point_end, found),
            )
        ]
        c = rows.shape[1]
        # Every gate once per channel: contiguous numbers multiply faster than broadcast ones.
        weights = self.gate.weight.flatten(1).unsqueeze(1).expand(-1, c, -1)
        biases = cast(Tensor, self.gate.bias)[:, None].expand(-1, c)

        def mix(x: Tensor, local: Tensor, point: Tensor, *scales: Tensor) -> Tensor:
            logits = [F.linear(x, w, b) for w, b in zip(weights, biases, strict=True)]
            top = torch.maximum(torch.maximum(logits[0], logits[1]), logits[2])
            first, second, third = (logit.sub_(top).exp_() for logit in logits)
            mixed = ends[0](local).mul_(first)
            mixed.addcmul_(ends[1](torch.cat(scales, 1)), second)
            mixed.addcmul_(ends[2](point), third)
            return mixed.div_(first.add_(second).add_(third))

        return measured(mix, [rows, local, point, *scales], local)


@form_of(DecoderStage)
def decoder_stage(stage: Any) -> nn.Module:
    """Return the fast form of reading "a" with its own position bias; of others, of their parts."""
    bias = getattr(stage, "position_bias", None)
    plain = isinstance(stage.fuse[0], nn.Conv2d | nn.Conv3d)
    if plain and (bias is None or bias.kind == "sum"):
        return FastDecoderStage(stage)
    return fast_parts(stage)


def _heights(size: torch.Size) -> Tensor:
    """Sum of the coordinates of every line of voxels, ``(lines, 1)``, but along the line."""
    axes = torch.meshgrid(*(torch.arange(n) / n for n in size[:-1]), indexing="ij")
    return torch.stack(axes).sum(0).view(-1, 1)


def _recalibrated(recalibrate: SqueezeExcite, rows: Tensor, found: Moments) -> Tensor:
    return scaled(rows, recalibrate.weights(found.mean[None])[0])

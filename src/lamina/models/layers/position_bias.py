"""Telling every voxel how far it is from a few points."""

from typing import Literal

import torch
from torch import Tensor, nn

from lamina.models.layers.convolution import conv
from lamina.models.layers.gating import over_space


class PositionBias(nn.Module):
    """Projects every voxel's offsets from K points to channels (LightMedSeg, 3.6, Eq. 14-15).

    Offsets summed over axes are one ramp minus a number per point. Their projection is the ramp
    times the summed weights plus a constant, so that the K maps themselves are never built.

    Args:
        spatial_dims: 2 or 3.
        num_points: Points K.
        channels: Channels of the bias.
        kind: ``"sum"``: offsets summed over axes; ``"l2"``: Euclidean distances.
    """

    def __init__(
        self, spatial_dims: int, num_points: int, channels: int, kind: Literal["sum", "l2"]
    ) -> None:
        super().__init__()
        self.kind = kind
        self.project = conv(spatial_dims, num_points, channels, 1)

    def forward(self, x: Tensor, points: Tensor) -> Tensor:
        """``(B, C, *S)``, points ``(B, K, spatial_dims)`` in [0, 1] -> bias ``(B, C, *S)``."""
        axes = [torch.arange(n, device=x.device) / n for n in x.shape[2:]]
        grid = torch.stack(torch.meshgrid(axes, indexing="ij"))  # (spatial_dims, *S)
        if self.kind == "l2":
            offsets = grid - over_space(points, x)  # (B, K, spatial_dims, *S)
            # Shifted because the root's slope is infinite where a voxel meets a point.
            bias: Tensor = self.project(offsets.square().sum(dim=2).add(1e-6).sqrt())
        else:
            constant = self.project(over_space(-points.sum(dim=2), x))
            bias = self.project.weight.sum(dim=1) * grid.sum(dim=0) + constant
        return bias.to(x.dtype)

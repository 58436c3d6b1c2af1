"""The local multi-scale block, and the other parts that LGMSNet has in common with U-Nets.

Dong, Tang, Mao, Gao, Zhou: *LGMSNet: Thinning a medical image segmentation model via dual-level
multiscale fusion*, 2025, arXiv 2508.15476, section 3.1.
"""

import torch
from torch import Tensor, nn

from lamina.models.layers.convolution import Layer, conv, conv_unit

KERNELS = (3, 5, 7, 9)
"""Widths of the convolutions of one block, one for each quarter of its channels."""


class LMS(nn.Module):
    """Looks at each quarter of the channels with a kernel of its own width, then mixes them.

    ``channels`` is a multiple of four. Groups of the group normalisation are those quarters.
    """

    def __init__(
        self, spatial_dims: int, channels: int, norm: Layer, kernels: tuple[int, ...] = KERNELS
    ) -> None:
        super().__init__()
        quarter = channels // len(KERNELS)
        self.depthwise = nn.ModuleList(
            conv(spatial_dims, quarter, quarter, k, groups=quarter) for k in kernels
        )
        self.norm = nn.GroupNorm(len(KERNELS), channels)
        self.activation = nn.GELU()
        self.squeeze = conv_unit(spatial_dims, channels, quarter, 1, norm)
        self.expand = conv_unit(spatial_dims, quarter, channels, 3, norm)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        quarters = x.chunk(len(KERNELS), dim=1)
        scales = [look(part) for look, part in zip(self.depthwise, quarters, strict=True)]
        y = self.activation(self.norm(torch.cat(scales, dim=1) + x))
        mixed: Tensor = self.expand(self.squeeze(y))
        return mixed + x


def lms_stage(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    norm: Layer,
    depth: int = 1,
    kernels: tuple[int, ...] = KERNELS,
) -> nn.Sequential:
    """Return ``depth`` blocks as wide as the input, and the unit that changes the width."""
    blocks = (LMS(spatial_dims, in_channels, norm, kernels) for _ in range(depth))
    return nn.Sequential(*blocks, conv_unit(spatial_dims, in_channels, out_channels, 1, norm))


class UpStage(nn.Module):
    """Doubles the size, narrows by a convolution, and merges the encoder's map of that size.

    ``mode`` is that of ``nn.Upsample``; ``merge`` takes twice ``out_channels``, the encoder's
    first.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        norm: Layer,
        *,
        mode: str,
        merge: nn.Module,
    ) -> None:
        super().__init__()
        unit = conv_unit(spatial_dims, in_channels, out_channels, 3, norm, nn.ReLU, bias=True)
        self.up = nn.Sequential(nn.Upsample(scale_factor=2, mode=mode), *unit)
        self.merge = merge

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """``(B, C_in, *S / 2)``, skip ``(B, C, *S)`` -> what ``merge`` makes of both."""
        merged: Tensor = self.merge(torch.cat([skip, self.up(x)], dim=1))
        return merged

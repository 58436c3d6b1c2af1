"""Convolutions for images and volumes, chosen by the number of spatial axes."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

Layer = Callable[[int], nn.Module]
"""Makes a normalisation from a number of channels: ``nn.BatchNorm2d``, ``nn.InstanceNorm3d``."""

_CONV: dict[int, type[nn.Conv2d] | type[nn.Conv3d]] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]] = {
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


def conv(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    bias: bool = True,
) -> nn.Conv2d | nn.Conv3d:
    """Return a convolution of odd kernel size; sizes stay, or are divided by ``stride``."""
    return _CONV[spatial_dims](
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=dilation * (kernel_size // 2),
        dilation=dilation,
        groups=groups,
        bias=bias,
    )


def conv_unit(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    norm: Layer,
    activation: Callable[[], nn.Module] = nn.SiLU,
    *,
    groups: int = 1,
    bias: bool = False,
) -> nn.Sequential:
    """Return convolution, normalisation and activation, which keep the size."""
    convolution = conv(
        spatial_dims, in_channels, out_channels, kernel_size, groups=groups, bias=bias
    )
    return nn.Sequential(convolution, norm(out_channels), activation())


def downsampling_conv(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Return a convolution of kernel 2 and stride 2, which halves the size."""
    return _CONV[spatial_dims](in_channels, out_channels, kernel_size=2, stride=2)


def upsampling_conv(spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Return a transposed convolution of kernel 2 and stride 2, which doubles the size."""
    return _TRANSPOSED[spatial_dims](in_channels, out_channels, kernel_size=2, stride=2)


class GhostConv(nn.Module):
    """Half the channels by a 3-wide convolution, the rest by a depthwise one of those; no bias.

    Han et al.: *GhostNet: More Features from Cheap Operations*, CVPR 2020, Fig. 1b.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, *, stride: int = 1
    ) -> None:
        super().__init__()
        half = out_channels // 2
        self.primary = conv(spatial_dims, in_channels, half, 3, stride=stride, bias=False)
        self.cheap = conv(spatial_dims, half, half, 3, groups=half, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C_in, *S) -> (B, C_out, *S / stride)``."""
        primary = self.primary(x)
        return torch.cat([primary, self.cheap(primary)], dim=1)

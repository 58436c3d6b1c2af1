"""Convolutions in other words: the same sums, in an order that the processor likes better."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval


class DilatedDepthwise(nn.Module):
    """A dilated depthwise convolution of volumes, as a plain one of interleaved smaller grids.

    Every d-th voxel along each axis forms a grid of its own, in which neighbours are neighbours.
    Grids that differ along the last axis stand side by side as channels, which moves nothing.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias, self.dilation = conv.weight, conv.bias, conv.dilation[0]

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        d, c, size = self.dilation, x.shape[1], x.shape[2:]
        missing = [-n % d for n in size]
        if any(missing):  # zeros, as a convolution's own padding
            x = F.pad(x, [n for m in reversed(missing) for n in (0, m)])
        x = x.movedim(1, -1).unflatten(3, (-1, d)).flatten(4).unflatten(2, (-1, d))
        x = x.unflatten(1, (-1, d)).permute(0, 2, 4, 1, 3, 5, 6)
        grids = x.flatten(0, 2).movedim(-1, 1).contiguous(memory_format=torch.channels_last_3d)
        weight = self.weight.repeat(d, 1, 1, 1, 1)
        bias = None if self.bias is None else self.bias.repeat(d)
        x = F.conv3d(grids, weight, bias, padding=1, groups=d * c).movedim(1, -1)
        x = x.unflatten(0, (-1, d, d)).permute(0, 3, 1, 4, 2, 5, 6)
        x = x.flatten(3, 4).flatten(1, 2).unflatten(-1, (d, c)).flatten(3, 4)
        for axis, n in enumerate(size, start=1):
            x = x.narrow(axis, 0, n)
        return x.movedim(-1, 1)


def is_dilated_depthwise(layer: nn.Module) -> bool:
    """Tell whether a layer is a depthwise convolution of volumes, of kernel 3, dilated, padded."""
    if not isinstance(layer, nn.Conv3d) or layer.padding_mode != "zeros":
        return False
    d = layer.dilation[0]
    settings = (*layer.dilation, *cast(tuple[int, ...], layer.padding))
    depthwise = layer.groups == layer.in_channels == layer.out_channels
    plain = layer.kernel_size == (3, 3, 3) and layer.stride == (1, 1, 1)
    return depthwise and plain and d > 1 and set(settings) == {d}


class DirectConvolution(nn.Module):
    """A convolution of volumes that oneDNN does, channels last.

    Torch leaves small float32 maps, and those of few channels, to an older kernel that is two to
    seven times slower.
    """

    def __init__(self, conv: nn.Conv3d) -> None:
        super().__init__()
        padding = cast(tuple[int, ...], conv.padding)
        self.settings = padding, conv.stride, conv.dilation
        weight = conv.weight.contiguous(memory_format=torch.channels_last_3d)
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C', *S')``."""
        padding, stride, dilation = self.settings
        if x.dtype == self.weight.dtype == torch.float32:
            return torch.mkldnn_convolution(x, self.weight, self.bias, *self.settings, 1)
        return F.conv3d(x, self.weight, self.bias, stride, padding, dilation)


def is_direct(layer: nn.Module) -> bool:
    """Tell whether :class:`DirectConvolution` stands for a layer, and works here."""
    return (
        type(layer) is nn.Conv3d
        and layer.groups == 1
        and layer.padding_mode == "zeros"
        and not isinstance(layer.padding, str)
        and torch.backends.mkldnn.is_available()
    )


def folded(layers: list[Any]) -> list[nn.Module]:
    """Put batch normalisations into the convolutions just before them."""
    result: list[Any] = []
    for layer in layers:
        if _fits(result[-1] if result else None, layer):
            transposed = isinstance(result[-1], nn.ConvTranspose2d | nn.ConvTranspose3d)
            result[-1] = fuse_conv_bn_eval(result[-1], layer, transposed)
        else:
            result.append(layer)
    return result


def _fits(conv: Any, norm: Any) -> bool:
    convolutions = nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d
    batch = type(norm) in (nn.BatchNorm2d, nn.BatchNorm3d)
    return batch and bool(norm.track_running_stats) and type(conv) in convolutions

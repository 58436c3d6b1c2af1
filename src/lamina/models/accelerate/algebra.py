"""The same network in fewer operators, by exact algebra, still of layers that everything knows.

What is exported is this form, and what torch runs goes on from it.
"""

from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.models.layers.convolution import conv
from lamina.models.layers.lms import LMS


class SummedLMS(nn.Module):
    """An LMS block whose four widths are one depthwise convolution, its input's sum included.

    Runtimes are several times slower on convolutions of a few channels than their sums tell; a
    kernel of the largest width, zero where a smaller one does not reach, is faster than four.
    """

    def __init__(self, block: LMS) -> None:
        super().__init__()
        self.look = _together(block.depthwise)
        self.mix = nn.Sequential(block.norm, block.activation, *block.squeeze, *block.expand)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        mixed: Tensor = self.mix(self.look(x))
        return mixed + x


@torch.no_grad()
def simplified(network: nn.Module) -> nn.Module:
    """Return a copy of a network, in evaluation mode, that takes fewer operators."""
    return _simplified(deepcopy(network).eval().requires_grad_(False))


def _simplified(module: nn.Module) -> nn.Module:
    if type(module) is LMS:
        return SummedLMS(module)
    for name, part in module.named_children():
        setattr(module, name, _simplified(part))
    return module


def _together(convolutions: Any) -> nn.Module:
    """Return one depthwise convolution of all channels, plus the identity."""
    weights = [look.weight for look in convolutions]
    width = max(weight.shape[-1] for weight in weights)
    dims = weights[0].dim() - 2
    margins = [(width - weight.shape[-1]) // 2 for weight in weights]
    padded = [F.pad(w, [n] * (2 * dims)) for w, n in zip(weights, margins, strict=True)]
    weight = torch.cat(padded)
    weight.flatten(1)[:, width**dims // 2] += 1  # the middle
    both = conv(dims, len(weight), len(weight), width, groups=len(weight))
    both.weight, both.bias = (
        nn.Parameter(values, requires_grad=False)
        for values in (weight, torch.cat([look.bias for look in convolutions]))
    )
    return both

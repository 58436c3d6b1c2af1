"""The layers of a network that can be looked into, by name, and the one to look into first."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lamina.errors import unknown
from lamina.models import NetworkConfig

COARSE = 8
"""Voxels per cell of the layer to look into first: cells know their surroundings, and still lie
somewhere."""

_PRIME = 7


@dataclass(frozen=True)
class Layer:
    """A module whose output is a map ``(B, C, *S / stride)``."""

    name: str
    """As PyTorch names it: ``decoder.1``."""
    channels: int
    stride: tuple[int, ...]
    """Voxels of the image per cell along each axis."""


def layers_of(config: NetworkConfig) -> tuple[Layer, ...]:
    """Return the layers of a network, in the order in which their outputs are there.

    The network is run without computing anything, on an image whose sides no number of channels
    resembles. What runs more than once in a pass is left out, as is what returns several tensors.
    """
    side = _PRIME * max(config.size_divisor, 32)
    size = (side,) * config.spatial_dims
    seen: list[tuple[str, torch.Size]] = []

    def noting(name: str) -> Any:
        def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if isinstance(output, Tensor):
                seen.append((name, output.shape))

        return note

    with torch.device("meta"), torch.no_grad():
        network = config.build().eval()
        for name, module in network.named_modules():
            if name and not isinstance(module, nn.Identity):
                module.register_forward_hook(noting(name))
        network(torch.zeros(1, config.input_channels, *size))
    calls = Counter(name for name, _ in seen)
    return tuple(
        Layer(name, shape[1], tuple(side // n for n in shape[2:]))
        for name, shape in seen
        if calls[name] == 1 and _is_map(shape, side, config.spatial_dims)
    )


def default_layer(layers: Iterable[Layer], num_classes: int) -> Layer:
    """Return the layer to look into first: on the way up, the last of still coarse cells.

    That is the last one of :data:`COARSE` voxels per cell or more behind the coarsest, or the next
    best: what comes right behind it, or itself. Heads, whose channels are classes, do not count.
    """
    found = [layer for layer in layers if layer.channels != num_classes]
    strides = [max(layer.stride) for layer in found]
    coarsest = max(strides)
    lowest = len(found) - 1 - strides[::-1].index(coarsest)
    if coarsest <= COARSE or lowest + 1 == len(found):
        return found[lowest]
    step = strides[lowest + 1]
    last = max(i for i in range(lowest + 1, len(found)) if strides[i] >= min(COARSE, step))
    return found[last]


def find_layer(layers: Iterable[Layer], name: str) -> Layer:
    """Return the layer of that name.

    Raises:
        UnknownNameError: There is none; the message offers near matches, or lists the outer ones.
    """
    known = {layer.name: layer for layer in layers}
    if name not in known:
        raise unknown("layer", name, sorted(known, key=lambda each: each.count(".")))
    return known[name]


def _is_map(shape: torch.Size, side: int, dims: int) -> bool:
    sides = shape[2:]
    return (
        len(shape) == 2 + dims
        and shape[0] == 1
        and all(n % _PRIME == 0 and side % n == 0 for n in sides)
    )

"""What a network costs, counted without computing anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from lamina.models import NetworkConfig

_MOVING = {
    *("arange", "cat", "clone", "constant_pad_nd", "copy_", "detach", "empty", "fill_", "full"),
    *("index", "lift_fresh", "ones", "replication_pad2d", "replication_pad3d", "roll"),
    *("scalar_tensor", "stack", "zeros", "_to_copy", "_unsafe_view", "_unsafe_index"),
}
"""Operators that make or move numbers without calculating."""


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """Weights and operations of one network, for one image of one size."""

    parameters: int
    """Weights, those that are never used included."""
    live_parameters: int
    """Weights that are trained: those of modules whose result is used."""
    macs: int
    """Multiply-accumulate operations of the convolutions and matrix products of one prediction."""
    uncounted: tuple[str, ...]
    """Operators that calculate but are not in ``macs``, such as normalisation and activation."""

    @property
    def flops(self) -> int:
        """Floating-point operations: two for each multiply-accumulate."""
        return 2 * self.macs


class _Operators(TorchDispatchMode):
    """Notes what every operator costs, and those for which there is no formula."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counted: list[tuple[int, int]] = []
        self.uncounted: set[str] = set()

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named, name = kwargs or {}, str(func.overloadpacket).removeprefix("aten.")
        found = func(*args, **named)
        if func.overloadpacket in flop_registry:
            flops = flop_registry[func.overloadpacket](*args, **named, out_val=found)
            held = (x for x in tree_leaves((args, named, found)) if isinstance(x, torch.Tensor))
            self.counted.append((flops // 2, sum(x.numel() for x in held)))
        elif not func.is_view and name not in _MOVING:
            self.uncounted.add(name)
        return found


def complexity(config: NetworkConfig, size: tuple[int, ...]) -> Complexity:
    """Count weights and the operations of one prediction, one image at a time.

    Args:
        config: Of the network.
        size: Of the image in voxels, in array order.
    """
    network, found = _run(config, size)
    sizes = [(prod(p.shape), p.requires_grad) for p in network.parameters()]
    return Complexity(
        parameters=sum(n for n, _ in sizes),
        live_parameters=sum(n for n, live in sizes if live),
        macs=sum(macs for macs, _ in found.counted),
        uncounted=tuple(sorted(found.uncounted)),
    )


def products(config: NetworkConfig, size: tuple[int, ...]) -> list[tuple[int, int]]:
    """List the convolutions and matrix products of one prediction, in the order they are done.

    Args:
        config: Of the network.
        size: Of the image in voxels, in array order.

    Returns:
        Multiply-accumulates of each, and values that it reads and writes.
    """
    return _run(config, size)[1].counted


def _run(config: NetworkConfig, size: tuple[int, ...]) -> tuple[torch.nn.Module, _Operators]:
    with torch.device("meta"), torch.no_grad():
        network = config.build().eval()
        operators = _Operators()
        with operators:
            network(torch.zeros(1, config.input_channels, *size))
    return network, operators

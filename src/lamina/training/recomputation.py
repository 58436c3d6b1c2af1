"""Activation checkpointing: less memory in training, for the time of another forward pass.

Chen et al.: *Training Deep Nets with Sublinear Memory Cost*, 2016, arXiv 1604.06174.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from math import isqrt
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(network: nn.Module) -> None:
    """Have each block of a network keep its input alone, and compute the rest anew in backward.

    Blocks are the largest parts that hold at most the square root of all layers, a layer being a
    module without children. Weights, their names and gradients are the same, random numbers are
    repeated, and running statistics are counted once.

    Args:
        network: Changed in place; do not copy it afterwards.
    """
    for block in _blocks(network, isqrt(_num_layers(network))):
        block.forward = partial(_recomputed, block, block.forward)


def _blocks(module: nn.Module, size: int) -> Iterator[nn.Module]:
    for part in module.children():
        never_called = isinstance(part, nn.ModuleList | nn.ModuleDict)
        if never_called or _num_layers(part) > size:
            yield from _blocks(part, size)
        elif any(part.children()):  # a lone layer keeps little more than its input
            yield part


def _num_layers(module: nn.Module) -> int:
    return sum(not any(part.children()) for part in module.modules())


def _recomputed(block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    contexts = partial(_contexts, block)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts, **kwargs)


def _contexts(
    block: nn.Module,
) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _statistics_left(block)


@contextmanager
def _statistics_left(block: nn.Module) -> Iterator[None]:
    """Keep batch normalisation from counting a batch that it has seen already."""
    norms: list[Any] = [n for n in block.modules() if getattr(n, "track_running_stats", False)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count

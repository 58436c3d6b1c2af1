"""Convolutions of grids smaller than their kernels, which a CPU must not train in bfloat16.

There oneDNN's gradient of the weights (torch 2.13) is of memory that nobody wrote, and writes where
it must not: equal seeds part, now and then a step is infinite, and the process may die. In float32
it is right, and so few voxels cost nothing.
"""

from contextlib import ExitStack
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle


class SmallGrids(Callback):
    """Has the network's convolutions leave autocast wherever the kernel exceeds the grid."""

    def __init__(self) -> None:
        self._hooks: list[RemovableHandle] = []

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Watch what each convolution is given."""
        for module in pl_module.network.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                outside = _Outside()
                self._hooks += [
                    module.register_forward_pre_hook(outside.enter),
                    module.register_forward_hook(outside.leave, always_call=True),
                ]

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Leave the network as it was."""
        while self._hooks:
            self._hooks.pop().remove()


class _Outside:
    """One convolution's way out of autocast and back."""

    def __init__(self) -> None:
        self._left = ExitStack()

    def enter(self, conv: nn.Conv2d | nn.Conv3d, given: tuple[Tensor]) -> tuple[Tensor] | None:
        if not (torch.is_autocast_enabled("cpu") and _exceeds(conv, given[0])):
            return None
        self._left.enter_context(torch.autocast("cpu", enabled=False))
        return (given[0].float(),)

    def leave(self, conv: nn.Module, given: tuple[Tensor], found: Tensor) -> None:
        self._left.close()


def _exceeds(conv: nn.Conv2d | nn.Conv3d, x: Tensor) -> bool:
    """Tell whether the kernel, with its gaps, is longer than the grid along any axis."""
    axes = zip(x.shape[2:], conv.kernel_size, conv.dilation, strict=True)
    return any(side < step * (taps - 1) + 1 for side, taps, step in axes)

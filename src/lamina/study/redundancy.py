"""Channel redundancy: how few directions the channels of a network's maps span.

LGMSNet (section 1, Fig. 1c) counts singular values along the channels of maps; neither its layers
nor its threshold are printed. Ours: of every convolution's output, the share of singular values
that hold 99 % of the variance; the mean over the convolutions. Fewer means more redundant.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

ENERGY = 0.99
FEWEST_CHANNELS = 8
"""Layers of fewer say little, such as a head of two classes."""

_CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def used_channels(maps: Tensor) -> float:
    """Return the share, 0..1, of singular values that hold ``ENERGY`` of the channels' variance.

    Args:
        maps: ``(B, C, *S)``; a channel's values are taken from its mean.
    """
    rows = maps.detach().transpose(0, 1).flatten(1).double()
    rows = rows - rows.mean(dim=1, keepdim=True)
    # Squares of the singular values, from the small matrix of channels.
    energies = torch.linalg.eigvalsh(rows @ rows.T).flip(0).clamp(min=0)
    if not float(energies.sum()) > 0:
        return 0.0
    short = energies.cumsum(0) < ENERGY * energies.sum()
    return min(int(short.sum()) + 1, len(energies)) / len(energies)


@contextmanager
def watched(network: nn.Module) -> Iterator[list[float]]:
    """Yield a list that gets :func:`used_channels` of each convolution as ``network`` runs."""
    found: list[float] = []

    def look(module: nn.Module, inputs: object, maps: Tensor) -> None:
        channels, voxels = maps.shape[1], maps.numel() // maps.shape[1]
        if FEWEST_CHANNELS <= channels < voxels:
            found.append(used_channels(maps))

    layers = [module for module in network.modules() if isinstance(module, _CONVOLUTIONS)]
    hooks = [layer.register_forward_hook(look) for layer in layers]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()

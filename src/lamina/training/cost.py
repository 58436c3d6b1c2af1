"""What a training step of a network takes on this machine."""

import time
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv3d_weight_memory_format

from lamina.data.planning import NetworkCost
from lamina.models import NetworkConfig, input_channels

_BACKWARD = 1.3
"""Peak over what is kept for the backward pass: gradients in flight and the optimiser's scratch."""


def measure_cost(config: NetworkConfig) -> NetworkCost:
    """Run forward and backward on a small patch; memory and time grow with its voxels."""
    side = max(32, config.size_divisor)
    # Twice as long along one axis: the deepest map must not be a single voxel.
    sides = *[side] * (config.spatial_dims - 1), max(side, 2 * config.size_divisor)
    shape = (2, input_channels(config), *sides)
    image = torch.zeros(shape)
    if config.spatial_dims == 3:
        image = image.contiguous(memory_format=torch.channels_last_3d)
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def keep(stored: Any) -> Any:
        return stored

    with torch.random.fork_rng(devices=[]):
        network = convert_conv3d_weight_memory_format(config.build(), torch.channels_last_3d)
        with torch.autograd.graph.saved_tensors_hooks(pack, keep):
            _time_step(network, image)
        seconds = min(_time_step(network, image) for _ in range(3))
    voxels = shape[0] * prod(sides)
    return NetworkCost(
        size_divisor=config.size_divisor,
        bytes_per_voxel=_BACKWARD * sum(kept.values()) / voxels,
        seconds_per_voxel=seconds / voxels,
    )


def _time_step(network: nn.Module, image: Tensor) -> float:
    began = time.perf_counter()
    heads = network(image)
    sum(x.square().mean() for x in (heads if isinstance(heads, list) else [heads])).backward()
    return time.perf_counter() - began

"""What a training step of a network takes on this machine."""

import time
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import convert_conv3d_weight_memory_format

from lamina.data.budget import NetworkCost
from lamina.models import NetworkConfig
from lamina.models.accelerate import keep_freed_memory

_BACKWARD = 1.3
"""Peak over what is kept for the backward pass: gradients in flight and the optimiser's scratch."""


def measure_cost(
    config: NetworkConfig,
    network: str,
    network_options: Mapping[str, Any] | None = None,
    device: str = "cpu",
) -> NetworkCost:
    """Run forward and backward on a small patch; memory and time grow with its voxels.

    Args:
        config: The network.
        network: The preset that it is called by.
        network_options: What differs from the preset.
        device: Where it is to be trained.
    """
    if device == "cpu":
        keep_freed_memory()  # as training does
    side = max(32, config.size_divisor)
    # Twice as long along one axis: the deepest map must not be a single voxel.
    sides = *[side] * (config.spatial_dims - 1), max(side, 2 * config.size_divisor)
    shape = (2, config.input_channels, *sides)
    image = torch.zeros(shape, device=device)
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
        net = convert_conv3d_weight_memory_format(config.build(), torch.channels_last_3d).to(device)

        def step() -> None:
            heads = net(image)
            heads = heads if isinstance(heads, list) else [heads]
            sum(head.square().mean() for head in heads).backward()

        with torch.autograd.graph.saved_tensors_hooks(pack, keep):
            step()
        step_s = _seconds(step)
        net.eval()
        with torch.inference_mode():
            predict_s = _seconds(lambda: net(image))
    voxels = shape[0] * prod(sides)
    return NetworkCost(
        network=network,
        network_options=dict(network_options or {}),
        spatial_dims=config.spatial_dims,
        size_divisor=config.size_divisor,
        bytes_per_voxel=_BACKWARD * sum(kept.values()) / voxels,
        seconds_per_voxel=step_s / voxels,
        predict_seconds_per_voxel=predict_s / voxels,
    )


def _seconds(job: Callable[[], Any]) -> float:
    """Return the time of the quicker of two."""
    taken = []
    for _ in range(2):
        began = time.perf_counter()
        job()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - began)
    return min(taken)

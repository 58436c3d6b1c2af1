"""Weights, gradients and the optimiser's memory shared out among GPUs (FSDP), as Lightning has it.

Zhao et al.: *PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel*, VLDB 2023, arXiv
2304.11277. Checkpoints hold everything, in one file, under the usual names.
"""

from copy import deepcopy
from datetime import timedelta
from typing import Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.nn.utils import clip_grad_norm_


def sharding(network: nn.Module, timeout: timedelta) -> FSDPStrategy:
    """Return the strategy that shards a network, and its average in the same way, each as one."""
    return FSDPStrategy(auto_wrap_policy={type(network)}, state_dict_type="full", timeout=timeout)


def gathered(network: nn.Module) -> nn.Module:
    """Return a copy of a sharded network with all its weights; any other network as it is.

    A sharded one is called by all processes together, or by none: it cannot see unequal shares.
    """
    if not isinstance(network, FullyShardedDataParallel):
        return network
    with FullyShardedDataParallel.summon_full_params(network, writeback=False):
        copy: nn.Module = deepcopy(network.module)
    return copy


def clip(module: LightningModule, network: nn.Module, longest: float) -> torch.Tensor:
    """Shorten a network's gradient to a length, and return the length that it had.

    Args:
        module: What trains the network.
        network: Sharded or not.
        longest: The gradient's greatest length.
    """
    if isinstance(network, FullyShardedDataParallel):
        root: Any = module.trainer.strategy.model
        norm: torch.Tensor = root.clip_grad_norm_(longest)
        return norm
    return clip_grad_norm_(network.parameters(), longest)

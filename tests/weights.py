"""What tests of networks ask of their weights."""

import torch
from torch import nn


def count(module: nn.Module) -> int:
    """Return how many there are."""
    return sum(parameter.numel() for parameter in module.parameters())


def weightless(config) -> nn.Module:
    """Return the network of a configuration without memory for its weights."""
    with torch.device("meta"):
        return config.build()

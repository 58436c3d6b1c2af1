"""Models: what networks there are."""

import sys
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from lamina.errors import ConfigError
from lamina.models import NETWORKS, configure


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """One preset."""

    name: str
    spatial_dims: tuple[int, ...]
    """Number of spatial axes it can have."""
    parameters: int
    """With its default number of axes, and the channels and classes asked for."""
    size_divisor: int
    """Sizes that are multiples of it cost no padding."""
    source: str
    """First line of the network's file: idea and paper."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def list_models(in_channels: int = 1, num_classes: int = 2) -> list[ModelFacts]:
    """Describe every registered network, without giving memory to its weights.

    Raises:
        ConfigError: No network takes so few channels or classes.
    """
    import torch

    facts = []
    for name in NETWORKS:
        config = configure(name, in_channels=in_channels, num_classes=num_classes)
        with torch.device("meta"):
            network = config.build()
        facts.append(
            ModelFacts(
                name=name,
                spatial_dims=_dims(name, in_channels, num_classes),
                parameters=sum(p.numel() for p in network.parameters()),
                size_divisor=config.size_divisor,
                source=(sys.modules[type(config).__module__].__doc__ or "").partition("\n")[0],
            )
        )
    return facts


def _dims(name: str, in_channels: int, num_classes: int) -> tuple[int, ...]:
    """Return the numbers of spatial axes that a network can be built with."""
    found = []
    for dims in (2, 3):
        with suppress(ConfigError):
            configure(name, in_channels=in_channels, num_classes=num_classes, spatial_dims=dims)
            found.append(dims)
    return tuple(found)

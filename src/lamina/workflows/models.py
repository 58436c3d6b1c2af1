"""Models: what networks there are, what they cost, and what their papers say they cost."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from lamina.errors import ConfigError
from lamina.models import NETWORKS, PUBLISHED, NetworkConfig, configure
from lamina.models.published import Published, quantity
from lamina.workflows import Progress, no_progress

_SIDE = {2: 256, 3: 96}
"""Sides of the images that operations are counted for where no paper names a size."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """One preset: what it is, what was counted, and what its paper prints."""

    name: str
    source: str
    """First line of the network's file: idea and paper."""
    spatial_dims: tuple[int, ...]
    """Number of spatial axes it can have."""
    size_divisor: int
    """Sizes that are multiples of it cost no padding."""
    in_channels: int
    """Image channels that the counts are for."""
    num_classes: int
    """Classes that the counts are for."""
    size: tuple[int, ...]
    """Image size that the operations are counted for."""
    parameters: int
    live_parameters: int
    """Those of modules whose result is used."""
    macs: int
    """Multiply-accumulates of one prediction: convolutions and matrix products."""
    uncounted: tuple[str, ...]
    """Operators that calculate but are not in ``macs``."""
    published: Published | None
    """What the paper prints."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; deviations are shares of what the paper prints."""
        deviations = {
            f"{what}_deviation": _deviation(getattr(self, what), getattr(self.published, what))
            for what in ("parameters", "macs")
            if self.published
        }
        return asdict(self) | {"flops": 2 * self.macs} | deviations


def list_models(
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    names: Sequence[str] | None = None,
    progress: Progress = no_progress,
) -> list[ModelFacts]:
    """Describe registered networks, without giving memory to their weights.

    Args:
        in_channels: Image channels to count for; by default those of the paper's figures, or 1.
        num_classes: Classes to count for; by default those of the paper's figures, or 2.
        names: Presets; all by default.
        progress: Called with networks done and networks in all.

    Raises:
        UnknownNameError: A preset is unknown.
        ConfigError: A network does not take so few channels or classes.
    """
    chosen = list(names or NETWORKS)
    facts = []
    for done, name in enumerate(chosen):
        progress(done, len(chosen), name)
        facts.append(_facts(name, in_channels, num_classes))
    return facts


def _facts(name: str, in_channels: int | None, num_classes: int | None) -> ModelFacts:
    from lamina.models.complexity import complexity

    printed = PUBLISHED.get(name) if name in PUBLISHED else None
    config = configure(
        name,
        in_channels=(printed.in_channels if printed else 1) if in_channels is None else in_channels,
        num_classes=(printed.num_classes if printed else 2) if num_classes is None else num_classes,
    )
    size = printed.size if printed else (_SIDE[config.spatial_dims],) * config.spatial_dims
    cost = complexity(config, size)
    return ModelFacts(
        name=name,
        source=(sys.modules[type(config).__module__].__doc__ or "").partition("\n")[0],
        spatial_dims=_dims(name, config),
        size_divisor=config.size_divisor,
        in_channels=config.in_channels,
        num_classes=config.num_classes,
        size=size,
        **asdict(cost),
        published=printed,
    )


def _dims(name: str, config: NetworkConfig) -> tuple[int, ...]:
    """Return the numbers of spatial axes that a network can be built with."""
    found = []
    for dims in (2, 3):
        with suppress(ConfigError):
            configure(name, **(asdict(config) | {"spatial_dims": dims}))
            found.append(dims)
    return tuple(found)


def _deviation(measured: int, printed: str | None) -> float | None:
    return None if printed is None else round(measured / quantity(printed) - 1, 4)

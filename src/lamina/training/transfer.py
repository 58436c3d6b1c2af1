"""Beginning from weights of another training, and keeping parts of a network as they are."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor, nn

from lamina.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Which tensors of a network were loaded, by name."""

    loaded: tuple[str, ...]
    reshaped: tuple[str, ...]
    """Of another shape in the source, such as the last layer for other classes; left fresh."""
    missing: tuple[str, ...]
    """Not in the source; left fresh."""
    left_over: tuple[str, ...]
    """Only in the source."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def load_fitting(network: nn.Module, weights: Mapping[str, Tensor]) -> Transfer:
    """Load the weights whose name and shape fit, buffers such as running means included.

    Raises:
        ConfigError: None of them fits.
    """
    own = network.state_dict()
    shared = [name for name in own if name in weights]
    loaded = tuple(name for name in shared if own[name].shape == weights[name].shape)
    if not loaded:
        raise ConfigError(
            "No weight fits: names or shapes are all different.",
            remedy="Begin from a model of the same network.",
        )
    network.load_state_dict({name: weights[name] for name in loaded}, strict=False)
    return Transfer(
        loaded=loaded,
        reshaped=tuple(name for name in shared if name not in loaded),
        missing=tuple(name for name in own if name not in weights),
        left_over=tuple(name for name in weights if name not in own),
    )


def freeze(network: nn.Module, patterns: Sequence[str]) -> tuple[str, ...]:
    """Keep parameters as they are whose names fit a pattern: ``encoder.*``, ``*.bias``.

    Batch normalisation whose running statistics fit one, as those in ``encoder.*`` do, keeps them,
    and normalises by them in training, too: the part then does what it did where it comes from.

    Returns:
        The names of the parameters that are kept.

    Raises:
        ConfigError: A pattern fits none, or nothing is left to learn.
    """
    names = [name for name, _ in network.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ConfigError(
                f"frozen = {pattern!r}: fits no weight of the network.",
                remedy=f"Weights are called {names[0]}, {names[-1]} and so on; * stands for any.",
            )
    kept = tuple(name for name in names if any(fnmatchcase(name, p) for p in patterns))
    for name, parameter in network.named_parameters():
        if name in kept:
            parameter.requires_grad_(False)
    for name, part in network.named_modules():
        statistics = getattr(part, "running_mean", None)
        if statistics is not None and any(fnmatchcase(f"{name}.running_mean", p) for p in patterns):
            part.eval()
    if not any(parameter.requires_grad for parameter in network.parameters()):
        raise ConfigError(f"frozen = {tuple(patterns)}: leaves nothing to learn.")
    return kept

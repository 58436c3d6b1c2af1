"""Reading authors' checkpoints: what their weights are called, and what network they belong to.

One paper, one file, filed here under the paper's name. Shapes tell the network's configuration, so
that a checkpoint needs no description beside it.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import torch

from lamina.config import resolve
from lamina.errors import BundleError, some
from lamina.models import NetworkConfig
from lamina.models.vit import ViTConfig
from lamina.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

Config = NetworkConfig | ViTConfig
"""Of a network that segments, or of the transformer that draws attention maps."""

_WRAPPERS = re.compile(r"^((module|backbone)\.)+")


@dataclass(frozen=True, kw_only=True)
class Reference:
    """How one paper's checkpoints are read."""

    configure: Callable[[Mapping[str, "Tensor"]], Config]
    """Tells the network from its weights, under their published names; ``KeyError``, ``IndexError``
    or ``ValueError`` where they are another network's."""
    names: tuple[tuple[str, str], ...]
    """Regular expressions and what replaces their matches, in turn: published name -> ours."""
    surplus: str = r"(?!)"
    """Regular expression of the published names that change nothing the network computes here."""

    def rename(self, name: str) -> str:
        """Return our name for a published one."""
        for pattern, ours in self.names:
            name = re.sub(pattern, ours, name)
        return name


REFERENCES: Registry[Reference] = Registry("paper", __name__)
"""How to read each paper's checkpoints, by its name: ``"glims"``, ``"lgmsnet"``, ``"dino"``."""


def reference_of(name: str) -> Reference:
    """Return how checkpoints of a paper are read, by its name or that of one of its presets.

    Raises:
        UnknownNameError: No such paper.
    """
    papers = [paper for paper in REFERENCES if name.startswith(paper)]
    return REFERENCES.get(papers[0] if papers else name)


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """A network with published weights, and what of them did not find its place."""

    config: Config
    network: "nn.Module"
    """In evaluation mode, on the CPU."""
    missing: tuple[str, ...]
    """Our names of weights that the checkpoint does not have."""
    unexpected: tuple[str, ...]
    """Published names that the network does not have."""
    misshapen: tuple[str, ...]
    """Published names whose tensors have another shape."""

    surplus: tuple[str, ...]
    """Published names that the network has no use for."""

    @property
    def misfits(self) -> dict[str, tuple[str, ...]]:
        """The three lists by what they hold, without those that are empty."""
        kinds = ("missing", "unexpected", "misshapen")
        return {kind: names for kind in kinds if (names := getattr(self, kind))}


def fit_reference(
    name: str, config: Config | Mapping[str, Any] | None, state_dict: Mapping[str, "Tensor"]
) -> Fit:
    """Build the network that published weights belong to, and load those that fit.

    Args:
        name: A paper's name in :data:`REFERENCES`, or that of one of its presets.
        config: Fields of our configuration, to overrule what the shapes tell; names that are no
            such field are passed over.
        state_dict: Published name -> tensor; a leading ``module.`` or ``backbone.`` is dropped.

    Raises:
        UnknownNameError: No such paper.
        BundleError: The weights are those of another network.
        ConfigError: Fields of ``config`` are out of range.
    """
    reference = reference_of(name)
    published = {_WRAPPERS.sub("", key): torch.as_tensor(x) for key, x in state_dict.items()}
    told = _configure(name, reference, published)
    settings = config if isinstance(config, Mapping) else asdict(config) if config else {}
    known = {field.name for field in fields(told)}
    overruled = {key: value for key, value in settings.items() if key in known}
    resolved = resolve(type(told), asdict(told), overruled)
    with torch.random.fork_rng(devices=[]):
        network = resolved.build().eval()
    own = network.state_dict()
    renamed = {
        key: reference.rename(key) for key in published if not re.search(reference.surplus, key)
    }
    fitting = {
        ours: published[key]
        for key, ours in renamed.items()
        if ours in own and own[ours].shape == published[key].shape
    }
    network.load_state_dict(fitting, strict=False)
    there = set(renamed.values())
    return Fit(
        config=resolved,
        network=network,
        missing=tuple(ours for ours in own if ours not in there),
        unexpected=tuple(key for key, ours in renamed.items() if ours not in own),
        misshapen=tuple(
            key for key, ours in renamed.items() if ours in own and ours not in fitting
        ),
        surplus=tuple(key for key in published if key not in renamed),
    )


def load_reference(
    name: str, config: Config | Mapping[str, Any] | None, state_dict: Mapping[str, "Tensor"]
) -> "nn.Module":
    """Return the network that published weights belong to, with all of them, in evaluation mode.

    Arguments and errors are those of :func:`fit_reference`; besides:

    Raises:
        BundleError: Weights are missing, left over, or of another shape.
    """
    fit = fit_reference(name, config, state_dict)
    if fit.misfits:
        listed = "; ".join(f"{len(x)} {kind}: {some(x)}" for kind, x in fit.misfits.items())
        raise BundleError(f"{name}: the weights do not fit the published network; {listed}.")
    return fit.network


def _configure(name: str, reference: Reference, published: Mapping[str, "Tensor"]) -> Config:
    try:
        return reference.configure(published)
    except (KeyError, IndexError, ValueError) as error:
        raise BundleError(
            f"{name}: the weights are not those of the published network: {error!r}.",
            remedy="Give the state dict that the authors' code saved.",
        ) from error

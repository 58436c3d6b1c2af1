"""A trained model in memory: weights and everything needed to use, judge and trace them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lamina.bundle.ensemble import MEMBER, Ensemble, parted
from lamina.data.plan import Plan
from lamina.errors import BundleError, ConfigError, LaminaError, some
from lamina.models import NetworkConfig, configure

VIT = "vit/"
"""What names of weights begin with that belong to the transformer whose maps a network reads."""
_SHOWN = 3
"""Parameters listed of each kind of mismatch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """A trained network with its plan, records and origin.

    Raises:
        BundleError: The network's description is malformed, or its channels or classes differ from
            the plan's.
    """

    network: dict[str, Any]
    """``{"name": registered preset, "fields": resolved configuration}``; for one that reads
    attention maps also ``"attention"``, the description of the transformer that draws them; for
    an ensemble ``"members"``, the number of its networks."""
    weights: dict[str, torch.Tensor]
    """The network's state: parameter or buffer name -> tensor, of any dtype; a transformer's
    beside it, its names behind ``"vit/"``; those of an ensemble behind ``"member_0/"``, ..."""
    plan: Plan
    """How scans are prepared for the network, and what its classes mean."""
    training: dict[str, Any]
    """How it was trained, as plain JSON data."""
    metrics: dict[str, Any]
    """Validation scores such as ``{"mean_dice": 0.9, "dice": {structure: 0.9}}``; may be empty."""
    provenance: dict[str, Any]
    """Versions, seed, hashes and licence of the data, date."""
    postprocessing: tuple[dict[str, Any], ...] = ()
    """What is done to every segmentation, in this order: the fields of a
    :class:`~lamina.inference.postprocess.Step`, and the figures by which it was chosen."""
    source: str = "bundle"
    """The file it was read from, for messages."""

    def __post_init__(self) -> None:
        try:
            self.plan.check_network(self.network)
        except ConfigError as error:
            raise BundleError(f"{self.source}: {error}") from error
        heads = {name.partition("/")[0] for name in self.weights if name.startswith(MEMBER)}
        told = self.network.get("members")
        if len(heads) != (told or 0):
            raise BundleError(
                f"{self.source}: members of the network is {told!r}, there are weights of "
                f"{len(heads)}; an ensemble needs 2 or more."
            )

    @property
    def num_members(self) -> int:
        """Networks whose logits are averaged; 1 for an ordinary model."""
        return int(self.network.get("members", 1))

    @property
    def dataset(self) -> Mapping[str, Any]:
        """What is known of the training data, such as ``name`` and ``licence``; may be empty."""
        return mapping_of(self.provenance, "dataset")

    @property
    def config(self) -> NetworkConfig:
        """The configuration of the network, or of every member.

        Raises:
            BundleError: The network is unknown here, or cannot have the recorded fields.
        """
        try:
            return configure(self.network["name"], **self.network["fields"])
        except (LaminaError, TypeError, ValueError) as error:
            raise _not_built(self, error) from error


def build_network(bundle: Bundle) -> torch.nn.Module:
    """Build the bundle's network on the CPU, with its weights, in evaluation mode.

    An ensemble is one network too: it returns its members' mean logits.

    The global random state is left as it was.

    Raises:
        BundleError: The network is unknown here, cannot be built from the recorded fields, or does
            not have the parameters that the bundle holds.
    """
    config, members = bundle.config, parted(own_weights(bundle), bundle.num_members)
    try:
        with torch.device("meta"):  # what does not fit the weights never gets memory
            state = config.build().state_dict()
        for weights in members:
            _check_fit(bundle, weights, state)
        with torch.random.fork_rng(devices=[]):
            networks: list[torch.nn.Module] = [config.build() for _ in members]
    except BundleError:
        raise
    except (LaminaError, TypeError, ValueError, RuntimeError) as error:
        raise _not_built(bundle, error) from error
    for network, weights in zip(networks, members, strict=True):
        network.load_state_dict(weights, strict=True)
    return (networks[0] if len(networks) == 1 else Ensemble(networks)).eval()


def transformer_weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    """Return the state of the transformer that a bundle carries; empty where it carries none."""
    return {n.removeprefix(VIT): x for n, x in bundle.weights.items() if n.startswith(VIT)}


def own_weights(bundle: Bundle) -> dict[str, torch.Tensor]:
    """Return the state of the network itself, or of all members, without the transformer's."""
    return {name: x for name, x in bundle.weights.items() if not name.startswith(VIT)}


def _not_built(bundle: Bundle, error: Exception) -> BundleError:
    return BundleError(
        f"{bundle.source}: network {bundle.network['name']!r} cannot be built as recorded: {error}",
        remedy="If a newer Lamina made the file, upgrade.",
    )


def _check_fit(
    bundle: Bundle, weights: dict[str, torch.Tensor], state: dict[str, torch.Tensor]
) -> None:
    misfits = {
        "missing": [name for name in state if name not in weights],
        "unexpected": [name for name in weights if name not in state],
        "of another shape": [
            f"{name} {tuple(weights[name].shape)} for {tuple(state[name].shape)}"
            for name in state
            if name in weights and weights[name].shape != state[name].shape
        ],
        "of another kind": [
            f"{name} {weights[name].dtype} for {state[name].dtype}"
            for name in state
            if name in weights and not torch.can_cast(weights[name].dtype, state[name].dtype)
        ],
    }
    listed = [
        f"{len(names)} {kind}: {some(names, _SHOWN)}" for kind, names in misfits.items() if names
    ]
    if listed:
        raise BundleError(
            f"{bundle.source}: the weights do not fit {bundle.network['name']!r} as recorded; "
            f"{'; '.join(listed)}.",
            remedy="Use a bundle whose weights and network belong together.",
        )


def mapping_of(data: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an entry that should be a mapping, or none: records of others may hold anything."""
    found = data.get(name)
    return found if isinstance(found, Mapping) else {}

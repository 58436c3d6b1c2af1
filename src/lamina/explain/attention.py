"""The attention that networks have of their own, as maps: read by hooks while they run.

================================ ==============================================================
GLIMS, CSAB                      share of the features that the gate lets through
GLIMS, Swin blocks               how much the tokens of a window read from each, 1 on average
MPU-Net, position attention      how much all positions read from each, 1 on average
MPU-Net, attention gates         what they let through
LightMedSeg, texture             where the structural prior finds structure
LightMedSeg, mixture, routers,   share of each of the paths that are mixed
gates
================================ ==============================================================

DAI-Net reads the maps of a transformer's heads with the image: they are channels of its input.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lamina.models import glims, lightmedseg, mpunet
from lamina.models.layers.position_attention import PositionAttention
from lamina.models.layers.size import resize
from lamina.models.layers.swin import SwinBlock, SwinBlocks

_EXPERTS = ("expert 1", "expert 2")
_STAGES = ("stage 1", "stage 2", "stage 3", "stage 4")
_PATHS = ("local", "multi-scale", "pointwise")

Observe = Callable[[nn.Module, tuple[Any, ...], Any], Tensor]
"""Module, inputs and output of a pass -> maps ``(B, M, *s)``."""


@dataclass(frozen=True)
class Site:
    """One place in a network that has maps."""

    name: str
    """As PyTorch names the module."""
    channels: tuple[str, ...]
    """What each of its maps is of."""
    modules: tuple[nn.Module, ...]
    """What is observed; the mean of several is taken."""
    observe: Observe


def sites_of(network: nn.Module) -> tuple[Site, ...]:
    """Return where a network attends to something; nowhere for most."""
    return tuple(site for name, module in network.named_modules() for site in _sites(name, module))


class AttentionMaps:
    """A network of arrays that returns the maps of its sites in place of its logits.

    Args:
        network: In evaluation mode.
        sites: Of it, whose maps follow each other.
    """

    def __init__(self, network: nn.Module, sites: Sequence[Site]) -> None:
        self.network = network
        self.sites = tuple(sites)
        self._device = next(network.parameters()).device

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the maps ``(B, M, *S)`` of a batch ``(B, C, *S)``."""
        seen: dict[str, list[Tensor]] = defaultdict(list)
        hooks = [
            module.register_forward_hook(_noting(seen[site.name], site.observe, batch.shape[2:]))
            for site in self.sites
            for module in site.modules
        ]
        try:
            with torch.inference_mode():
                self.network(torch.from_numpy(batch.copy()).to(self._device))
                maps = [torch.stack(seen[site.name]).mean(dim=0) for site in self.sites]
                whole: NDArray[np.float32] = torch.cat(maps, dim=1).cpu().numpy()
        finally:
            for hook in hooks:
                hook.remove()
        return whole


def _noting(found: list[Tensor], observe: Observe, size: Sequence[int]) -> Any:
    def note(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        found.append(resize(observe(module, inputs, output).float(), torch.Size(size)))

    return note


def _sites(name: str, module: nn.Module) -> Iterator[Site]:
    match module:
        case glims.CSAB():
            yield Site(name, ("passed",), (module,), _passed)
        case SwinBlocks():
            yield Site(name, ("read",), tuple(module), _read_in_windows)
        case PositionAttention():
            yield Site(name, ("read",), (module,), _read_everywhere)
        case mpunet.AttentionGate():
            yield Site(f"{name}.weigh", ("passed",), (module.weigh,), _output)
        case lightmedseg.LocalStructuralPrior():
            yield Site(f"{name}.texture", ("structure",), (module.texture,), _output)
            yield Site(f"{name}.mixture", _EXPERTS, (module.mixture,), _output)
        case lightmedseg.SkipFusion():
            for number, controller in enumerate(module.controllers):
                yield Site(f"{name}.controllers.{number}", _STAGES, (controller,), _output)
        case lightmedseg.DecoderStage():
            yield Site(f"{name}.gate", _PATHS, (module.gate,), _output)


def _output(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    return output


def _passed(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    """Return what is left of the features' magnitude, 0 to 1."""
    before = inputs[0].abs().sum(dim=1, keepdim=True)
    return output.abs().sum(dim=1, keepdim=True) / before.clamp_min(1e-12)


def _read_in_windows(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    assert isinstance(module, SwinBlock)
    return module.received(*inputs)


def _read_everywhere(module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    assert isinstance(module, PositionAttention)
    return module.received(*inputs)

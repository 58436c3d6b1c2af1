"""Which modules have a fast form, and how a network's modules are exchanged for theirs."""

from collections.abc import Callable
from itertools import groupby
from typing import Any, TypeVar

from torch import nn

from lamina.models.accelerate.convolution import (
    DilatedDepthwise,
    DirectConvolution,
    folded,
    is_dilated_depthwise,
    is_direct,
)
from lamina.models.accelerate.steps import Chain, Pointwise, has_moments, is_pointwise, is_step

Form = TypeVar("Form", bound=Callable[[Any], nn.Module])
_FORMS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {}


def form_of(kind: type[nn.Module]) -> Callable[[Form], Form]:
    """Return a decorator that files what makes the fast form of modules of exactly this class."""

    def add(form: Form) -> Form:
        _FORMS[kind] = form
        return form

    return add


def fast(module: Any) -> nn.Module:
    """Return the fast form of a module, or the module itself with those of its parts."""
    if type(module) in _FORMS:
        return _FORMS[type(module)](module)
    if isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward:
        return _sequence(module)
    if has_moments(module):
        return Chain([module], fresh=False)
    if is_pointwise(module):
        return Pointwise(module)
    if is_dilated_depthwise(module):
        return DilatedDepthwise(module)
    if is_direct(module):
        return DirectConvolution(module)
    return fast_parts(module)


def fast_parts(module: nn.Module) -> nn.Module:
    """Return the module itself with the fast forms of its parts."""
    for name, part in module.named_children():
        setattr(module, name, fast(part))
    return module


def _sequence(module: nn.Sequential) -> nn.Module:
    parts = folded(_flat(module))
    layers = [part if has_moments(part) else fast(part) for part in parts]
    if any(isinstance(layer, nn.Linear) for layer in layers):
        return nn.Sequential(*(_in_place(layer) for layer in layers))
    result: list[nn.Module] = []
    for together, run in groupby(layers, lambda layer: is_step(layer) or has_moments(layer)):
        fresh = bool(result)  # what a layer of this sequence returned, nobody else reads
        if together:
            result.append(Chain(run, fresh=fresh))
        else:
            result.extend(run)
    return result[0] if len(result) == 1 else nn.Sequential(*result)


def _flat(module: nn.Sequential) -> list[nn.Module]:
    parts = []
    for part in module:
        parts += _flat(part) if type(part) is nn.Sequential else [part]
    return parts


def _in_place(layer: nn.Module) -> nn.Module:
    """Between linear layers of tokens; in place also because a PReLU rearranges memory."""
    if isinstance(layer, nn.PReLU) and layer.num_parameters == 1:
        return nn.LeakyReLU(layer.weight.item(), inplace=True)
    return layer

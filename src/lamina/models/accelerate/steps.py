"""Normalisation, activation and pointwise convolution of rows, and chains of them."""

from collections.abc import Iterable
from copy import copy
from functools import partial, reduce
from typing import Any, cast

from torch import Tensor, nn
from torch.nn import functional as F

from lamina.models.accelerate.rows import (
    Moments,
    Product,
    Step,
    applied,
    measured,
    moments,
    to_map,
    to_rows,
)

_CONV = (nn.Conv2d, nn.Conv3d)
_BATCH = (nn.BatchNorm2d, nn.BatchNorm3d)
_INSTANCE = (nn.InstanceNorm2d, nn.InstanceNorm3d)
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.SiLU, nn.GELU, nn.ELU, nn.Sigmoid)


class Pointwise(nn.Module):
    """A convolution of kernel 1, as a matrix product."""

    def __init__(self, conv: nn.Conv2d | nn.Conv3d) -> None:
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C', *S)``."""
        return self.step(x.movedim(1, -1)).movedim(-1, 1)

    def step(self, rows: Tensor) -> Tensor:
        """``(N, C) -> (N, C')``."""
        return F.linear(rows, self.weight.flatten(1), self.bias)

    @property
    def product(self) -> Product:
        """The same, for the end of a step."""
        bias = self.weight.new_zeros(len(self.weight)) if self.bias is None else self.bias
        return Product(self.weight.flatten(1).t(), bias)


def is_pointwise(layer: nn.Module) -> bool:
    """Tell whether a convolution treats every voxel by itself."""
    return (
        isinstance(layer, _CONV)
        and layer.groups == 1
        and set(layer.kernel_size) == set(layer.stride) == {1}
        and not any(cast(tuple[int, ...], layer.padding))
    )


def has_moments(layer: nn.Module) -> bool:
    """Tell whether a layer normalises by the statistics of its own input, over space."""
    if type(layer) in _INSTANCE:
        return not layer.track_running_stats
    return type(layer) is nn.GroupNorm or hasattr(layer, "min_voxels")


def is_step(layer: nn.Module) -> bool:
    """Tell whether a layer treats every voxel by itself, and :func:`step` knows it."""
    return type(layer) in (Pointwise, *_ACTIVATIONS, *_BATCH)


def normalised(norm: Any, found: Moments, num_rows: int = 0) -> Step:
    """Return the step that normalises rows by the statistics found."""
    mean, variance = found
    if num_rows < getattr(norm, "min_voxels", num_rows):
        return Tensor.clone
    if (groups := getattr(norm, "num_groups", len(mean))) < len(mean):
        each = mean.view(groups, -1)
        joint = each.mean(1, keepdim=True)
        spread = variance.view(groups, -1) + (each - joint).square()
        mean = joint.expand_as(each).flatten()
        variance = spread.mean(1, keepdim=True).expand_as(each).flatten()
    return lambda rows: F.batch_norm(rows, mean, variance, norm.weight, norm.bias, eps=norm.eps)


def step(layer: Any, *, fresh: bool) -> Step:
    """Return the step that an activation, a batch normalisation or a convolution takes.

    Args:
        layer: One that :func:`is_step` accepts.
        fresh: Whether the step may change its argument.
    """
    match layer:
        case Pointwise():
            return layer.step
        case nn.ReLU() | nn.SiLU() | nn.LeakyReLU() | nn.ELU():
            layer = copy(layer)
            layer.inplace = fresh
        case nn.PReLU(num_parameters=1):
            return partial(F.leaky_relu, negative_slope=layer.weight.item(), inplace=fresh)
        case nn.BatchNorm2d() | nn.BatchNorm3d():
            return normalised(
                layer, Moments(cast(Tensor, layer.running_mean), cast(Tensor, layer.running_var))
            )
    return cast(Step, layer.forward)


def joined(
    layers: Any, found: Moments | None, num_rows: int, *, fresh: bool
) -> tuple[Step, Product | None]:
    """Return layers as one step, and the matrix product that ends them, if one does.

    Args:
        layers: Those that :class:`Chain` takes; only the first may normalise by statistics.
        found: The statistics for it.
        num_rows: Number of voxels.
        fresh: Whether the step may change its argument.
    """
    *before, last = layers
    if not isinstance(last, Pointwise):
        before.append(last)
    steps: list[Step] = []
    for layer in before:
        if has_moments(layer) and found:
            steps.append(normalised(layer, found, num_rows))
        else:
            steps.append(step(layer, fresh=fresh or bool(steps)))
    product = last.product if isinstance(last, Pointwise) else None
    return lambda rows: reduce(lambda x, take: take(x), steps, rows), product


class Chain(nn.Module):
    """Layers in a row that treat every voxel by itself, or normalise by statistics over space.

    Args:
        layers: Those that :func:`is_step` or :func:`has_moments` accept.
        fresh: Whether nobody else reads the input, so that it may be written over.
    """

    def __init__(self, layers: Iterable[nn.Module], *, fresh: bool) -> None:
        super().__init__()
        self.fresh, self.stages = fresh, nn.ModuleList()
        for layer in layers:
            if has_moments(layer) or not self.stages:
                self.stages.append(nn.ModuleList())
            cast(nn.ModuleList, self.stages[-1]).append(layer)

    def forward(self, x: Tensor) -> Tensor:
        """``(1, C, *S) -> (1, C', *S)``."""
        rows, fresh = to_rows(x), self.fresh
        found: Moments | None = None
        for number, layers in enumerate(cast(Iterable[nn.ModuleList], self.stages), start=1):
            if found is None and has_moments(layers[0]):
                found = moments(rows)
            take, product = joined(layers, found, len(rows), fresh=fresh)
            out = rows if fresh and not product else None
            if number < len(self.stages):
                rows, found = measured(take, [rows], out, product)
            else:
                rows = applied(take, [rows], out, product)
            fresh = True
        return to_map(rows, x.shape[2:])

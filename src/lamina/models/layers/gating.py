"""Weighing channels and parallel paths by numbers computed from the features themselves."""

from collections.abc import Iterable
from functools import reduce
from operator import add

from torch import Tensor, nn


def spatial_mean(x: Tensor) -> Tensor:
    """Average over space: ``(B, C, *S) -> (B, C)``."""
    return x.mean(dim=tuple(range(2, x.dim())))


def over_space(vector: Tensor, like: Tensor) -> Tensor:
    """Append to ``vector`` one axis per spatial axis of ``like``, ``(B, C, *S)``, to broadcast."""
    return vector[(..., *(None,) * (like.dim() - 2))]


def weighted_sum(weights: Tensor, maps: Iterable[Tensor]) -> Tensor:
    """Mix N maps ``(B, C, *S)`` voxel by voxel with weights ``(B, N, *S)``."""
    per_map = weights.unsqueeze(2).unbind(1)
    return reduce(add, (weight * x for weight, x in zip(per_map, maps, strict=True)))


class SqueezeExcite(nn.Module):
    """Rescales each channel by a number in [0, 1] computed from the means of all channels.

    Hu et al.: *Squeeze-and-Excitation Networks*, CVPR 2018, section 3; here with SiLU inside.
    """

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.weights = nn.Sequential(
            nn.Linear(channels, squeezed), nn.SiLU(), nn.Linear(squeezed, channels), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, *S) -> (B, C, *S)``."""
        return x * over_space(self.weights(spatial_mean(x)), x)


class FiLM(nn.Module):
    """Scales and shifts each channel by numbers computed from a vector; at first the identity.

    Perez et al.: *FiLM: Visual Reasoning with a General Conditioning Layer*, AAAI 2018.
    """

    def __init__(self, vector_size: int, channels: int) -> None:
        super().__init__()
        self.scale = nn.Linear(vector_size, channels)
        self.shift = nn.Linear(vector_size, channels)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """``(B, C, *S), (B, vector_size) -> (B, C, *S)``."""
        return x * over_space(1 + self.scale(vector), x) + over_space(self.shift(vector), x)

"""Counting weights and operations, against counts by hand."""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from lamina.models import NetworkConfig, configure
from lamina.models.complexity import complexity


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.second = nn.Conv2d(8, 2, 1, bias=False)
        self.dead = nn.Parameter(self.first.bias.detach().clone(), requires_grad=False)

    def forward(self, image):
        return self.second(self.norm(self.first(image)).relu())


@dataclass(frozen=True, kw_only=True)
class SmallConfig(NetworkConfig):
    size_divisor: ClassVar[int] = 1
    in_channels: int = 3
    num_classes: int = 2
    spatial_dims: int = 2

    def build(self):
        return Small()


def test_counts_are_those_made_by_hand():
    found = complexity(SmallConfig(), (10, 20))
    assert found.macs == 200 * (3 * 8 * 9 + 8 * 2)
    assert found.flops == 2 * found.macs
    assert found.live_parameters == (3 * 9 + 1) * 8 + 2 * 8 + 8 * 2
    assert found.parameters == found.live_parameters + 8
    assert found.uncounted == ("native_group_norm", "relu")


def test_operations_grow_with_the_image():
    config = configure("lightmedseg", in_channels=1, num_classes=2)
    small, large = complexity(config, (32, 32, 32)), complexity(config, (64, 64, 64))
    assert 7 < large.macs / small.macs < 8.1
    assert small.parameters == large.parameters

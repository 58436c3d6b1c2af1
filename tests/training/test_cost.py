"""What a training step takes is measured, and measuring it leaves no trace."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from lamina.models import NetworkConfig, configure
from lamina.training.cost import measure_cost


class Scale(nn.Module):
    """Multiplies an image by one weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(()))  # draws a random number, as networks do

    def forward(self, image):
        return self.weight * image


@dataclass(frozen=True)
class ScaleConfig(NetworkConfig):
    in_channels: int = 3
    num_classes: int = 3
    spatial_dims: int = 3
    size_divisor: int = 4

    def build(self):
        return Scale()


@pytest.mark.parametrize("dims", [2, 3])
def test_memory_is_what_the_backward_pass_keeps(dims):
    """The product keeps the image for the weight's gradient, the square keeps the product."""
    cost = measure_cost(ScaleConfig(spatial_dims=dims), "scale")
    voxels = 2 * 8**dims
    kept = 2 * 3 * voxels * 4
    assert cost.bytes_per_voxel == pytest.approx(1.3 * kept / voxels)
    assert cost.size_divisor == 4
    assert cost.seconds_per_voxel > 0
    assert cost.predict_seconds_per_voxel > 0


def test_memory_grows_with_the_network():
    def kept(*channels):
        config = configure(
            "lightmedseg", in_channels=1, num_classes=2, channels=channels, spatial_dims=2
        )
        return measure_cost(config, "lightmedseg").bytes_per_voxel

    assert kept(8, 8, 8, 8, 8) > 1.2 * kept(4, 4, 4, 4, 4)


def test_random_numbers_afterwards_are_those_before():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    measure_cost(ScaleConfig(), "scale")
    assert torch.equal(torch.rand(4), expected)

"""CMUNeXt: counts, sizes, and its two ideas."""

import pytest
import torch

from lamina.errors import ConfigError
from lamina.models import build, configure
from lamina.models.cmunext import CMUNeXtBlock, CMUNeXtConfig

SMALL = {"channels": (2, 4, 4, 6, 8), "depths": (1, 1, 1, 2, 1)}


@pytest.mark.parametrize(
    ("name", "weights"),
    [("cmunext", 3_149_185), ("cmunext_s", 417_505), ("cmunext_l", 8_286_721)],
)
def test_weights_of_each_preset(name, weights):
    with torch.device("meta"):
        network = build(name, in_channels=3, num_classes=1)
    assert sum(p.numel() for p in network.parameters()) == weights


@torch.no_grad()
@pytest.mark.parametrize("size", [(37, 21), (1, 3), (20, 33, 17)])
def test_any_size_goes_in_and_comes_out(size):
    config = configure("cmunext", in_channels=3, num_classes=2, spatial_dims=len(size), **SMALL)
    assert config.build().eval()(torch.randn(1, 3, *size)).shape == (1, 2, *size)


def test_maps_halve_from_stage_to_stage_and_double_again():
    network = build("cmunext", in_channels=3, num_classes=2, **SMALL)
    seen = []
    for stage in (*network.encoder, *network.decoder):
        stage.register_forward_hook(lambda _m, _x, y: seen.append(tuple(y.shape[1:])))
    network(torch.randn(2, 3, 32, 64))
    assert seen[:5] == [(2, 32, 64), (4, 16, 32), (4, 8, 16), (6, 4, 8), (8, 2, 4)]
    assert seen[5:] == [(6, 4, 8), (4, 8, 16), (4, 16, 32), (2, 32, 64)]


@torch.no_grad()
def test_a_block_looks_as_far_as_its_kernel_and_channel_by_channel():
    torch.manual_seed(0)
    block = CMUNeXtBlock(2, channels=3, kernel_size=7).eval()
    image = torch.zeros(1, 3, 15, 15)
    changed = image.clone()
    changed[0, 1, 7, 7] = 1.0
    difference = (block.look(changed) - block.look(image))[0]
    assert difference[1, 4:11, 4:11].all()
    difference[1, 4:11, 4:11] = 0
    assert not difference.any()


@torch.no_grad()
def test_skip_and_decoder_are_filtered_apart_before_they_are_mixed():
    network = build("cmunext", in_channels=3, num_classes=2, **SMALL).eval()
    apart, mix = network.decoder[0].merge
    skip, decoded = torch.randn(2, 1, 6, 4, 4)
    other = torch.cat([skip, decoded + 1], dim=1)
    first = apart(torch.cat([skip, decoded], dim=1))
    assert torch.equal(apart(other)[:, :6], first[:, :6])
    assert not torch.equal(mix(apart(other)), mix(first))


def test_every_fault_of_a_configuration_is_reported():
    with pytest.raises(ConfigError) as caught:
        CMUNeXtConfig(
            in_channels=0,
            num_classes=0,
            spatial_dims=4,
            channels=(8, 8),
            depths=(1, 1, 1, 0, 1),
            kernel_sizes=(3, 3, 4, 7, 7),
        )
    for field in (
        "in_channels",
        "num_classes",
        "spatial_dims",
        "channels",
        "depths",
        "kernel_sizes",
    ):
        assert f"{field} = " in str(caught.value)

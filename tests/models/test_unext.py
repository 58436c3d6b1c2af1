"""UNeXt: its count, sizes, and the shift."""

import pytest
import torch

from lamina.errors import ConfigError
from lamina.models import build
from lamina.models.unext import TokenizedMLP, UNeXtConfig, shifted

SMALL = {"channels": (4, 4, 8, 10, 12)}


def test_weights_match_the_published_total():
    with torch.device("meta"):
        network = build("unext", in_channels=3, num_classes=1)
    assert sum(p.numel() for p in network.parameters()) == 1_471_921


@torch.no_grad()
@pytest.mark.parametrize("size", [(37, 21), (1, 3)])
def test_any_size_goes_in_and_comes_out(size):
    network = build("unext", in_channels=3, num_classes=2, **SMALL).eval()
    assert network(torch.randn(1, 3, *size)).shape == (1, 2, *size)


def test_maps_halve_from_stage_to_stage_and_double_again():
    network = build("unext", in_channels=3, num_classes=2, **SMALL)
    seen = []
    for stage in (*network.encoder, *network.refine):
        stage.register_forward_hook(lambda _m, _x, y: seen.append(tuple(y.shape[1:])))
    network(torch.randn(2, 3, 64, 96))
    assert seen[:5] == [(4, 32, 48), (4, 16, 24), (8, 8, 12), (10, 4, 6), (12, 2, 3)]
    assert seen[5:] == [(10, 4, 6), (8, 8, 12), (4, 16, 24), (4, 32, 48)]


@pytest.mark.parametrize("axis", [2, 3])
def test_a_shift_moves_five_groups_of_channels_by_minus_two_to_two(axis):
    x = torch.zeros(1, 10, 7, 7)
    x[:, :, 3, 3] = 1.0
    channels, rows, columns = (index.tolist() for index in shifted(x, axis)[0].nonzero().T)
    moved, still = (rows, columns) if axis == 2 else (columns, rows)
    assert channels == list(range(10))
    assert moved == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    assert still == [3] * 10


def test_zeros_move_in_and_what_leaves_is_lost():
    x = torch.arange(1.0, 4.0).expand(1, 5, 1, 3)
    assert shifted(x, axis=3)[0, :, 0].tolist() == [
        [3, 0, 0],
        [2, 3, 0],
        [1, 2, 3],
        [0, 1, 2],
        [0, 0, 1],
    ]


@pytest.mark.parametrize(("channels", "kept"), [(12, 3), (3, 1), (2, 0)])
def test_groups_need_not_be_equal_nor_maps_larger_than_a_shift(channels, kept):
    found = shifted(torch.ones(1, channels, 1, 1), axis=2)
    assert found.shape == (1, channels, 1, 1)
    assert found.sum() == kept


@torch.no_grad()
def test_a_block_looks_three_voxels_along_either_axis():
    torch.manual_seed(0)
    block = TokenizedMLP(10)
    image = torch.randn(1, 10, 13, 13)
    changed = image.clone()
    changed[..., 6, 6] += torch.randn(10)
    seen = (block(changed) - block(image))[0].abs().amax(0) > 1e-6
    assert seen[3:10, 3:10].all()
    seen[3:10, 3:10] = False
    assert not seen.any()


def test_every_fault_of_a_configuration_is_reported():
    with pytest.raises(ConfigError) as caught:
        UNeXtConfig(in_channels=0, num_classes=0, spatial_dims=3, channels=(8, 8))
    for field in ("in_channels", "num_classes", "spatial_dims", "channels"):
        assert f"{field} = " in str(caught.value)

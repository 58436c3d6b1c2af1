"""How many of its channels a network uses."""

import pytest
import torch
from torch import nn

from lamina.study.redundancy import used_channels, watched


def test_independent_channels_are_all_used_and_copies_are_not():
    torch.manual_seed(0)
    maps = torch.randn(2, 8, 16, 16)
    assert used_channels(maps) == 1
    assert used_channels(maps[:, :1].expand(-1, 8, -1, -1)) == 1 / 8
    assert used_channels(torch.cat([maps[:, :2], 3 * maps[:, :2], maps[:, :4]], dim=1)) == 4 / 8
    assert used_channels(torch.full((1, 8, 4, 4), 5.0)) == 0


def test_a_direction_that_holds_less_than_a_hundredth_is_not_counted():
    torch.manual_seed(0)
    one, other = torch.randn(2, 1, 1, 64, 64)
    quiet = torch.cat([one, 0.05 * other], dim=1)
    assert (used_channels(quiet), used_channels(4 * quiet)) == (0.5, 0.5)
    assert used_channels(torch.cat([one, 0.5 * other], dim=1)) == 1


def test_wide_convolutions_alone_are_watched_and_only_inside():
    network = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 2, 1))
    with watched(network) as found:
        network(torch.randn(1, 1, 8, 8))
        network(torch.randn(1, 1, 5, 5))
    assert len(found) == 2
    assert all(0 < share <= 1 for share in found)
    with watched(network) as small:
        network(torch.randn(1, 1, 4, 4))  # four voxels say nothing of eight channels
    assert small == []
    network(torch.randn(1, 1, 8, 8))
    assert len(found) == 2


@pytest.mark.parametrize("dims", [2, 3])
def test_the_gram_matrix_has_the_singular_values(dims):
    torch.manual_seed(1)
    maps = torch.randn(1, 8, *(6,) * dims) * torch.logspace(0, -2, 8).reshape(1, 8, *(1,) * dims)
    rows = maps[0].flatten(1).double()
    values = torch.linalg.svdvals(rows - rows.mean(dim=1, keepdim=True)).square()
    needed = int((values.cumsum(0) < 0.99 * values.sum()).sum()) + 1
    assert used_channels(maps) == needed / 8

"""Windows, what tokens see in them, and the slips of published weights that can be switched off."""

from itertools import product

import pytest
import torch
from torch import nn

from lamina.models.layers.swin import (
    WINDOW,
    PatchExpanding,
    PatchMerging,
    PositionEmbedding,
    SwinBlocks,
    Windows,
    relative_positions,
)


def swin_blocks(grid, *, released, depth=2):
    torch.manual_seed(0)
    blocks = SwinBlocks(8, depth, 2, grid, released=released).eval()
    for parameter in blocks.parameters():
        nn.init.normal_(parameter, std=0.5)
    return blocks


def coordinates(grid):
    return torch.cartesian_prod(*(torch.arange(n) for n in grid)).reshape(*grid, len(grid))


@pytest.mark.parametrize("grid", [(12, 12, 12), (6, 6, 6), (3, 9, 14), (8, 7), (1, 1, 2)])
@pytest.mark.parametrize("shifted", [False, True])
def test_joined_windows_are_what_was_split(grid, shifted):
    windows = Windows(grid, shifted=shifted)
    x = torch.randn(2, *grid, 3)
    tokens = windows.split(x)
    assert tokens.shape[1:] == (torch.tensor(windows.size).prod(), 3)
    assert torch.equal(windows.join(tokens), x)


def test_a_window_holds_neighbours_in_the_order_of_memory():
    tokens = Windows((14, 9, 3), shifted=False).split(coordinates((14, 9, 3))[None].float())
    assert len(tokens) == 2 * 2
    expected = torch.tensor(list(product(range(7, 14), range(7), range(3))))
    assert torch.equal(tokens[2], expected.float())


def test_after_a_shift_tokens_see_those_within_reach_only():
    grid = (14, 5)
    windows = Windows(grid, shifted=True)
    place = windows.split(coordinates(grid)[None].float())
    near = ((place[:, :, None] - place[:, None]).abs() < WINDOW).all(dim=-1)
    assert torch.equal(~windows.blocked(padding=False), near)
    assert not near.all()


def test_nothing_is_blocked_where_windows_neither_shift_nor_overhang():
    assert Windows((14, 14), shifted=False).blocked(padding=True) is None
    assert Windows((12, 12), shifted=False).blocked(padding=False) is None
    assert Windows((6, 7), shifted=True).blocked(padding=True) is None


def test_no_token_is_left_with_nothing_to_see():
    for n, shifted in product(range(8, 22), (False, True)):
        blocked = Windows((n, 3), shifted=shifted).blocked(padding=True)
        assert blocked is None or not blocked.all(dim=-1).any()


def test_every_offset_has_its_own_number():
    place = coordinates((WINDOW,) * 3).reshape(-1, 3)
    offset = (place[:, None] - place + WINDOW - 1).flatten(0, 1)
    expected = offset @ torch.tensor([169, 13, 1])
    assert torch.equal(relative_positions(3).flatten(), expected)


def test_offsets_in_a_small_window_are_those_of_its_tokens_only_where_mended():
    place = coordinates((3, 6)).reshape(-1, 2)
    expected = (place[:, None] - place + WINDOW - 1) @ torch.tensor([13, 1])
    found = {on: swin_blocks((3, 6), released=on).offsets((3, 6)) for on in (True, False)}
    assert torch.equal(found[False], expected)
    assert torch.equal(found[True], relative_positions(2)[:18, :18])
    assert not torch.equal(found[True], expected)


@torch.no_grad()
@pytest.mark.parametrize("depth", [1, 2])
def test_only_where_mended_equal_tokens_stay_equal_beside_padding(depth):
    x = torch.randn(1, 8, 1, 1).expand(1, 8, 9, 8)
    spread = {}
    for released in (True, False):
        y = swin_blocks((9, 8), released=released, depth=depth)(x)
        spread[released] = (y - y[..., :1, :1]).abs().max()
    assert spread[False] < 1e-4 < 1e-2 < spread[True]


@torch.no_grad()
@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("grid", [(9, 12), (3, 15), (7, 7)])
def test_a_grid_is_treated_alike_whether_usual_or_not(grid, released):
    usual, other = (swin_blocks(g, released=released) for g in (grid, (8, 4)))
    x = torch.randn(2, 8, *grid)
    assert torch.equal(other(x), usual(x))


@torch.no_grad()
def test_items_of_a_batch_do_not_meet():
    blocks = swin_blocks((9, 8), released=True)
    x = torch.randn(3, 8, 9, 8)
    torch.testing.assert_close(blocks(x)[1:2], blocks(x[1:2]), rtol=1e-5, atol=1e-5)


def test_every_second_block_looks_across_the_borders_of_windows():
    x = torch.randn(1, 8, 14, 7, requires_grad=True)
    reach = []
    for depth in (1, 2):
        swin_blocks((14, 7), released=True, depth=depth)(x)[0, :, 5].sum().backward()
        reach.append(int(x.grad.abs().sum(dim=(0, 1, 3)).nonzero().max()))
        x.grad = None
    assert reach == [6, 13]


def test_merging_reads_all_neighbours_only_where_mended():
    unread = {}
    for released in (True, False):
        x = torch.randn(1, 4, 2, 2, 2, requires_grad=True)
        PatchMerging(4, released=released)(x).square().sum().backward()
        unread[released] = (x.grad.abs().sum(dim=(0, 1)) == 0).nonzero().tolist()
    assert unread == {True: [[0, 1, 1], [1, 1, 0]], False: []}


@torch.no_grad()
def test_expanding_puts_blocks_of_channels_where_the_published_weights_want_them():
    expand = PatchExpanding(2)
    expand.norm = nn.Identity()
    expand.expand.weight.copy_(torch.arange(8.0)[:, None].expand(8, 2))
    block = expand(torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1, 1))[0, 0]
    assert block.tolist() == [[[0, 2], [4, 6]], [[1, 3], [5, 7]]]


@torch.no_grad()
def test_position_embeddings_are_interpolated_to_other_grids():
    embedding = PositionEmbedding(2, (2, 3))
    values = embedding.embeddings.reshape(1, 2, 2, 3)
    assert torch.equal(embedding(torch.zeros(1, 2, 2, 3)), values)
    found = embedding(torch.zeros(1, 2, 4, 3))
    torch.testing.assert_close(found[:, :, 0], values[:, :, 0])
    torch.testing.assert_close(found[:, :, 1], 0.75 * values[:, :, 0] + 0.25 * values[:, :, 1])

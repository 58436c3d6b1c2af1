"""The networks' own attention: hooks read what the networks compute, and change nothing."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lamina.explain.attention import AttentionMaps, sites_of
from lamina.models import configure
from lamina.models.layers.position_attention import PositionAttention
from lamina.models.layers.swin import SwinBlocks, WindowAttention, Windows, relative_positions

SIZES = {"lightmedseg": (16, 16, 16), "glims_v2": (32, 32, 32), "mpunet": (16, 16, 16)}


def network_of(name):
    torch.manual_seed(0)
    return configure(name, in_channels=1, num_classes=3).build().eval()


@pytest.fixture(scope="module", params=SIZES)
def looked(request):
    """A network's name, itself, its sites, logits before and after looking, and the maps."""
    network = network_of(request.param)
    size = SIZES[request.param]
    batch = np.random.default_rng(1).normal(size=(1, 1, *size)).astype(np.float32)
    seer = AttentionMaps(network, sites_of(network))
    with torch.no_grad():
        before = network(torch.from_numpy(batch))
        maps = seer(batch)
        after = network(torch.from_numpy(batch))
    return request.param, seer.sites, before, after, maps


def test_looking_changes_nothing_and_maps_have_the_windows_size(looked):
    name, sites, before, after, maps = looked
    assert torch.equal(before, after)
    assert maps.shape == (1, sum(len(site.channels) for site in sites), *SIZES[name])
    assert np.isfinite(maps).all()
    assert maps.min() >= 0


def test_sites_are_those_of_the_papers(looked):
    name, sites, *_ = looked
    names = [site.name for site in sites]
    expected = {
        "lightmedseg": ["lspm.texture", "lspm.mixture", "skips.controllers.0", "decoder.3.gate"],
        "glims_v2": ["guidance.0", "guidance.4", "t3.1", "t4.1"],
        "mpunet": ["guides.0.1.3", "decoder.0.gate.weigh"],
    }[name]
    assert set(expected) <= set(names)
    assert len(set(names)) == len(names)


def test_shares_of_paths_add_up_to_one(looked):
    name, sites, _, _, maps = looked
    first = 0
    for site in sites:
        own = maps[0, first : first + len(site.channels)]
        if len(site.channels) > 1:
            np.testing.assert_allclose(own.sum(axis=0), 1, atol=1e-5)
        elif "passed" in site.channels or "structure" in site.channels:
            assert own.max() <= 1 + 1e-6
        first += len(site.channels)


def test_a_plain_network_attends_to_nothing():
    assert sites_of(network_of("lgmsnet_2d")) == ()


@torch.no_grad()
def test_what_positions_receive_is_what_attention_gives():
    torch.manual_seed(0)
    module = PositionAttention(2, 8)
    x = torch.randn(2, 8, 5, 30)
    query, key = (part(x).flatten(2) for part in (module.query, module.key))
    weights = torch.einsum("bcq,bck->bqk", query, key).softmax(dim=-1)
    wanted = weights.sum(dim=1).reshape(2, 1, 5, 30)
    torch.testing.assert_close(module.received(x), wanted)
    assert module.received(x).mean() == pytest.approx(1)


@torch.no_grad()
@pytest.mark.parametrize("shifted", [False, True])
def test_what_tokens_receive_is_what_windows_attend_to(shifted):
    torch.manual_seed(0)
    attention = WindowAttention(8, 2, 2)
    windows = Windows((9, 9), shifted=shifted)
    blocked = windows.blocked(padding=True)
    tokens = windows.split(torch.randn(1, 9, 9, 8))
    positions = relative_positions(2)
    received = attention.received(tokens, positions, blocked)
    # Every token in turn gets a value of its own: what comes out is the share it was given.
    count = tokens.shape[1]
    query, key, _ = attention.qkv(tokens).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
    bias = F.embedding(positions, attention.bias_table).permute(2, 0, 1)[None]
    bias = bias.masked_fill(blocked.unsqueeze(1), -torch.inf)
    value = torch.eye(count).expand(*query.shape[:2], -1, -1)
    shares = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    torch.testing.assert_close(received, shares.mean(dim=1).sum(dim=1))


@torch.no_grad()
def test_swin_blocks_are_one_site_of_the_mean_of_their_blocks():
    torch.manual_seed(0)
    blocks = torch.nn.Sequential(SwinBlocks(8, 2, 2, (8, 8), released=False))
    (site,) = sites_of(blocks)
    assert (site.name, len(site.modules)) == ("0", 2)
    maps = AttentionMaps(blocks, [site])(np.ones((1, 8, 8, 8), np.float32))
    assert maps.shape == (1, 1, 8, 8)
    assert maps.mean() == pytest.approx(1, abs=0.3)

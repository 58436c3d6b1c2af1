"""GLIMS against its specification: counts to the unit, sizes, what is dead and what is mended."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lamina.errors import ConfigError
from lamina.models import PUBLISHED, build, configure
from lamina.models.complexity import complexity
from lamina.models.glims import CSAB, DACB, GLIMSConfig, InstanceNorm
from weights import count

SMALL = {"roi_size": (32, 32, 32), "feature_size": 6, "depths": (1, 2, 1)}
SPATIAL_GATES = 5 * (2 * 7**3 + 1)


def on_meta(name: str = "glims", **options) -> nn.Module:
    with torch.device("meta"):
        return build(name, **{"in_channels": 4, "num_classes": 3, **options})


def small(name: str = "glims", **options) -> nn.Module:
    torch.manual_seed(0)
    return build(name, in_channels=1, num_classes=2, **SMALL | options)


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("glims", 47_163_349),
        ("glims_v2", 47_163_349),
        ("glims_dilations_1_2", 46_728_453),
        ("glims_dilations_1", 46_293_557),
        ("glims_depths_0_6_2", 44_667_609),
        ("glims_depths_0_0_2", 27_747_483),
        ("glims_depths_2_4_2", 39_960_033),
        ("glims_depths_2_2_2", 32_756_717),
        ("glims_depths_2_2_4", 47_037_919),
        ("glims_depths_2_2_6", 61_319_121),
        ("glims_depths_4_2_2", 34_588_905),
        ("glims_depths_6_2_2", 36_421_093),
    ],
)
def test_weights_match_the_published_totals(name, weights):
    assert count(on_meta(name)) == weights
    printed = PUBLISHED.get(name).parameters if name in PUBLISHED else "47.16 M"
    # The paper cuts 27.747 down to 27.74.
    assert abs(weights - 1e6 * float(printed.removesuffix(" M"))) < 7.5e3


def test_weights_of_one_channel_images():
    assert count(on_meta(in_channels=1, num_classes=14)) == 47_167_281


def test_weights_of_each_block():
    network = on_meta()
    assert {name: count(block) for name, block in network.named_children()} == {
        "stem": 121,
        "encoder": 22_959 + 82_767 + 312_975 + 1_215_759 + 13_253_358,
        "t3": 1_247_870,
        "t4": 14_301_938,
        "guidance": 1_301 + 3_065 + 10_049 + 37_841 + 148_721,
        "decoder": 24_112 + 87_376 + 331_408 + 1_289_488 + 13_543_279,
        "t3_up": 1_247_870,
        "heads": 75 + 147 + 291 + 579,
    }


def test_operations_are_the_published_ones_less_the_convolutions_without_effect():
    config = configure("glims", in_channels=4, num_classes=3)
    gates = 2 * 7**3 * sum(n**3 for n in (96, 48, 24, 12, 6))
    counted = complexity(config, (96, 96, 96))
    assert round((counted.macs + gates) / 1e9, 2) == 56.98
    assert counted.parameters - counted.live_parameters == SPATIAL_GATES + 16


def test_each_row_of_table_3_adds_what_it_names():
    rows = [
        "glims_baseline",
        "glims_swin_encoder",
        "glims_swin",
        "glims_swin_deep_supervision",
        "glims_multi_scale",
        "glims_attention_guidance",
        "glims",
    ]
    networks = [on_meta(name) for name in rows]

    def rows_with(kind):
        return [any(isinstance(m, kind) for m in network.modules()) for network in networks]

    heads = [len(network.heads) for network in networks]
    swin_levels = [
        [sum("bias_table" in name for name, _ in half.named_parameters()) for half in halves]
        for halves in ((network.encoder, network.decoder) for network in networks)
    ]
    assert heads == [1, 1, 1, 4, 4, 4, 4]
    assert rows_with(DACB) == [False] * 4 + [True] * 3
    assert rows_with(CSAB) == [False] * 5 + [True] * 2
    assert swin_levels == [[0, 0], [12, 0], [12, 12], [12, 12], [0, 0], [0, 0], [6, 6]]
    assert [count(network.t4) > 0 for network in networks] == [False] * 6 + [True]
    assert count(networks[3]) - count(networks[2]) == 147 + 291 + 579
    assert count(networks[5]) - count(networks[4]) == 1_301 + 3_065 + 10_049 + 37_841 + 148_721


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        ((96, 96, 96), [(96, 96, 96), (48, 48, 48), (24, 24, 24), (12, 12, 12)]),
        ((37, 64, 50), [(37, 64, 50), (19, 32, 25), (10, 16, 13), (5, 8, 7)]),
    ],
)
def test_training_returns_logits_of_four_levels(size, levels):
    network = on_meta()
    image = torch.zeros(2, 4, *size, device="meta")
    assert [x.shape for x in network(image)] == [(2, 3, *level) for level in levels]
    assert network.eval()(image).shape == (2, 3, *size)


def test_without_deep_supervision_training_returns_one_map():
    network = on_meta(deep_supervision=False)
    assert network(torch.zeros(1, 4, 32, 32, 32, device="meta")).shape == (1, 3, 32, 32, 32)


@pytest.mark.parametrize("depths", [(1, 1, 1), (0, 0, 0)])
def test_the_smallest_size_can_be_trained(depths):
    network = small(depths=depths)
    sum(x.square().mean() for x in network(torch.randn(2, 1, 32, 32, 32))).backward()
    live = {name: p.grad for name, p in network.named_parameters() if p.requires_grad}
    assert all(grad.isfinite().all() for grad in live.values())
    # At the bottom is one token, whose attention is to itself.
    idle = {name for name, grad in live.items() if not grad.any()}
    assert idle == ({"t4.1.0.attention.bias_table"} if depths[2] else set())


def test_a_few_voxels_are_not_normalised_away():
    norm, few, enough = InstanceNorm(3), torch.randn(2, 3, 1, 1, 2), torch.randn(2, 3, 2, 2, 2)
    assert torch.equal(norm(few), few)
    torch.testing.assert_close(norm(enough), F.instance_norm(enough))


@torch.no_grad()
def test_dead_weights_are_those_of_unused_layers_and_change_nothing():
    network = small().eval()
    image = torch.randn(1, 1, 32, 32, 32)
    expected = network(image)
    dead = {name: p for name, p in network.named_parameters() if not p.requires_grad}
    assert len(dead) == 5 * 2 + 16
    for parameter in dead.values():
        parameter.fill_(torch.nan)
    assert torch.equal(network(image), expected)


@torch.no_grad()
def test_attention_tells_voxels_apart_only_where_mended():
    x = torch.randn(1, 6, 8, 8, 8)
    spread = {on: (CSAB(6, released=on)(x) / x).std(dim=(2, 3, 4)) for on in (True, False)}
    assert spread[True].max() < 1e-6
    assert spread[False].min() > 1e-3


def test_all_weights_that_can_be_learned_are_learned_from_the_start():
    gate = CSAB(6, released=True)
    gate(torch.randn(1, 6, 2, 2, 2)).square().sum().backward()
    assert all(p.grad.any() for p in gate.parameters() if p.requires_grad)
    mended = CSAB(6, released=False)
    assert all(p.requires_grad for p in mended.parameters())


@torch.no_grad()
def test_the_mended_network_computes_something_else():
    image = torch.randn(1, 1, 32, 32, 32)
    released, mended = (small(released=on).eval() for on in (True, False))
    mended.load_state_dict(released.state_dict())
    assert (mended(image) - released(image)).abs().max() > 1e-3


def test_every_fault_of_a_configuration_is_reported():
    wrong = {
        "in_channels": 0,
        "num_classes": 0,
        "spatial_dims": 2,
        "roi_size": (96, 96, 100),
        "feature_size": 5,
        "dilations": (),
        "depths": (2, -1, 2),
        "heads": (6, 12, 25),
    }
    with pytest.raises(ConfigError) as caught:
        GLIMSConfig(**wrong)
    for field in wrong:
        assert f"{field} = " in str(caught.value)


def test_a_transformer_branch_needs_blocks_and_heads_that_fit():
    with pytest.raises(ConfigError, match="depths = "):
        configure("glims_swin", in_channels=1, num_classes=2, depths=(0, 6, 0))
    with pytest.raises(ConfigError, match="heads = "):
        configure("glims_swin", in_channels=1, num_classes=2, heads=(32, 12, 24))

"""LGMSNet against its specification: counts to the unit, tokens, attention, one class for both."""

from itertools import product

import pytest
import torch
from torch import nn

from lamina.errors import ConfigError
from lamina.models.layers.lms import UpStage
from lamina.models.lgmsnet import (
    GMS,
    LGMSNetConfig,
    SparseTransformer,
    from_tokens,
    lgmsnet_2d,
    lgmsnet_3d,
    lgmsnet_3d_l1,
    to_tokens,
)
from weights import count, weightless

SIZES = [(4, 6), (4, 6, 2)]
SMALL = {
    "in_channels": 1,
    "num_classes": 2,
    "channels": (4, 8, 12, 16, 20),
    "splits": ((12, 4), (14, 6), (8, 8), (9, 3)),
}


def fresh(config: LGMSNetConfig) -> nn.Module:
    torch.manual_seed(0)
    return config.build()


@pytest.mark.parametrize(
    ("config", "weights"),
    [
        (lgmsnet_2d(3, 1), 2_321_393),
        (lgmsnet_3d(1, 14), 6_193_742),
        (lgmsnet_3d_l1(1, 14), 14_805_134),
    ],
)
def test_weights_match_the_published_totals(config, weights):
    assert count(weightless(config)) == weights


@pytest.mark.parametrize(
    ("config", "stem", "encoder", "up", "merge", "head"),
    [
        (
            lgmsnet_2d(3, 1),
            480,
            [1_672, 1_960, 6_224, 391_424, 538_880],
            [147_840, 73_920, 18_528, 4_656],
            [833_792, 262_592, 31_392, 8_016],
            17,
        ),
        (
            lgmsnet_3d(1, 14),
            448,
            [6_992, 7_248, 19_104, 980_800, 1_423_168],
            [442_496, 221_248, 55_328, 13_840],
            [2_307_904, 630_112, 67_808, 17_008],
            238,
        ),
    ],
)
def test_weights_of_each_block(config, stem, encoder, up, merge, head):
    network = weightless(config)
    assert count(network.stem) == stem
    assert [count(stage) for stage in network.encoder] == encoder
    assert [count(stage.up) for stage in network.decoder] == up
    assert [count(stage.merge) for stage in network.decoder] == merge
    assert count(network.head) == head


def test_images_and_volumes_have_the_same_structure():
    flat, deep = (weightless(preset(2, 3)) for preset in (lgmsnet_2d, lgmsnet_3d))
    assert [name for name, _ in flat.named_modules()] == [name for name, _ in deep.named_modules()]
    shapes = {name: x.shape for name, x in flat.state_dict().items()}
    for name, x in deep.state_dict().items():
        assert x.shape[:2] == shapes[name][:2]
        assert x.dim() - len(shapes[name]) == (x.dim() == 5)
    normalised = {name.rpartition(".")[0] for name in shapes if name.endswith("running_mean")}
    only_flat = {name.rpartition(".")[0] for name in set(shapes) - set(deep.state_dict())}
    assert only_flat == {name for name in normalised if ".branch." not in name}


@pytest.mark.parametrize(("preset", "size"), [(lgmsnet_2d, (64, 32)), (lgmsnet_3d, (64, 32, 96))])
def test_maps_along_the_way(preset, size):
    network = weightless(preset(2, 3))
    seen = {}
    for name, module in network.named_modules():
        module.register_forward_hook(
            lambda _m, inputs, y, name=name: seen.__setitem__(name, (inputs, y))
        )
    network(torch.zeros(1, 2, *size, device="meta"))
    encoder = [(16, 1), (32, 2), (64, 4), (128, 8), (128, 16)]
    for stage, (channels, shrink) in enumerate(encoder):
        expected = (1, channels, *(n // shrink for n in size))
        assert seen[f"encoder.{stage}"][1].shape == expected
    for stage, (channels, shrink) in enumerate([(128, 8), (64, 4), (32, 2), (16, 1)]):
        (_, skip), y = seen[f"decoder.{stage}"]
        assert y.shape == (1, channels, *(n // shrink for n in size))
        assert skip is seen[f"encoder.{3 - stage}"][1]


def test_the_encoders_map_comes_before_the_upsampled_one():
    stage = UpStage(2, 4, 3, nn.BatchNorm2d, mode="bilinear", merge=nn.Identity())
    x, skip = torch.randn(2, 4, 5, 6), torch.randn(2, 3, 10, 12)
    assert torch.equal(stage.eval()(x, skip), torch.cat([skip, stage.up(x)], dim=1))


@pytest.mark.parametrize("size", SIZES)
def test_tokens_gather_voxels_of_equal_place(size):
    x = torch.randn(3, 5, *size)
    tokens = to_tokens(x).unflatten(0, (3, -1))
    places = list(product(range(2), repeat=len(size)))
    assert tokens.shape == (3, len(places), x[0, 0].numel() // len(places), 5)
    for number, place in enumerate(places):
        coarse = x[(..., *(slice(start, None, 2) for start in place))]
        assert torch.equal(tokens[:, number], coarse.flatten(2).transpose(1, 2))


@pytest.mark.parametrize("size", SIZES)
def test_tokens_fold_back_to_the_map(size):
    x = torch.randn(3, 5, *size)
    assert torch.equal(from_tokens(to_tokens(x), x.shape[2:]), x)


def test_attention_is_the_plain_softmax_form():
    torch.manual_seed(0)
    transformer = SparseTransformer(12, hidden=16)
    tokens = 3 * torch.randn(2, 7, 12)
    query, key, value = transformer.qkv(transformer.norm(tokens)).chunk(3, dim=-1)
    heads = []
    for head in range(4):
        q, k, v = (x[..., 8 * head : 8 * head + 8] for x in (query, key, value))
        heads.append((q @ k.transpose(1, 2) / 8**0.5).softmax(-1) @ v)
    expected = transformer.out(torch.cat(heads, dim=-1))
    torch.testing.assert_close(transformer.attend(tokens), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
def test_attention_reaches_all_voxels_of_equal_place_and_no_others(size):
    torch.manual_seed(0)
    transformer = SparseTransformer(8, hidden=16)
    x = torch.randn(1, 8, *size, requires_grad=True)
    (gradient,) = torch.autograd.grad(transformer(x)[(0, 0, 1, *(0,) * (len(size) - 1))], x)
    reached = gradient[0].abs().sum(0) > 0
    expected = torch.zeros(size, dtype=torch.bool)
    expected[(slice(1, None, 2), *(slice(0, None, 2),) * (len(size) - 1))] = True
    assert torch.equal(reached, expected)


def test_half_the_channels_of_fusion_never_meet_the_others_at_first():
    (first, *_), _ = fresh(lgmsnet_2d(1, 2)).decoder[1].merge
    x = torch.randn(1, 128, 4, 4)
    changed = x.clone()
    changed[:, 64:] += 1
    assert torch.equal(first(changed)[:, :64], first(x)[:, :64])
    assert not torch.isclose(first(changed)[:, 64:], first(x)[:, 64:]).all(dim=(0, 2, 3)).any()


def test_constants_before_a_weightless_normalisation_change_nothing():
    network = fresh(LGMSNetConfig(**SMALL, spatial_dims=3)).eval()
    image = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        expected = network(image)
        network.stem[0].bias += 1
        network.decoder[0].up[1].bias += 1
        gms = network.encoder[3]
        gms.branch[4].bias += 1
        gms.transformer.feed_forward[3].bias += 1
        torch.testing.assert_close(network(image), expected, rtol=0, atol=1e-3)
        network.head.bias += 1
        torch.testing.assert_close(network(image), expected + 1, rtol=0, atol=1e-3)


@pytest.mark.parametrize("branch_norm", ["batch", "instance"])
@pytest.mark.parametrize(("dims", "batch"), [(2, 1), (2, 2), (3, 1)])
def test_one_voxel_is_enough_to_train(dims, batch, branch_norm):
    network = fresh(LGMSNetConfig(**SMALL, spatial_dims=dims, branch_norm=branch_norm))
    logits = network(torch.randn(batch, 1, *(1,) * dims))
    logits.square().sum().backward()
    assert logits.shape == (batch, 2, *(1,) * dims)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("dims", [2, 3])
def test_an_instance_normalised_branch_sees_each_case_by_itself(dims):
    options = {"in_channels": 1, "num_classes": 1, "spatial_dims": dims}
    x = torch.randn(2, 6, *(4,) * dims)
    x[1] *= 100
    alone_matters = {}
    for kind in ("batch", "instance"):
        config = LGMSNetConfig(**options, branch_norm=kind)
        branch = GMS(config, 4, (2, 6)).branch
        alone_matters[kind] = not torch.allclose(branch(x)[:1], branch(x[:1]), atol=1e-5)
    assert alone_matters == {"batch": True, "instance": False}


def test_switching_the_branch_norm_keeps_the_weights():
    config = {"in_channels": 1, "num_classes": 2, "spatial_dims": 3}
    batch, instance = (
        weightless(LGMSNetConfig(**config, branch_norm=kind)) for kind in ("batch", "instance")
    )
    names = [[name for name, _ in network.named_parameters()] for network in (batch, instance)]
    assert names[0] == names[1]
    assert not [name for name, _ in instance.named_buffers()]


def test_depths_are_the_numbers_of_local_blocks():
    config = LGMSNetConfig(in_channels=1, num_classes=2, depths=(1, 2, 3))
    stages = weightless(config).encoder[:3]
    assert [len(stage) - 1 for stage in stages] == [1, 2, 3]
    assert count(stages[1]) == 1_960 + 1_384


def test_kernels_are_those_of_each_quarter_of_the_channels():
    config = LGMSNetConfig(in_channels=1, num_classes=2, kernels=(1, 3, 3, 11))
    for stage in weightless(config).encoder[:3]:
        assert [look.kernel_size[0] for look in stage[0].depthwise] == [1, 3, 3, 11]
    with pytest.raises(ConfigError, match="kernels = .*four odd numbers"):
        LGMSNetConfig(in_channels=1, num_classes=2, kernels=(3, 5, 6, 7))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("place", [0, 1])
def test_a_block_can_do_without_attention_or_without_convolution(dims, place):
    splits = tuple((c, 0) if place else (0, c) for c in (8, 8, 8, 8))
    options = SMALL | {"channels": (4, 4, 8, 8, 8), "splits": splits}
    network = fresh(LGMSNetConfig(**options, spatial_dims=dims))
    left = {type(module).__name__ for module in network.encoder[3].modules()}
    assert ("SparseTransformer" in left) == bool(place)
    logits = network(torch.randn(2, 1, *(32,) * dims))
    logits.square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_every_fault_of_a_configuration_is_reported():
    with pytest.raises(ConfigError) as caught:
        LGMSNetConfig(
            in_channels=0,
            num_classes=0,
            spatial_dims=1,
            channels=(16, 30, 64, 128, 128),
            depths=(1, 0, 1),
            splits=((96, 32), (96, 32), (96, 32), (32, 16)),
            branch_norm="layer",
        )
    message = str(caught.value)
    for field in ("in_channels", "num_classes", "spatial_dims", "channels", "depths", "splits"):
        assert f"{field} = " in message
    assert "with sums [128, 128, 128, 64]" in message
    assert "branch_norm = 'layer'" in message


def test_wrong_numbers_of_stages_are_refused():
    with pytest.raises(ConfigError, match="five widths.*four pairs"):
        LGMSNetConfig(in_channels=1, num_classes=2, channels=(16, 32), splits=((96, 32),))

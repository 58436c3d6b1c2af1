"""MPU-Net and its baseline against their specification: counts to the unit, maps, switches."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lamina.errors import ConfigError
from lamina.models import PUBLISHED, build
from lamina.models.layers.position_attention import PositionAttention
from lamina.models.mpunet import (
    UNUSED_WEIGHTS,
    AttentionGate,
    MPUNetBaselineConfig,
    MPUNetConfig,
    MultiScaleBlock,
    PositionAttentionModule,
    Reduction,
)
from lamina.models.published import quantity
from weights import count


def weightless(name: str, **options) -> nn.Module:
    with torch.device("meta"):
        return build(name, in_channels=1, num_classes=2, **options)


def small(**options) -> nn.Module:
    torch.manual_seed(0)
    config = {"in_channels": 1, "num_classes": 2, "width": 4} | options
    return MPUNetConfig(**config).build()


def nudge(module: nn.Module) -> None:
    """Move every parameter, above all the share of attention that starts at 0."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))


def idle(module: nn.Module) -> list[str]:
    return [n for n, p in module.named_parameters() if p.grad is None or not p.grad.any()]


@pytest.mark.parametrize(
    ("name", "live", "unused"),
    [
        ("mpunet", 21_507_255, UNUSED_WEIGHTS),
        ("mpunet_released", 21_507_255, UNUSED_WEIGHTS),
        ("mpunet_unet", 2_326_638, 0),
    ],
)
def test_weights_match_the_published_totals(name, live, unused):
    assert count(weightless(name)) == live
    assert live + unused == quantity(PUBLISHED.get(name).parameters)


def test_weights_of_each_block():
    network = weightless("mpunet")
    assert count(network.stem) == 7_408
    assert [count(step) for step in network.reductions] == [4_192, 16_576, 65_920, 885_504]
    assert [count(block) for block in network.encoder] == [55_424, 221_440, 885_248, 3_539_968]
    bottom, *up = network.guides
    assert [count(part) for part in bottom] == [3_540_480, 5_392_195]
    assert [count(part) for part in up] == [262_400, 65_664, 16_448]
    blocks = [count(stage.block) for stage in network.decoder]
    assert blocks == [4_425_216, 1_549_056, 387_456, 96_960]
    assert [count(stage.gate) for stage in network.decoder] == [66_435, 16_835, 4_323, 1_139]
    assert [count(head) for head in network.heads] == [514, 258, 130, 66]


def test_weights_of_each_block_of_the_baseline():
    network = weightless("mpunet_unet")
    assert [count(stage) for stage in network.encoder] == [896, 55_360, 221_312, 884_992]
    assert [count(stage) for stage in network.decoder] == [884_864, 221_248, 55_328, 1_730]
    assert [count(head) for head in network.heads] == [6, 130, 258, 514]


@pytest.mark.parametrize("size", [(16, 24, 8), (24, 16), (13, 9, 17)])
def test_training_returns_four_probability_maps_of_full_size_and_the_first_is_their_mean(size):
    network = small(spatial_dims=len(size), num_classes=3, dropout=0.0)
    heads: list[torch.Tensor] = []
    for head in network.heads:
        head.register_forward_hook(lambda _m, _x, y: heads.append(y))
    image = torch.randn(2, 1, *size)
    merged, *coarse = (logits.exp() for logits in network(image))
    assert len(coarse) == 3
    assert {p.shape for p in (merged, *coarse)} == {(2, 3, *size)}
    for p in (merged, *coarse):
        torch.testing.assert_close(p.sum(1), torch.ones_like(p[:, 0]))
    mode = "trilinear" if len(size) == 3 else "bilinear"
    enlarged = [F.interpolate(y, size=heads[-1].shape[2:], mode=mode) for y in heads]
    kept = (..., *(slice(n) for n in size))
    maps = [y.softmax(1)[kept] for y in enlarged]
    torch.testing.assert_close(merged, sum(maps) / 4)
    for found, expected in zip(coarse, reversed(maps[:3]), strict=True):
        torch.testing.assert_close(found, expected)


def test_evaluation_and_unsupervised_training_return_the_merged_map_alone():
    image = torch.randn(1, 1, 16, 16)
    supervised = small(spatial_dims=2, dropout=0.0)
    alone = small(spatial_dims=2, dropout=0.0, deep_supervision=False)
    torch.testing.assert_close(alone(image), supervised(image)[0])
    with torch.no_grad():
        torch.testing.assert_close(alone.eval()(image), supervised.eval()(image))


def test_sizes_along_the_way():
    network = small().eval()
    seen = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _x, y, name=name: seen.__setitem__(name, y))
    with torch.no_grad():
        network(torch.randn(1, 1, 16, 32, 48))
    shapes = {
        **{f"reductions.{i}": (8 * 2**i, 2 ** min(i + 1, 3)) for i in range(4)},
        "guides.0.0": (128, 8),
        "guides.0.1": (64, 8),
        **{f"decoder.{i}": (64 // 2**i, 8 // 2**i) for i in range(4)},
        **{f"heads.{i}": (2, 8 // 2**i) for i in range(4)},
    }
    for name, (channels, shrink) in shapes.items():
        assert seen[name].shape == (1, channels, 16 // shrink, 32 // shrink, 48 // shrink), name


def test_the_image_is_added_to_the_first_block_as_the_mean_of_its_channels():
    network = small(in_channels=3, spatial_dims=2).eval()
    image = torch.randn(1, 3, 16, 16)
    seen = []
    network.reductions[0].register_forward_pre_hook(lambda _m, x: seen.append(x[0]))
    with torch.no_grad():
        network(image)
        expected = network.stem(image) + image.mean(1, keepdim=True)
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.parametrize("size", [(3, 4, 5), (6, 7)])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, "channels_last"])
def test_position_attention_equals_its_plain_form(size, memory_format):
    torch.manual_seed(0)
    attention = PositionAttention(len(size), 16)
    nn.init.constant_(attention.share, 0.7)
    x = torch.randn(2, 16, *size)
    if memory_format == "channels_last":
        x = x.contiguous(
            memory_format=torch.channels_last if len(size) == 2 else torch.channels_last_3d
        )
    with torch.no_grad():
        q, k, v = (m(x).flatten(2) for m in (attention.query, attention.key, attention.value))
        weights = torch.einsum("bci,bcj->bij", q, k).softmax(-1)
        expected = 0.7 * torch.einsum("bcj,bij->bci", v, weights).reshape(x.shape) + x
        torch.testing.assert_close(attention(x), expected)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
def test_position_attention_never_holds_all_pairs(memory_format):
    attention = PositionAttention(3, 16)
    nudge(attention)
    x = torch.randn(1, 16, 4, 4, 4).contiguous(memory_format=memory_format)
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):  # raises where that kernel cannot be used
        attention(x).square().sum().backward()
    # Shifting all logits of a query alike changes no weight: the keys' bias cannot learn.
    assert set(idle(attention)) <= {"key.bias"}


def test_the_attention_module_starts_as_its_two_convolutions():
    module = PositionAttentionModule(3, 32, 16)
    conv_in, norm_in, slope_in, attention, conv_out, norm_out, slope_out = module
    assert count(slope_in) == count(slope_out) == attention.share.numel() == 1
    x = torch.randn(2, 32, 3, 4, 5)
    expected = slope_out(norm_out(conv_out(slope_in(norm_in(conv_in(x))))))
    torch.testing.assert_close(module(x), expected)


def test_a_gate_scales_positions_by_a_number_between_0_and_1():
    gate = AttentionGate(3, 8)
    nudge(gate)
    x, guide = torch.randn(2, 2, 8, 4, 4, 4)
    ratio = gate(x, guide) / x
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(x))
    assert ratio.min() > 0
    assert ratio.max() < 1
    assert not torch.equal(gate(x, guide + torch.randn_like(guide)), gate(x, guide))


@pytest.mark.parametrize(("alpha", "expected"), [("channels", 8.0), (1.0, 1.0), (0.5, 0.5)])
def test_elu_tends_to_alpha(alpha, expected):
    config = MPUNetConfig(in_channels=1, num_classes=2, spatial_dims=2, elu_alpha=alpha)
    reduction = Reduction(config, 4, 8, halve=True).eval()
    nn.init.constant_(reduction[1].bias, -1e3)
    with torch.no_grad():
        found = reduction(torch.randn(1, 4, 6, 6))
    torch.testing.assert_close(found, torch.full((1, 8, 3, 3), -expected))


def test_the_released_preset_has_the_published_alpha():
    alphas = [m.alpha for m in weightless("mpunet_released").modules() if isinstance(m, nn.ELU)]
    assert alphas == [32, 64, 128, 256, 512]
    alphas = [m.alpha for m in weightless("mpunet").modules() if isinstance(m, nn.ELU)]
    assert alphas == [1.0] * 5


def test_the_first_and_the_last_stage_drop_nothing():
    network = small(dropout=0.5)
    rates = [stage.drop.p for stage in network.decoder]
    assert rates == [0.5, 0.5, 0.5, 0.0]
    assert network.drop.p == 0.5
    image = torch.randn(1, 1, 16, 16, 16)
    assert not torch.equal(network(image)[0], network(image)[0])


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("multiscale_block", [False, True])
def test_each_variant_trains(multiscale_block, dims):
    network = small(multiscale_block=multiscale_block, spatial_dims=dims, in_channels=2)
    nudge(network)
    image = torch.randn(2, 2, *(16, 24, 16)[:dims])
    loss = sum(logits.square().mean() for logits in network(image))
    loss.backward()
    assert loss.isfinite()
    # In training, batch normalisation hides the bias of the convolution before it.
    network.eval()(image).square().mean().backward()
    assert idle(network) == []


def test_the_multiscale_block_merges_a_near_and_a_far_branch():
    network = weightless("mpunet", multiscale_block=True)
    assert all(isinstance(stage.block, MultiScaleBlock) for stage in network.decoder)
    c_in, c = 48, 32
    branch = 27 * c_in * (c // 2) + 27 * (c // 2) ** 2 + 4 * (c // 2)
    assert count(network.decoder[-1].block) == 2 * branch + c * c + 2 * c
    block = MultiScaleBlock(2, 1, 2)
    impulse = torch.zeros(1, 1, 13, 13)
    impulse[..., 6, 6] = 1.0
    with torch.no_grad():
        for branch, reach in ((block.near, 2), (block.far, 4)):
            response = (branch(impulse) - branch(torch.zeros_like(impulse))).abs().sum((0, 1))
            assert response.nonzero().min(0).values.tolist() == [6 - reach] * 2
            assert response.nonzero().max(0).values.tolist() == [6 + reach] * 2


def test_weights_start_as_published():
    network = build("mpunet", in_channels=1, num_classes=2)
    for weight in (network.encoder[-1][0].weight, network.guides[1][0].weight):
        std = (2 / (1 + 0.25**2) / weight[0].numel()) ** 0.5
        assert weight.std().item() == pytest.approx(std, rel=0.01)
    for name, parameter in network.named_parameters():
        if name.endswith(("bias", "share")):
            assert not parameter.any(), name
    slopes = [m.weight for m in network.modules() if isinstance(m, nn.PReLU)]
    assert all((slope == 0.25).all() for slope in slopes)


def baseline(**options) -> nn.Module:
    torch.manual_seed(0)
    return MPUNetBaselineConfig(**{"in_channels": 1, "num_classes": 2} | options).build()


@pytest.mark.parametrize("size", [(32, 16, 48), (32, 48)])
def test_the_baseline_computes_its_table(size):
    network = baseline(spatial_dims=len(size))
    pool = F.max_pool3d if len(size) == 3 else F.max_pool2d
    mode = "trilinear" if len(size) == 3 else "bilinear"

    def up(x, factor):
        return F.interpolate(x, scale_factor=factor, mode=mode)

    image = torch.randn(1, 1, *size)
    with torch.no_grad():
        encoded = [image]
        for stage in network.encoder:
            encoded.append(pool(stage[0](encoded[-1]), 2).relu())
        _, t1, t2, t3, bottom = encoded
        first, second, third, fourth = network.decoder
        d1 = up(first(bottom), 2).relu() + t3
        d2 = up(second(d1), 2).relu() + t2
        d3 = up(third(d2), 2).relu() + t1
        d4 = up(fourth(d3), 2).relu()
        sources = ((d4, 1), (d2, 4), (d1, 8), (bottom, 16))
        expected = [up(h(x), n) for h, (x, n) in zip(network.heads, sources, strict=True)]
        found = network(image)
        assert len(found) == 4
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(network.eval()(image), expected[0])


def test_the_baseline_trains_with_and_without_deep_supervision():
    image = torch.randn(2, 1, 40, 24)
    for supervised, outputs in ((True, 4), (False, 1)):
        network = baseline(spatial_dims=2, deep_supervision=supervised)
        logits = network(image)
        logits = logits if supervised else [logits]
        assert [x.shape for x in logits] == [(2, 2, 40, 24)] * outputs
        sum(x.square().mean() for x in logits).backward()
        assert idle(network) == []


def test_odd_sizes_are_padded_by_their_last_voxels():
    for network in (small(spatial_dims=2).eval(), baseline(spatial_dims=2).eval()):
        image = torch.randn(1, 1, 32, 32)
        image[:, :, 29:] = image[:, :, 29:30]
        image[..., 25:] = image[..., 25:26]
        with torch.no_grad():
            whole, part = network(image), network(image[..., :30, :26])
        torch.testing.assert_close(part, whole[..., :30, :26])


def test_every_fault_of_a_configuration_is_reported():
    with pytest.raises(ConfigError) as caught:
        MPUNetConfig(
            in_channels=0, num_classes=0, spatial_dims=4, width=0, elu_alpha="one", dropout=1.0
        )
    for field in ("in_channels", "num_classes", "spatial_dims", "width", "elu_alpha", "dropout"):
        assert f"{field} = " in str(caught.value)
    with pytest.raises(ConfigError, match="spatial_dims = 1"):
        MPUNetBaselineConfig(in_channels=1, num_classes=2, spatial_dims=1)

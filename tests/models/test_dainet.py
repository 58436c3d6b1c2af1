"""DAI-Net against its specification: counts to the unit, order of channels, switches."""

from itertools import product

import pytest
import torch
from torch import nn

from lamina.errors import ConfigError
from lamina.models import build, configure
from lamina.models.complexity import complexity
from lamina.models.dainet import DAINetConfig
from weights import count

COUNTS = {
    "dainet_unet": (7_762_564, 7_762_564, 31_036_676, 31_036_676),
    "dainet_single": (7_764_292, 7_764_292, 31_040_132, 31_040_132),
    "dainet_0000": (7_461_060, 10_116_292, 29_825_412, 40_444_292),
    "dainet_0001": (7_755_972, 10_706_116, 31_005_060, 42_803_588),
    "dainet_0111": (7_940_292, 10_890_436, 31_742_340, 43_540_868),
    "dainet": (7_949_508, 10_899_652, 31_779_204, 43_577_732),
}
WIDTHS = list(product((32, 64), (4, 8)))
TOTALS = [
    (name, width, e4, weights)
    for name, row in COUNTS.items()
    for (width, e4), weights in zip(WIDTHS, row, strict=True)
]


def small(**options) -> nn.Module:
    torch.manual_seed(0)
    return DAINetConfig(in_channels=2, num_classes=3, width=4, **options).build().eval()


@pytest.mark.parametrize(("name", "width", "e4", "weights"), TOTALS)
def test_weights_match_the_specified_totals(name, width, e4, weights):
    with torch.device("meta"):
        network = build(name, in_channels=1, num_classes=4, width=width, e4=e4)
        one_more = build(name, in_channels=1, num_classes=5, width=width, e4=e4)
    assert count(network) == weights
    assert count(one_more) == weights + width + 1


def test_the_wide_preset_is_the_main_one_with_twice_the_width():
    wide = configure("dainet_wide", in_channels=1, num_classes=4)
    assert wide == configure("dainet", in_channels=1, num_classes=4, width=64)


@pytest.mark.parametrize(
    ("name", "e4", "giga"), [("dainet_unet", 4, 9.3), ("dainet", 4, 12.35), ("dainet", 8, 13.97)]
)
def test_the_cost_of_a_slice_is_near_the_specified_one(name, e4, giga):
    config = configure(name, in_channels=1, num_classes=4, e4=e4)
    assert complexity(config, (224, 224)).macs == pytest.approx(1e9 * giga, rel=0.01)


@pytest.mark.parametrize(
    ("att_skips", "encoders_seen"),
    [((0, 0, 0, 0), (1, 1, 1, 1)), ((0, 0, 0, 1), (2, 1, 1, 1)), ((0, 1, 1, 1), (2, 2, 2, 1))],
)
def test_a_switch_narrows_the_decoder_at_its_level_only(att_skips, encoders_seen):
    network = small(att_skips=tuple(map(bool, att_skips)))
    found = [stage.fuse[0].in_channels for stage in network.decoder]
    upsampled, skips = (32, 16, 8, 4), (16, 16, 8, 4)
    assert found == [a + n * b for a, b, n in zip(upsampled, skips, encoders_seen, strict=True)]


def logits_with_blank_skips(network: nn.Module, image: torch.Tensor, levels) -> torch.Tensor:
    """Run the network with these levels of its attention encoder replaced by zeros."""

    def blank(_module, _inputs, encoded):
        skips, pooled = encoded
        kept = [x * (level not in levels) for level, x in enumerate(skips)]
        return kept, pooled

    hook = network.encoders[1].register_forward_hook(blank)
    with torch.no_grad():
        logits = network(image)
    hook.remove()
    return logits


@pytest.mark.parametrize("switches", list(product((False, True), repeat=4))[::3])
def test_only_skips_that_are_switched_on_reach_the_logits(switches):
    network = small(att_skips=switches)
    image = torch.randn(1, 8, 32, 32)
    logits = logits_with_blank_skips(network, image, ())
    off = [level for level, on in enumerate(switches) if not on]
    assert torch.equal(logits_with_blank_skips(network, image, off), logits)
    for level in set(range(4)).difference(off):
        assert not torch.equal(logits_with_blank_skips(network, image, (level,)), logits)


def test_each_encoder_reads_its_own_channels():
    network = small()
    seen = {}
    for place, encoder in enumerate(network.encoders):
        encoder.register_forward_pre_hook(lambda _m, x, place=place: seen.__setitem__(place, x[0]))
    image, maps = torch.randn(1, 2, 16, 32), torch.rand(1, 6, 16, 32)
    network(torch.cat([image, maps], dim=1))
    assert torch.equal(seen[0], image)
    assert torch.equal(seen[1], maps)


def test_the_decoder_takes_what_is_upsampled_then_the_image_then_the_maps():
    network = small()
    parts = {}
    for name in ("encoders.0.blocks.0", "encoders.1.blocks.0", "decoder.3.upsample"):
        module = network.get_submodule(name)
        module.register_forward_hook(lambda _m, _x, y, name=name: parts.__setitem__(name, y))
    fuse = network.decoder[3].fuse
    fuse.register_forward_pre_hook(lambda _m, x: parts.__setitem__("fused", x[0]))
    network(torch.randn(1, 8, 32, 32))
    order = ("decoder.3.upsample", "encoders.0.blocks.0", "encoders.1.blocks.0")
    assert torch.equal(parts["fused"], torch.cat([parts[name] for name in order], dim=1))


def test_both_encoders_learn_when_only_the_merge_joins_them():
    network = small(att_skips=(False,) * 4).train()
    network(torch.randn(2, 8, 32, 32)).square().mean().backward()
    assert all(p.grad.any() for p in network.encoders[1].parameters())


def test_the_image_encoder_learns_from_blank_maps():
    network = small().train()
    image = torch.cat([torch.randn(2, 2, 32, 32), torch.zeros(2, 6, 32, 32)], dim=1)
    network(image).square().mean().backward()
    assert all(p.grad.any() for p in network.encoders[0].parameters())


def test_without_maps_every_choice_about_them_is_void():
    baseline = small(attention_maps=0)
    assert baseline.config.input_channels == 2
    image = torch.randn(1, 2, 16, 16)
    for options in ({"encoders": "single"}, {"e4": 8}, {"att_skips": (False,) * 4}):
        other = small(attention_maps=0, **options)
        assert torch.equal(other(image), baseline(image))


@torch.no_grad()
def test_a_single_encoder_is_a_u_net_with_more_channels():
    single, baseline = small(encoders="single"), small(attention_maps=0)
    state = single.state_dict()
    first = "encoders.0.blocks.0.0.weight"
    state[first] = state[first][:, :2]
    baseline.load_state_dict(state)
    image = torch.randn(1, 2, 16, 16)
    blank_maps = torch.zeros(1, 6, 16, 16)
    torch.testing.assert_close(single(torch.cat([image, blank_maps], dim=1)), baseline(image))


@torch.no_grad()
def test_odd_sizes_are_padded_by_their_last_pixels():
    network = small()
    image = torch.randn(1, 8, 32, 32)
    image[:, :, 29:] = image[:, :, 29:30]
    image[..., 17:] = image[..., 17:18]
    torch.testing.assert_close(network(image[..., :30, :18]), network(image)[..., :30, :18])


def test_an_image_without_its_maps_is_refused():
    with pytest.raises(RuntimeError, match="split"):
        small()(torch.randn(1, 2, 32, 32))


def test_every_fault_of_a_configuration_is_reported():
    faults = {
        "in_channels": 0,
        "attention_maps": -1,
        "num_classes": 0,
        "spatial_dims": 3,
        "encoders": "triple",
        "width": 0,
        "e4": 5,
        "att_skips": (True,),
    }
    with pytest.raises(ConfigError) as caught:
        DAINetConfig(**faults)
    for field in faults:
        assert f"{field} = " in str(caught.value)

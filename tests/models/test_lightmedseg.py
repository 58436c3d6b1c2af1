"""LightMedSeg against its specification: counts to the unit, maps, switches."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lamina.errors import ConfigError
from lamina.models import PUBLISHED, build
from lamina.models.layers.gating import FiLM
from lamina.models.layers.position_bias import PositionBias
from lamina.models.lightmedseg import EncoderStage, LightMedSegConfig, SkipFusion
from lamina.models.published import quantity
from weights import count


def brats(**options) -> nn.Module:
    torch.manual_seed(0)
    return build("lightmedseg", in_channels=4, num_classes=4, **options)


@pytest.mark.parametrize(
    ("options", "weights"),
    [
        ({}, 477_242),
        ({"num_anchors": 16}, 492_818),
        ({"num_anchors": 32}, 523_970),
        ({"ghost": False}, 693_026),
        ({"spb": "l2"}, 477_242),
        ({"lspm": False}, 477_242 - 11_662),
        ({"anchors": False}, 477_242 - 8_640 - 12_000 - 1_080),
        ({"router": False}, 477_242 - 15_360 - 2 * 16_708 - (64 - 32) * 32),
    ],
)
def test_weights_match_the_published_totals(options, weights):
    assert count(brats(**options)) == weights


def test_weights_of_one_channel_images():
    assert count(build("lightmedseg", in_channels=1, num_classes=4)) == 476_270


@pytest.mark.parametrize(
    ("name", "options", "weights", "deviation"),
    [
        ("lightmedseg", {}, 477_242, 0.01),
        ("lightmedseg_k16", {}, 492_818, 0.01),
        ("lightmedseg_k32", {}, 523_970, 0.01),
        ("lightmedseg_standard", {}, 693_026, 0.06),
        ("lightmedseg_b", {}, 476_302, 0.01),
        ("lightmedseg_b", {"num_anchors": 16}, 492_390, None),
        ("lightmedseg_b", {"num_anchors": 32}, 524_566, None),
        ("lightmedseg_b_standard", {}, 656_554, 0.01),
    ],
)
def test_weights_of_each_preset(name, options, weights, deviation):
    with torch.device("meta"):
        assert count(build(name, in_channels=4, num_classes=4, **options)) == weights
    if deviation is not None:
        printed = quantity(PUBLISHED.get(name).parameters)
        assert abs(weights / printed - 1) < deviation


def test_weights_of_each_block():
    network = brats()
    blocks = {name: count(block) for name, block in network.named_children() if count(block)}
    assert blocks == {
        "stem": 556,
        "anchor_detector": 8_640,
        "lspm": 11_662,
        "encoder": 198_056,
        "skips": 55_360,
        "seed": 16_768,
        "decoder": 186_164,
        "head": 36,
    }
    assert [count(stage) for stage in network.decoder] == [138_347, 35_639, 9_503, 2_675]
    assert [count(controller) for controller in network.skips.controllers] == [16_708] * 2
    assert count(network.skips.align) == 15_360


def test_weights_of_each_block_of_reading_b():
    network = brats(reading="b")
    assert count(network.skips) == 42_812
    assert [count(controller) for controller in network.skips.controllers] == [16_708]
    assert [count(project) for project in network.skips.project] == [8_320, 2_080, 272, 72]
    assert [count(stage.position_bias) for stage in network.decoder] == [1152, 288, 144, 72]
    assert [stage.upsample.out_channels for stage in network.decoder] == [128, 32, 16, 8]
    assert network.head.in_channels == 8


def outputs_of(network: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run the network and keep what every sub-module returned, by name."""
    seen = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _x, y, name=name: seen.__setitem__(name, y))
    with torch.no_grad():
        network(image)
    return seen


@pytest.mark.parametrize("size", [(32, 48, 16), (32, 48)])
@pytest.mark.parametrize(("reading", "widths"), [("a", (64, 32, 16, 8)), ("b", (32, 16, 8, 8))])
def test_maps_and_sizes_along_the_way(reading, widths, size):
    dims = len(size)
    network = brats(spatial_dims=dims, reading=reading)
    seen = outputs_of(network, 10 * torch.randn(2, 4, *size))
    anchors = seen["anchor_detector"]
    texture, adapted = seen["lspm"]
    mixtures = {
        "lspm.mixture": 2,
        **{f"skips.controllers.{n}": 4 for n in range(len(network.skips.controllers))},
        **{f"decoder.{stage}.gate": 3 for stage in range(4)},
    }
    assert anchors.shape == (2, 8, dims)
    for unit_map in (anchors, texture, seen["lspm.complexity"], *(seen[m] for m in mixtures)):
        assert unit_map.min() >= 0
        assert unit_map.max() <= 1
    for name, ways in mixtures.items():
        assert seen[name].shape[1] == ways
        torch.testing.assert_close(seen[name].sum(1), torch.ones_like(seen[name][:, 0]))
    assert texture.shape == (2, 1, *(n // 2 for n in size))
    assert adapted.shape == (2, 8, *(n // 2 for n in size))
    for stage, (channels, shrink) in enumerate([(16, 2), (32, 4), (64, 8), (128, 16)]):
        assert seen[f"encoder.{stage}"].shape == (2, channels, *(n // shrink for n in size))
    for stage, (channels, shrink) in enumerate(zip(widths, (8, 4, 2, 1), strict=True)):
        assert seen[f"decoder.{stage}"].shape == (2, channels, *(n // shrink for n in size))


@pytest.mark.parametrize(
    "options", [{name: False} for name in ("lspm", "anchors", "router", "ghost")] + [{"spb": "l2"}]
)
@pytest.mark.parametrize("reading", ["a", "b"])
def test_each_ablation_trains(reading, options):
    network = brats(**options, reading=reading, spatial_dims=2)
    logits = network(torch.randn(2, 4, 40, 32))
    logits.square().mean().backward()
    assert logits.shape == (2, 4, 40, 32)
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_conditioning_starts_as_the_identity():
    x = torch.randn(2, 4, 3, 3, 3)
    assert torch.equal(FiLM(6, 4)(x, torch.rand(2, 6)), x)


def test_texture_chooses_between_the_detail_and_the_smooth_path():
    config = LightMedSegConfig(in_channels=1, num_classes=2, anchors=False)
    stage = EncoderStage(config, 8, 16)
    x = torch.randn(1, 8, 6, 6, 6)
    projected = stage.project(x)
    for texture, path in [(1.0, stage.detail), (0.0, stage.smooth)]:
        found = stage(x, torch.full((1, 1, 3, 3, 3), texture), None)
        torch.testing.assert_close(found, stage.recalibrate(path(projected)))


def position_maps(kind: str, anchors: torch.Tensor, size: tuple[int, ...]) -> torch.Tensor:
    """Return the K maps themselves, by making the projection copy map k to channel k."""
    num_anchors, dims = anchors.shape[1:]
    bias = PositionBias(dims, num_anchors, num_anchors, kind)
    with torch.no_grad():
        identity = torch.eye(num_anchors)
        bias.project.weight.copy_(identity.reshape(bias.project.weight.shape))
        bias.project.bias.zero_()
        return bias(torch.zeros(len(anchors), num_anchors, *size), anchors)


@pytest.mark.parametrize("size", [(4, 6, 5), (4, 6)])
@pytest.mark.parametrize("kind", ["sum", "l2"])
def test_position_maps_hold_every_voxels_offset_from_every_anchor(kind, size):
    anchors = torch.rand(2, 3, len(size))
    maps = position_maps(kind, anchors, size)
    for voxel in [(0,) * len(size), (3, 2, 4)[: len(size)], (1, 5, 0)[: len(size)]]:
        offset = torch.tensor(voxel) / torch.tensor(size) - anchors
        expected = offset.sum(-1) if kind == "sum" else offset.norm(dim=-1)
        torch.testing.assert_close(maps[(..., *voxel)], expected, rtol=0, atol=1e-3)


def test_summed_offsets_of_two_anchors_differ_by_a_constant_only():
    anchors = torch.rand(1, 2, 3)
    spread = {}
    for kind in ("sum", "l2"):
        first, second = position_maps(kind, anchors, (4, 6, 5))[0]
        spread[kind] = float((first - second).std())
    assert spread["sum"] < 1e-6 < 1e-3 < spread["l2"]


def test_a_position_bias_can_meet_its_anchor_without_breaking_the_gradient():
    anchors = torch.tensor([[[0.5, 0.5, 0.5]]], requires_grad=True)
    PositionBias(3, 1, 4, "l2")(torch.zeros(1, 4, 2, 2, 2), anchors).sum().backward()
    assert anchors.grad.isfinite().all()


@pytest.mark.parametrize(("reading", "controllers"), [("a", (0, 1)), ("b", (0, 0))])
def test_the_router_mixes_stages_as_the_equations_say(reading, controllers):
    torch.manual_seed(0)
    config = LightMedSegConfig(in_channels=1, num_classes=2, reading=reading)
    skips = SkipFusion(config)
    widths = config.channels[1:]
    encoded = [torch.randn(1, c, *[16 // 2**i] * 3) for i, c in enumerate(widths)]
    stem = torch.randn(1, 8, 16, 16, 16)
    with torch.no_grad():
        found = skips(stem, encoded)
        for stage, size in enumerate([4, 8]):
            aligned = [
                F.interpolate(align(x), size=[size] * 3, mode="trilinear")
                for align, x in zip(skips.align, encoded, strict=True)
            ]
            weights = skips.controllers[controllers[stage]](torch.cat(aligned, 1))
            mixed = torch.einsum("bnxyz,nbcxyz->bcxyz", weights, torch.stack(aligned))
            torch.testing.assert_close(found[stage], skips.project[stage](mixed), atol=1e-5, rtol=0)
        torch.testing.assert_close(found[2], skips.project[2](encoded[0]))
        torch.testing.assert_close(found[3], skips.project[3](stem))


def test_odd_sizes_are_padded_by_their_last_voxels():
    network = brats(spatial_dims=2).eval()
    image = torch.randn(1, 4, 32, 32)
    image[:, :, 29:] = image[:, :, 29:30]
    image[..., 17:] = image[..., 17:18]
    with torch.no_grad():
        whole, part = network(image), network(image[..., :30, :18])
    torch.testing.assert_close(part, whole[..., :30, :18])


def test_every_fault_of_a_configuration_is_reported():
    faults = {
        "in_channels": 0,
        "num_classes": 0,
        "spatial_dims": 4,
        "channels": (6, 7),
        "reading": "c",
        "num_anchors": 0,
        "router_channels": 0,
        "spb": "l1",
    }
    with pytest.raises(ConfigError) as caught:
        LightMedSegConfig(**faults)
    for field in faults:
        assert f"{field} = " in str(caught.value)

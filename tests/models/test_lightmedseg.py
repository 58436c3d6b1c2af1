"""LightMedSeg against its specification: counts to the unit, maps, switches."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lamina.errors import ConfigError
from lamina.models import build
from lamina.models.layers.gating import FiLM
from lamina.models.lightmedseg import (
    EncoderStage,
    LightMedSegConfig,
    PositionBias,
    SkipFusion,
)


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


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


def test_the_standard_preset_is_the_plain_variant():
    assert count(build("lightmedseg_standard", in_channels=4, num_classes=4)) == 693_026


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


def outputs_of(network: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """Run the network and keep what every sub-module returned, by name."""
    seen = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _x, y, name=name: seen.__setitem__(name, y))
    with torch.no_grad():
        network(image)
    return seen


@pytest.mark.parametrize("size", [(32, 48, 16), (32, 48)])
def test_maps_and_sizes_along_the_way(size):
    dims = len(size)
    seen = outputs_of(brats(spatial_dims=dims), 10 * torch.randn(2, 4, *size))
    anchors = seen["anchor_detector"]
    texture, adapted = seen["lspm"]
    mixtures = {
        "lspm.mixture": 2,
        "skips.controllers.0": 4,
        "skips.controllers.1": 4,
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
    for stage, (channels, shrink) in enumerate([(64, 8), (32, 4), (16, 2), (8, 1)]):
        assert seen[f"decoder.{stage}"].shape == (2, channels, *(n // shrink for n in size))


@pytest.mark.parametrize(
    "options", [{name: False} for name in ("lspm", "anchors", "router", "ghost")] + [{"spb": "l2"}]
)
def test_each_ablation_trains(options):
    network = brats(**options, spatial_dims=2)
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
    config = LightMedSegConfig(
        in_channels=1, num_classes=2, spatial_dims=dims, num_anchors=num_anchors, spb=kind
    )
    bias = PositionBias(config, channels=num_anchors)
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
    config = LightMedSegConfig(in_channels=1, num_classes=2, num_anchors=1, spb="l2")
    anchors = torch.tensor([[[0.5, 0.5, 0.5]]], requires_grad=True)
    PositionBias(config, 4)(torch.zeros(1, 4, 2, 2, 2), anchors).sum().backward()
    assert anchors.grad.isfinite().all()


def test_the_router_mixes_stages_as_the_equations_say():
    torch.manual_seed(0)
    config = LightMedSegConfig(in_channels=1, num_classes=2)
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
            weights = skips.controllers[stage](torch.cat(aligned, 1))
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
    with pytest.raises(ConfigError) as caught:
        LightMedSegConfig(
            in_channels=0, num_classes=0, spatial_dims=4, channels=(6, 7), num_anchors=0, spb="l1"
        )
    for field in ("in_channels", "num_classes", "spatial_dims", "channels", "num_anchors", "spb"):
        assert f"{field} = " in str(caught.value)

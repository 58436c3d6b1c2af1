"""SegFormer3D: its count to the unit, sizes, and the attention."""

import pytest
import torch

from lamina.errors import ConfigError
from lamina.models import build
from lamina.models.segformer3d import EfficientSelfAttention, SegFormer3DConfig

SMALL = {"channels": (4, 8, 10, 16), "depths": (1, 1, 1, 1), "decoder_channels": 8}


def test_weights_match_the_authors_count():
    with torch.device("meta"):
        network = build("segformer3d", in_channels=4, num_classes=3)
    assert sum(p.numel() for p in network.parameters()) == 4_511_939


@torch.no_grad()
@pytest.mark.parametrize("size", [(37, 21), (1, 3), (20, 33, 17)])
def test_any_size_goes_in_and_comes_out(size):
    dims = len(size)
    network = build("segformer3d", in_channels=3, num_classes=2, spatial_dims=dims, **SMALL)
    assert network.eval()(torch.randn(1, 3, *size)).shape == (1, 2, *size)


def test_maps_are_4_8_16_and_32_times_smaller_than_the_image():
    network = build("segformer3d", in_channels=3, num_classes=2, **SMALL)
    seen = []
    for stage in (*network.encoder, network.fuse):
        stage.register_forward_hook(lambda _m, _x, y: seen.append(tuple(y.shape[1:])))
    network(torch.randn(2, 3, 32, 64, 32))
    assert seen == [(4, 8, 16, 8), (8, 4, 8, 4), (10, 2, 4, 2), (16, 1, 2, 1), (8, 8, 16, 8)]


def reference(layer: EfficientSelfAttention, x: torch.Tensor) -> torch.Tensor:
    """Attention written out, head by head."""
    key, value = layer.key_value(layer.reduce(x)).flatten(2).chunk(2, dim=1)
    query = layer.query(x).flatten(2)
    heads = zip(*(part.chunk(layer.num_heads, dim=1) for part in (query, key, value)), strict=True)
    mixed = [
        v @ (q.transpose(1, 2) @ k / q.shape[1] ** 0.5).softmax(dim=-1).transpose(1, 2)
        for q, k, v in heads
    ]
    return layer.project(torch.cat(mixed, dim=1).reshape(x.shape))


@torch.no_grad()
@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("size", [(4, 6), (2, 4, 6)])
def test_attention_is_scaled_and_split_into_heads(reduction, size):
    torch.manual_seed(0)
    layer = EfficientSelfAttention(len(size), 12, num_heads=3, reduction=reduction)
    x = torch.randn(2, 12, *size)
    assert layer.reduce(x).shape[2:] == tuple(n // reduction for n in size)
    torch.testing.assert_close(layer(x), reference(layer, x))


def test_every_fault_of_a_configuration_is_reported():
    faults = {
        "in_channels": 0,
        "num_classes": 0,
        "spatial_dims": 4,
        "channels": (8, 8),
        "depths": (1, 1, 1, 0),
        "num_heads": (3, 1, 1, 1),
        "reductions": (3, 2, 1, 1),
        "mlp_ratio": 0,
        "decoder_channels": 0,
    }
    with pytest.raises(ConfigError) as caught:
        SegFormer3DConfig(**faults)
    for field in faults:
        assert f"{field} = " in str(caught.value)

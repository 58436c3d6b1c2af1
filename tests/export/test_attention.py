"""AttentionGraph maps drawn from arrays are those that torch draws, but for rounding."""

import numpy as np
import pytest
import torch

from lamina.export.attention import MapDrawer
from lamina.export.graphs import AttentionGraph
from lamina.inference.attention_maps import make_maker
from lamina.inference.backend import TorchNetwork
from small_bundles import small_vit


@pytest.mark.parametrize("upsample", ["nearest", "bilinear"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((1, 37, 90), None), ((3, 37, 90), None), ((1, 40, 31, 11), 2)]
)
def test_maps_are_those_of_torch(shape, axis, upsample):
    told, weights = small_vit(num_heads=2)
    told |= {"upsample": upsample}
    maker = make_maker(told, weights)
    image = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    image[..., : shape[-1] // 2] += 3
    expected = maker.draw(image, axis)
    drawn = MapDrawer.of(told, TorchNetwork(AttentionGraph(maker.vit)), axis)(image)
    assert drawn.shape == expected.shape == (2, *shape[1:])
    assert drawn.dtype == np.uint8
    assert np.abs(drawn.astype(int) - expected).max() <= 1
    assert np.ptp(drawn) == 255


def test_a_map_that_is_the_same_everywhere_becomes_nothing():
    told, _ = small_vit(num_heads=2)

    def even(batch):
        return np.full((len(batch), 2, 6, 6), 0.02, np.float32)

    drawn = MapDrawer.of(told, even, None)(torch.rand(1, 20, 20).numpy())
    assert not drawn.any()

"""Grad-CAM: layers are found by name in any network, and maps are those of the equations."""

import numpy as np
import pytest
import torch
from torch import nn

from lamina.errors import UnknownNameError
from lamina.explain.gradcam import GradCAM
from lamina.explain.layers import Layer, default_layer, find_layer, layers_of
from lamina.models import configure

# One network of each paper, and others whose blocks are laid out differently.
USUAL = {
    "dainet": ("decoder.0", 8),
    "glims": ("t3_up", 8),
    "lgmsnet_2d": ("decoder.0", 8),
    "lightmedseg": ("decoder.0", 8),
    "mpunet": ("decoder.0", 8),
    "segformer3d": ("fuse", 4),
    "unext": (None, 8),
}


class Known(nn.Module):
    """Two features: how bright a voxel is, and how dark; classes say which of them wins."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False), nn.ReLU(inplace=True))
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Conv2d(2, 3, 1, bias=False)
        self.features[0].weight.data = torch.tensor([1.0, -1.0]).reshape(2, 1, 1, 1)
        self.head.weight.data = torch.tensor([[0.0, 0.0], [2.0, 0.0], [0.0, 3.0]])[..., None, None]

    def forward(self, image):
        coarse = self.pool(self.features(image))
        return self.head(nn.functional.interpolate(coarse, scale_factor=2))


@pytest.fixture
def halves():
    """A picture whose left half is bright, and whose right half is dark."""
    image = np.ones((1, 8, 8), np.float32)
    image[..., 4:] = -2
    return image


def known(layer="features", stride=1):
    return GradCAM(Known().eval(), Layer(layer, 2, (stride, stride)), [1, 2], exclusive=True)


@pytest.mark.parametrize(("layer", "stride"), [("features", 1), ("features.0", 1), ("pool", 2)])
def test_maps_are_where_the_features_are_that_speak_for_a_class(halves, layer, stride):
    cam = known(layer, stride)
    assert cam.weigh([halves]) == [True, True]
    bright, dark = cam(halves[None])[0]
    assert (bright[:, :3] > 0).all()
    assert (bright[:, 5:] == 0).all()
    assert (dark[:, :3] == 0).all()
    assert (dark[:, 5:] > 0).all()


def test_weights_are_the_gradients_of_all_windows(halves):
    cam = known("pool", 2)
    cam.weigh([halves[:, :, :4], halves[:, :, 4:]])
    # Each of 32 voxels of a class adds its weight in the head; there is no other path.
    bright, dark = cam(halves[None])[0]
    assert bright.max() == pytest.approx(2 * 32 * 1)
    assert dark.max() == pytest.approx(3 * 32 * 2)


def test_a_class_that_wins_nowhere_is_told(halves):
    cam = known()
    assert cam.weigh([halves[:, :, :4]]) == [True, False]
    assert (cam(halves[None])[0, 1] == 0).all()


def test_the_network_computes_the_same_afterwards(halves):
    network, image = Known().eval(), torch.from_numpy(halves[None])
    before = network(image)
    cam = GradCAM(network, Layer("features.0", 2, (1, 1)), [1], exclusive=True)
    cam.weigh([halves])
    assert torch.equal(network(image), before)


@pytest.mark.parametrize("name", USUAL)
def test_every_kind_of_network_has_layers_and_one_to_begin_with(name):
    config = configure(name, in_channels=1, num_classes=3)
    layers = layers_of(config)
    layer = default_layer(layers, 3)
    expected, stride = USUAL[name]
    assert layer.name == expected or expected is None
    assert max(layer.stride) == stride
    assert len(layers) > 20
    assert len({each.name for each in layers}) == len(layers)


@pytest.mark.parametrize("name", ["dainet", "lgmsnet_2d", "unext"])
def test_real_networks_have_maps_at_their_usual_layer(name):
    torch.manual_seed(0)
    config = configure(name, in_channels=1, num_classes=3)
    layer = default_layer(layers_of(config), 3)
    network = config.build().eval()
    size = (32, 40)  # not of the window's usual size
    batch = np.random.default_rng(0).normal(size=(config.input_channels, *size))
    cam = GradCAM(network, layer, [0, 1, 2], exclusive=True)
    found = cam.weigh([batch.astype(np.float32)])
    maps = cam(batch[None].astype(np.float32))
    assert maps.shape == (1, 3, *size)
    assert np.isfinite(maps).all()
    assert any(found)
    assert maps[0, np.flatnonzero(found)].max() > 0


def test_an_unknown_layer_is_named_with_its_like():
    layers = layers_of(configure("lgmsnet_2d", in_channels=1, num_classes=2))
    assert find_layer(layers, "decoder.1").stride == (4, 4)
    with pytest.raises(UnknownNameError, match="decodr.1.*Did you mean decoder.1"):
        find_layer(layers, "decodr.1")
    with pytest.raises(UnknownNameError, match="Known: "):
        find_layer(layers, "#")

"""The whole of LGMSNet against the restatement of its specification, on weights of our making.

In float64 the two agree to rounding, so that a wrong turn anywhere cannot hide behind it.
"""

import json
from itertools import pairwise
from runpy import run_path

import pytest
import torch
from restated_lgmsnet import restated_lgmsnet

from lamina.models.reference import load_reference

TOLERANCE = 1e-10  # of the largest logit

PUBLISHED = {
    "channels": (16, 32, 64, 128, 128),
    "depths": (1, 1, 1),
    "splits": ((96, 32), (96, 32), (96, 32), (48, 16)),
}
ANOTHER = {
    "channels": (8, 12, 20, 24, 28),
    "depths": (1, 2, 1),
    "splits": ((17, 7), (20, 8), (9, 15), (13, 7)),
}


class Shapes(dict):
    """The shapes of a network's weights by published name, filled block by block."""

    def __init__(self, dims):
        super().__init__()
        self.dims = dims

    def layer(self, name, *shape, bias=True):
        self[f"{name}.weight"] = shape
        if bias:
            self[f"{name}.bias"] = (shape[0],)

    def conv(self, name, c_in, c, kernel, *, bias=False):
        self.layer(name, c, c_in, *[kernel] * self.dims, bias=bias)

    def norm(self, name, c, *, everywhere=False):
        """Batch normalisation; without ``everywhere`` in 2D alone: in 3D nothing is learned."""
        if everywhere or self.dims == 2:
            self.layer(name, c)
            self[f"{name}.running_mean"] = self[f"{name}.running_var"] = (c,)
            self[f"{name}.num_batches_tracked"] = ()

    def unit(self, name, c_in, c, kernel):
        self.conv(f"{name}.0", c_in, c, kernel)
        self.norm(f"{name}.1", c)

    def encoder(self, name, c_in, c, depth):
        for block in range(depth):
            self.layer(f"{name}.{block}.norm_act.0", c_in)
            kernels = {"local_dwc": 3, "global_dwc_s": 5, "global_dwc_m": 7, "global_dwc_l": 9}
            for branch, kernel in kernels.items():
                self.conv(f"{name}.{block}.{branch}", 1, c_in // 4, kernel, bias=True)
            self.unit(f"{name}.{block}.conv_1x1_bn", c_in, c_in // 4, 1)
            self.unit(f"{name}.{block}.conv_nxn_bn", c_in // 4, c_in, 3)
        self.unit(f"{name}.{depth}", c_in, c, 1)

    def gms(self, name, c_in, c, split):
        attended, convolved = split
        self.unit(f"{name}.conv1", c_in, c, 3)
        self.unit(f"{name}.conv2", c, c, 1)
        for kernel, norm in (("3", "bn1"), ("1", "bn2")):
            convolution = f"{name}.conv_spilt.dwconv{'x'.join(kernel * self.dims)}"
            self.conv(convolution, 1, convolved, int(kernel))
            self.norm(f"{name}.conv_spilt.{norm}", convolved, everywhere=True)
        attention, feed_forward = (f"{name}.transformer.layers.0.{part}" for part in ("0", "1.net"))
        self.layer(f"{attention}.norm", attended)
        self.layer(f"{attention}.to_qkv", 96, attended, bias=False)
        self.layer(f"{attention}.to_out.0", attended, 32)
        self.layer(f"{feed_forward}.0", attended)
        self.layer(f"{feed_forward}.1", 2 * c, attended)
        self.layer(f"{feed_forward}.4", attended, 2 * c)
        self.unit(f"{name}.conv3", c, c, 1)
        self.unit(f"{name}.conv4", c + c_in, c, 3)

    def up(self, name, c_in, c):
        self.conv(f"{name}.up.1", c_in, c, 3, bias=True)
        self.norm(f"{name}.up.2", c)

    def fusion(self, name, c):
        convolutions = ("0", c, 2 * c, 3), ("3", 2 * c, 4 * c, 1), ("6", 4 * c, c, 1)
        for (place, c_in, c_out, kernel), norm in zip(convolutions, "258", strict=True):
            self.conv(f"{name}.conv.{place}", c_in, c_out, kernel, bias=True)
            self.norm(f"{name}.conv.{norm}", c_out)


def shapes(dims, in_channels, num_classes, channels, depths, splits):
    made, (d0, d1, d2, d3, d4) = Shapes(dims), channels
    made.conv("stem.conv.0", in_channels, d0, 3, bias=True)
    made.norm("stem.conv.1", d0)
    widths = (d0, *channels[:3])
    for stage, (c_in, c) in enumerate(pairwise(widths)):
        made.encoder(f"encoder{stage + 1}", c_in, c, depths[stage])
    made.gms("encoder4.0", d2, d3, splits[0])
    made.gms("encoder5.0", d3, d4, splits[1])
    for stage, (c, c_in) in enumerate(pairwise(channels)):
        made.up(f"Up{stage + 2}", c_in, c)
    made.gms("Up_conv5", 2 * d3, d3, splits[2])
    for name, c in (("Up_conv2", d0), ("Up_conv3", d1), ("Up_conv4.0", d2)):
        made.fusion(name, c)
    made.gms("Up_conv4.1", d2, d2, splits[3])
    made.conv("Conv_1x1", d0, num_classes, 1, bias=True)
    return made


@pytest.mark.parametrize(("dims", "ends"), [(2, (3, 1)), (3, (1, 14))])
def test_the_shapes_made_here_are_the_published_ones(shared, dims, ends):
    file = shared / "specs" / "reference_names" / f"lgmsnet{dims}d_state_dict_names.txt"
    rows = (line.split("\t") for line in file.read_text().splitlines())
    assert shapes(dims, *ends, **PUBLISHED) == {key: tuple(json.loads(x)) for key, x in rows}


@pytest.mark.parametrize(
    ("settings", "ends", "size"),
    [
        pytest.param(PUBLISHED, (3, 1), (2, 64, 96), id="2d"),
        pytest.param(ANOTHER, (2, 3), (2, 96, 64), id="2d, another configuration"),
        pytest.param(PUBLISHED, (1, 14), (1, 32, 32, 32), id="3d"),
        pytest.param(ANOTHER, (2, 3), (1, 32, 32, 64), id="3d, another configuration"),
    ],
)
def test_the_network_computes_what_its_specification_says(shared, settings, ends, size):
    (batch, *spatial), (in_channels, num_classes) = size, ends
    recipe = run_path(str(shared / "specs" / "fixtures" / "recipe.py"))
    made = shapes(len(spatial), in_channels, num_classes, **settings)
    weights = {key: torch.from_numpy(recipe["weight"](key, shape)) for key, shape in made.items()}
    weights = {key: x.double() if x.is_floating_point() else x for key, x in weights.items()}
    image = torch.from_numpy(recipe["tensor"]("whole_lgmsnet/in0", (batch, in_channels, *spatial)))
    network = load_reference(f"lgmsnet_{len(spatial)}d", None, weights).double()
    assert {key: getattr(network.config, key) for key in settings} == settings
    with torch.no_grad():
        found, expected = network(image.double()), restated_lgmsnet(weights, image.double())
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=TOLERANCE * scale, rtol=0)

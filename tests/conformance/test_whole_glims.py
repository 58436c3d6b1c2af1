"""The whole of GLIMS against the restatement of its specification, on weights of our making.

The weights are the published ones by name, with a twelfth of the channels, other heads and other
depths. In float64 the two agree to rounding, so that a wrong turn anywhere cannot hide behind it.
"""

import json
import re
from runpy import run_path

import pytest
import torch
from restated_glims import relative_position_index, restated_glims

from lamina.models.reference import load_reference

TOLERANCE = 1e-10
CHANNELS = 12
"""Times fewer than published."""
HEADS = {"t3": 4, "t4_pre": 2, "t4": 8, "t4_post": 2, "t3_up": 4}
DEPTHS = {"t3": 2, "t4_pre": 3, "t4": 1, "t4_post": 3, "t3_up": 2}


def small(shapes):
    """Leave out blocks beyond the depths, and narrow what is left."""
    return {
        name: narrow(name, shape)
        for name, shape in shapes.items()
        if not (block := re.match(r"(\w+)\.layer\.blocks\.(\d+)", name))
        or int(block[2]) < DEPTHS[block[1]]
    }


def narrow(name, shape):
    if name.endswith("relative_position_bias_table"):
        return (shape[0], HEADS[name.partition(".")[0]])
    if name.endswith("position_embeddings"):
        return (1, shape[1] // CHANNELS, shape[2])
    # Numbers of channels are multiples of 12; sizes of kernels, images and logits are not.
    return tuple(n // CHANNELS if n % 12 == 0 else n for n in shape)


@pytest.fixture(scope="module")
def recipe(shared):
    return run_path(str(shared / "specs" / "fixtures" / "recipe.py"))


@pytest.fixture(scope="module")
def weights(shared, recipe):
    """Published name -> tensor, of the small network."""
    file = shared / "specs" / "reference_names" / "glims_state_dict_names.txt"
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    shapes = small({name: json.loads(shape) for name, shape in rows})
    return {
        name: relative_position_index()
        if name.endswith("relative_position_index")
        else torch.from_numpy(recipe["weight"](name, shape, ".convT." in name)).double()
        for name, shape in shapes.items()
    }


def check(found, expected):
    """Agreement, relative to the largest logit."""
    scale = float(expected.abs().max())
    torch.testing.assert_close(found, expected, atol=TOLERANCE * scale, rtol=0)


def test_the_network_computes_what_its_specification_says(weights, recipe):
    image = torch.from_numpy(recipe["tensor"]("whole_glims/in0", (1, 4, 96, 96, 96))).double()
    network = load_reference("glims", None, weights).double()
    assert network.config.depths == (2, 3, 1)
    assert network.config.heads == (4, 2, 8)
    with torch.no_grad():
        expected = restated_glims(weights, image)
        finest, levels = network.eval()(image), network.train()(image)
    check(finest, expected[0])
    assert [x.shape[-1] for x in levels] == [96, 48, 24, 12]
    for found, level in zip(levels, expected, strict=True):
        check(found, level)

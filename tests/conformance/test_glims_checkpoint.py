"""GLIMS' published names and shapes: the weights find their places and tell their network."""

import json

import pytest
import torch

from lamina.models import configure
from lamina.models.reference import REFERENCES, fit_reference


@pytest.fixture(scope="module")
def published(shared):
    """Every name of the authors' state dict with a tensor of its shape, of zeros."""
    names = shared / "specs" / "reference_names" / "glims_state_dict_names.txt"
    rows = [line.split("\t") for line in names.read_text().splitlines()]
    return {name: torch.zeros(()).expand(json.loads(shape)) for name, shape in rows}


def test_every_published_weight_finds_its_place(published):
    fit = fit_reference("glims", None, {f"module.{name}": x for name, x in published.items()})
    assert len(published) == 739
    assert fit.misfits == {}
    assert fit.config == configure("glims", in_channels=4, num_classes=3)
    assert not any(x.any() for x in fit.network.state_dict().values())


def test_shapes_tell_the_variant(published):
    dropped = ("t3", "conv_3x3_dil2", "csab", "out2", "out3", "out4")
    fewer = {name: x for name, x in published.items() if not any(part in name for part in dropped)}
    fewer["stem.conv.weight"] = torch.zeros(24, 1, 1, 1, 1)
    fewer["out1.conv.conv.weight"] = torch.zeros(14, 24, 1, 1, 1)
    fewer["t4_pre.layer.position_embeddings"] = torch.zeros(1, 384, 8**3)
    found = REFERENCES.get("glims").configure(fewer)
    assert found == configure(
        "glims",
        in_channels=1,
        num_classes=14,
        roi_size=(128, 128, 128),
        dilations=(1, 2),
        depths=(0, 6, 2),
        heads=(1, 12, 24),
        attention_guidance=False,
        deep_supervision=False,
    )


def test_weights_of_no_cubic_grid_are_refused(published):
    other = published | {"t4_pre.layer.position_embeddings": torch.zeros(1, 384, 200)}
    with pytest.raises(ValueError, match="200"):
        REFERENCES.get("glims").configure(other)

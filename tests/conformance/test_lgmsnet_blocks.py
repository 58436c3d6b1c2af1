"""LGMSNet's blocks and checkpoints against what the authors' code computed and saved."""

import json

import pytest
import torch
from torch import nn

from lamina.errors import BundleError
from lamina.models import configure
from lamina.models.layers.lms import LMS, UpStage
from lamina.models.lgmsnet import GMS, LGMSNetConfig, fusion
from lamina.models.reference import REFERENCES, fit_reference, load_reference

NORM = {2: nn.BatchNorm2d, 3: nn.InstanceNorm3d}

dims = pytest.mark.parametrize("dims", [2, 3])


def check(recorded, name, module, call=None):
    recorded(name).check(module, rename=REFERENCES.get("lgmsnet").rename, call=call)


def config(dims):
    return LGMSNetConfig(in_channels=1, num_classes=1, spatial_dims=dims)


@dims
def test_the_local_block_computes_what_the_authors_code_does(recorded, dims):
    check(recorded, f"lgms{dims}d_lms", LMS(dims, {2: 16, 3: 8}[dims], NORM[dims]))


@dims
def test_the_global_block_computes_what_the_authors_code_does(recorded, dims):
    check(recorded, f"lgms{dims}d_gms", GMS(config(dims), 16, (24, 8)))


@dims
def test_fusion_computes_what_the_authors_code_does(recorded, dims):
    check(recorded, f"lgms{dims}d_fusion", fusion(config(dims), {2: 16, 3: 8}[dims]))


@dims
def test_upsampling_computes_what_the_authors_code_does(recorded, dims):
    mode = {2: "bilinear", 3: "trilinear"}[dims]
    stage = UpStage(dims, 16, 8, NORM[dims], mode=mode, merge=nn.Identity())
    check(recorded, f"lgms{dims}d_upconv", stage.up)


def published(shared, dims):
    """Names and shapes of the published weights."""
    file = shared / "specs" / "reference_names" / f"lgmsnet{dims}d_state_dict_names.txt"
    rows = [line.split("\t") for line in file.read_text().splitlines()]
    return {name: json.loads(shape) for name, shape in rows}


@dims
def test_every_published_weight_finds_a_place_of_its_own(shared, dims):
    shapes = published(shared, dims)
    assert len(shapes) == {2: 372, 3: 177}[dims]
    weights = {f"module.{name}": torch.rand(shape) for name, shape in shapes.items()}
    network = load_reference(f"lgmsnet_{dims}d", None, weights)
    in_channels, num_classes = {2: (3, 1), 3: (1, 14)}[dims]
    assert network.config == configure(
        f"lgmsnet_{dims}d", in_channels=in_channels, num_classes=num_classes
    )
    own = {REFERENCES.get("lgmsnet").rename(name) for name in shapes}
    assert own == set(network.state_dict())
    assert len(own) == len(shapes)


@dims
def test_names_and_shapes_tell_another_configuration(shared, dims):
    config = LGMSNetConfig(
        in_channels=2,
        num_classes=5,
        spatial_dims=dims,
        channels=(4, 8, 10, 12, 14),
        depths=(1, 1, 2),
        splits=((9, 3), (8, 6), (5, 7), (6, 4)),
    )
    # Third stage: what changes the width comes after two blocks instead of one.
    names = [name.replace("encoder3.1.", "encoder3.2.") for name in published(shared, dims)]
    names += [name.replace("3.0.", "3.1.") for name in names if name.startswith("encoder3.0.")]
    torch.manual_seed(0)
    trained = config.build().eval()
    rename = REFERENCES.get("lgmsnet").rename
    weights = {name: trained.state_dict()[rename(name)] for name in names}
    restored = load_reference("lgmsnet", None, weights)
    assert restored.config == config
    image = torch.randn(1, 2, *(32, 64, 32)[:dims])
    with torch.no_grad():
        assert torch.equal(restored(image), trained(image))


def test_other_weights_are_refused(shared):
    weights = {name: torch.rand(shape) for name, shape in published(shared, 2).items()}
    del weights["Conv_1x1.bias"]
    assert fit_reference("lgmsnet", None, weights).missing == ("head.bias",)
    with pytest.raises(BundleError, match="1 missing: head.bias"):
        load_reference("lgmsnet", None, weights)
    del weights["Up_conv5.conv_spilt.bn1.weight"]
    with pytest.raises(BundleError, match="not those of the published network"):
        fit_reference("lgmsnet", None, weights)

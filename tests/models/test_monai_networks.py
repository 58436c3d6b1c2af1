"""Networks that MONAI builds: counts, sizes, heads, and what MONAI itself computes."""

import subprocess
import sys
from copy import deepcopy

import pytest
import torch
from torch import nn

from lamina.errors import ConfigError
from lamina.models import build, configure

SMALL = {
    "monai_unet": {"channels": (4, 8, 8), "num_res_units": 1},
    "attention_unet": {"channels": (4, 8, 8)},
    "unetpp": {"channels": (2, 2, 4, 4, 8)},
    "dynunet": {"channels": (4, 4, 8, 8)},
    "segresnet": {"init_filters": 8},
    "vnet": {},
    "mednext_s": {},
    "unetr": {"roi_size": 32, "hidden_size": 24, "num_heads": 3, "feature_size": 4},
    "swin_unetr": {"feature_size": 12, "depths": (1, 1, 1, 1), "window_size": 4},
}
SUPERVISED = {"unetpp": (1, 1, 1, 1), "dynunet": (1, 2), "mednext_s": (1, 2, 4, 8, 16)}
"""What each head's logits are coarser by than the image."""


def small(name: str, dims: int = 2, in_channels: int = 3, **options) -> nn.Module:
    torch.manual_seed(0)
    options = {"spatial_dims": dims, **SMALL[name], **options}
    return build(name, in_channels=in_channels, num_classes=2, **options)


@pytest.mark.parametrize(
    ("name", "in_channels", "num_classes", "weights", "live"),
    [
        ("monai_unet", 1, 2, 4_808_917, 4_808_917),
        ("attention_unet", 3, 1, 31_740_333, 31_740_333),
        ("unetpp", 3, 1, 9_119_332, 9_119_332),
        ("dynunet", 1, 14, 16_546_762, 16_546_762),
        ("dynunet_pocket", 1, 2, 694_796, 694_796),
        ("segresnet", 1, 2, 18_796_002, 18_796_002),
        ("vnet", 1, 2, 45_597_898, 45_597_898),
        ("mednext_s", 1, 2, 5_552_842, 5_552_842),
        ("mednext_b", 1, 14, 10_524_742, 10_524_742),
        ("unetr", 1, 14, 92_802_478, 92_784_046),
        ("swin_unetr", 1, 14, 62_187_296, 62_187_296),
    ],
)
def test_weights_of_each_preset(name, in_channels, num_classes, weights, live):
    config = configure(name, in_channels=in_channels, num_classes=num_classes)
    with torch.device("meta"):
        parameters = list(config.build().parameters())
    assert sum(p.numel() for p in parameters) == weights
    assert sum(p.numel() for p in parameters if p.requires_grad) == live


def test_the_published_mednext_has_no_heads_on_coarser_stages():
    config = configure("mednext_b", in_channels=1, num_classes=14, deep_supervision=False)
    with torch.device("meta"):
        assert sum(p.numel() for p in config.build().parameters()) == 10_511_246


@torch.no_grad()
@pytest.mark.parametrize("size", [(37, 21), (1, 3), (20, 33, 17)])
@pytest.mark.parametrize("name", SMALL)
def test_any_size_goes_in_and_comes_out(name, size):
    network = small(name, dims=len(size)).eval()
    assert network(torch.randn(1, 3, *size)).shape == (1, 2, *size)


@pytest.mark.parametrize("name", SMALL)
def test_one_image_as_small_as_the_divisor_trains(name):
    network = small(name)
    side = network.config.size_divisor
    logits = network(torch.randn(1, 3, side, side))
    finest = logits[0] if isinstance(logits, list) else logits
    finest.sum().backward()
    assert finest.shape == (1, 2, side, side)


@pytest.mark.parametrize("name", SUPERVISED)
def test_heads_come_finest_first_and_cover_the_image(name):
    network = small(name)
    image = torch.randn(2, 3, 33, 50)
    sizes = [tuple(logits.shape[2:]) for logits in network(image)]
    assert sizes == [(-(-33 // step), -(-50 // step)) for step in SUPERVISED[name]]
    assert network.eval()(image).shape == (2, 2, 33, 50)


@torch.no_grad()
@pytest.mark.parametrize("name", SUPERVISED)
def test_the_first_head_is_the_one_that_predicts(name):
    network = small(name)
    image = torch.randn(2, 3, 32, 48)
    first, *_ = network(image)
    torch.testing.assert_close(network.eval()(image), first)


@pytest.mark.parametrize("name", SUPERVISED)
def test_without_deep_supervision_there_is_one_head_and_every_live_weight_matters(name):
    network = small(name, deep_supervision=False)
    logits = network(torch.randn(2, 3, 32, 48))
    logits.square().mean().backward()
    assert logits.shape == (2, 2, 32, 48)
    live = [p for p in network.parameters() if p.requires_grad]
    assert all(p.grad is not None and p.grad.any() for p in live)


def test_a_network_that_has_trained_can_be_copied():
    network = small("dynunet")
    network(torch.randn(1, 3, 16, 16))
    assert deepcopy(network).state_dict().keys() == network.state_dict().keys()


@torch.no_grad()
def test_nnunet_computes_what_monais_does():
    from monai.networks.nets import DynUNet

    network = small("dynunet")
    torch.manual_seed(0)
    theirs = DynUNet(
        spatial_dims=2,
        in_channels=3,
        out_channels=2,
        kernel_size=[3] * 4,
        strides=[1, 2, 2, 2],
        upsample_kernel_size=[2] * 3,
        filters=[4, 4, 8, 8],
        deep_supervision=True,
    )
    image = torch.randn(2, 3, 32, 48)
    finest, coarser = network(image)
    stacked = theirs(image)
    torch.testing.assert_close(finest, stacked[:, 0])
    torch.testing.assert_close(coarser, stacked[:, 1, :, ::2, ::2])


@torch.no_grad()
@pytest.mark.parametrize("dims", [2, 3])
def test_unetr_of_its_own_size_computes_what_monais_does(dims):
    network = small("unetr", dims).eval()
    theirs = network.get_submodule("network.network")
    image = torch.randn(2, 3, *[32] * dims)
    torch.testing.assert_close(network(image), theirs(image))


@torch.no_grad()
def test_unetr_spreads_its_positions_over_images_of_another_size():
    network, larger = small("unetr").eval(), small("unetr", roi_size=64).eval()
    weights = network.state_dict()
    (name,) = (name for name in weights if name.endswith("position_embeddings"))
    corners = torch.randn(1, 24, 2, 2)
    between = nn.functional.interpolate(corners, size=(4, 4), mode="bilinear")
    weights[name] = corners.flatten(2).transpose(1, 2)
    network.load_state_dict(weights)
    larger.load_state_dict(weights | {name: between.flatten(2).transpose(1, 2)})
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(network(image), larger(image))


@torch.no_grad()
def test_vnet_sees_the_first_channels_twice_where_sixteen_are_not_divisible():
    network = small("vnet").eval()
    theirs = network.get_submodule("network.1")
    image = torch.randn(1, 3, 16, 32)
    torch.testing.assert_close(network(image), theirs(image[:, [0, 1, 2, 0]]))


def test_monai_is_imported_only_when_it_builds():
    program = (
        "import sys; from lamina.models import NETWORKS, configure\n"
        "for name in NETWORKS: configure(name, in_channels=1, num_classes=2)\n"
        "assert 'monai' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("monai_unet", {"channels": (8,), "num_res_units": -1}),
        ("attention_unet", {"channels": (1, 2)}),
        ("unetpp", {"channels": (8, 8, 8, 8)}),
        ("dynunet", {"channels": (8, 8, 8)}),
        ("segresnet", {"init_filters": 12}),
        ("vnet", {"in_channels": 17}),
        ("mednext_s", {"kernel_size": 4}),
        ("unetr", {"roi_size": 40, "hidden_size": 700, "feature_size": 0}),
        ("swin_unetr", {"window_size": 0, "depths": (2, 2), "num_heads": (5,) * 4}),
        ("swin_unetr", {"feature_size": 20}),
    ],
)
def test_every_fault_of_a_configuration_is_reported(name, options):
    config = type(configure(name, in_channels=1, num_classes=2))
    with pytest.raises(ConfigError) as caught:
        config(**{"in_channels": 1, "num_classes": 0, "spatial_dims": 4, **options})
    for field in ("num_classes", "spatial_dims", *options):
        assert f"{field} = " in str(caught.value)

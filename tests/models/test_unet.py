"""U-Net with plain convolutions and with local blocks: counts to the unit, structure, sizes."""

import pytest
import torch

from lamina.errors import ConfigError
from lamina.models.layers.lms import LMS
from lamina.models.unet import UNetConfig, unet, unet_lms
from weights import count, weightless


@pytest.mark.parametrize(
    ("config", "weights"), [(unet(3, 1), 34_527_041), (unet_lms(3, 1), 17_330_081)]
)
def test_weights_match_the_published_totals(config, weights):
    assert count(weightless(config)) == weights


def test_local_blocks_replace_four_encoder_stages_and_nothing_else():
    plain, local = weightless(unet(3, 1)), weightless(unet_lms(3, 1))
    assert count(local.decoder) == count(plain.decoder)
    assert count(local.encoder[0]) == count(plain.encoder[0])
    holders = [any(isinstance(m, LMS) for m in stage.modules()) for stage in local.encoder]
    assert holders == [False, True, True, True, True]
    assert not any(isinstance(m, LMS) for m in plain.modules())


@pytest.mark.parametrize("lms", [False, True])
@pytest.mark.parametrize("size", [(16, 48), (16, 16, 32)])
def test_maps_along_the_way(size, lms):
    network = weightless(UNetConfig(in_channels=2, num_classes=3, spatial_dims=len(size), lms=lms))
    seen = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _x, y, name=name: seen.__setitem__(name, y.shape))
    network(torch.zeros(2, 2, *size, device="meta"))
    for stage, channels in enumerate([64, 128, 256, 512, 1024]):
        assert seen[f"encoder.{stage}"] == (2, channels, *(n // 2**stage for n in size))
    for stage, channels in enumerate([512, 256, 128, 64]):
        assert seen[f"decoder.{stage}"] == (2, channels, *(n // 2 ** (3 - stage) for n in size))


@pytest.mark.parametrize("lms", [False, True])
@pytest.mark.parametrize("dims", [2, 3])
def test_small_images_train(dims, lms):
    torch.manual_seed(0)
    channels = (4, 8, 12, 16, 20)
    config = UNetConfig(in_channels=1, num_classes=2, spatial_dims=dims, channels=channels, lms=lms)
    network = config.build()
    logits = network(torch.randn(2, 1, *(9,) * dims))
    logits.square().mean().backward()
    assert logits.shape == (2, 2, *(9,) * dims)
    assert all(p.grad is not None and p.grad.any() for p in network.parameters())


def test_maps_grow_by_repeating_voxels():
    grow = unet(1, 2).build().decoder[0].up[0]
    x = torch.randn(1, 1, 2, 3)
    assert torch.equal(grow(x), x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


def test_every_fault_of_a_configuration_is_reported():
    with pytest.raises(ConfigError) as caught:
        UNetConfig(in_channels=0, num_classes=0, spatial_dims=1, channels=(2, 4, 8, 16, 32, 64))
    for field in ("in_channels", "num_classes", "spatial_dims", "channels"):
        assert f"{field} = " in str(caught.value)


def test_local_blocks_need_widths_in_quarters():
    widths = (6, 12, 24, 48, 96)
    UNetConfig(in_channels=1, num_classes=2, channels=widths)
    with pytest.raises(ConfigError, match="five multiples of 4"):
        UNetConfig(in_channels=1, num_classes=2, channels=widths, lms=True)

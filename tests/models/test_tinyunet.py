"""TinyU-Net with cascades and with local blocks: counts to the unit, cascades, structure."""

import pytest
import torch

from lamina.errors import ConfigError
from lamina.models.layers.lms import LMS
from lamina.models.tinyunet import CMRF, TinyUNetConfig, tinyunet, tinyunet_lms
from weights import count, weightless


@pytest.mark.parametrize(
    ("config", "weights"), [(tinyunet(3, 1), 481_105), (tinyunet_lms(3, 1), 690_937)]
)
def test_weights_match_the_published_totals(config, weights):
    assert count(weightless(config)) == weights


def test_local_blocks_replace_three_encoder_stages_and_nothing_else():
    plain, local = weightless(tinyunet(3, 1)), weightless(tinyunet_lms(3, 1))
    assert count(local.decoder) == count(plain.decoder)
    assert count(local.encoder[0]) == count(plain.encoder[0])
    holders = [any(isinstance(m, LMS) for m in stage.modules()) for stage in local.encoder]
    assert holders == [False, True, True, True]
    # Three stages of LMS(c) and a pointwise convolution to twice the width.
    assert [count(stage) for stage in local.encoder[1:]] == [21_664, 80_192, 307_840]


@pytest.mark.parametrize("preset", [tinyunet, tinyunet_lms])
def test_maps_along_the_way(preset):
    network = weightless(preset(2, 3))
    seen = {}
    for name, module in network.named_modules():
        module.register_forward_hook(lambda _m, _x, y, name=name: seen.__setitem__(name, y.shape))
    network(torch.zeros(2, 2, 32, 48, device="meta"))
    for stage, channels in enumerate([64, 128, 256, 512]):
        assert seen[f"encoder.{stage}"] == (2, channels, 32 // 2**stage, 48 // 2**stage)
    for stage, channels in enumerate([512, 256, 128, 64]):
        assert seen[f"decoder.{stage}"] == (2, channels, 2**2 * 2**stage, 6 * 2**stage)


def test_a_block_sees_a_sum_and_seven_ever_wider_views():
    torch.manual_seed(0)
    block = CMRF(3, 32).eval()
    views = []
    block.expand.register_forward_hook(lambda _m, inputs, _y: views.append(inputs[0]))
    x = torch.zeros(1, 3, 17, 17, requires_grad=True)
    block(x)
    (seen,) = views
    assert seen.shape == (1, 16, 17, 17)
    squeezed = block.squeeze(x)
    torch.testing.assert_close(seen[:, :2], squeezed[:, 0::2] + squeezed[:, 1::2])
    for step in range(8):
        (gradient,) = torch.autograd.grad(seen[0, 2 * step, 8, 8], x, retain_graph=True)
        reached = gradient[0].abs().sum(0) > 0
        assert int(reached.sum()) == (2 * step + 1) ** 2
        assert reached[8 - step : 9 + step, 8 - step : 9 + step].all()


def test_volumes_are_refused_with_a_reason():
    with pytest.raises(ConfigError, match="spatial_dims = 3 must be 2, for upsampling is bicubic"):
        TinyUNetConfig(in_channels=1, num_classes=2, spatial_dims=3)


def test_every_fault_of_a_configuration_is_reported():
    with pytest.raises(ConfigError) as caught:
        TinyUNetConfig(in_channels=0, num_classes=0, spatial_dims=1, channels=(64, 128, 250, 512))
    for field in ("in_channels", "num_classes", "spatial_dims", "channels"):
        assert f"{field} = " in str(caught.value)

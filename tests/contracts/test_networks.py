"""What every registered network promises, whatever its paper."""

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lamina.errors import ConfigError, UnknownNameError
from lamina.models import NETWORKS, NetworkConfig, build, configure

ODD = (37, 21, 50)


@pytest.fixture(params=list(NETWORKS))
def config(request) -> NetworkConfig:
    return configure(request.param, in_channels=2, num_classes=3)


@pytest.fixture
def network(config) -> nn.Module:
    return fresh(config).eval()


def fresh(config: NetworkConfig) -> nn.Module:
    torch.manual_seed(0)
    return config.build()


def image(config: NetworkConfig, size: tuple[int, ...] = (32, 32, 48), batch: int = 1):
    generator = torch.Generator().manual_seed(1)
    size = size[: config.spatial_dims]
    return torch.randn(batch, config.in_channels, *size, generator=generator)


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected).abs().max() / expected.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("in_channels", "num_classes", "size"), [(1, 2, ODD), (5, 7, ODD[::-1])])
def test_logits_have_the_size_of_any_image(name, in_channels, num_classes, size):
    config = configure(name, in_channels=in_channels, num_classes=num_classes)
    x = image(config, size)
    assert config.build()(x).shape == (1, num_classes, *x.shape[2:])


def test_gradients_reach_every_parameter(config):
    network = fresh(config)
    network(image(config, batch=2)).square().mean().backward()
    idle = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]
    assert idle == []


@torch.no_grad()
def test_evaluation_is_repeatable_and_ignores_the_rest_of_the_batch(config, network):
    x = image(config, batch=2)
    first = network(x)
    assert torch.equal(network(x), first)
    torch.testing.assert_close(network(x[1:]), first[1:], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_configurations_survive_json(name):
    config = configure(name, in_channels=2, num_classes=3)
    assert configure(name, **json.loads(json.dumps(asdict(config)))) == config


@torch.no_grad()
def test_weights_survive_safetensors(config, network, tmp_path):
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    restored = config.build().eval()
    restored.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(restored(image(config)), network(image(config)))


@torch.no_grad()
def test_bfloat16_autocast_stays_near_float32(config, network):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(image(config))
    assert relative_difference(half, network(image(config))) < 0.05


@torch.no_grad()
def test_channels_last_changes_nothing(config, network):
    expected = network(image(config))
    layout = torch.channels_last if config.spatial_dims == 2 else torch.channels_last_3d
    found = network.to(memory_format=layout)(image(config).to(memory_format=layout))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


@torch.no_grad()
def test_exported_graph_equals_the_network(config, network):
    x = image(config, (16, 32, 16))
    exported = torch.export.export(network, (x,)).module()
    torch.testing.assert_close(exported(x), network(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_wrong_options_are_refused_by_name(name):
    with pytest.raises(ConfigError, match="spatial_dim: unknown; did you mean spatial_dims"):
        build(name, in_channels=1, num_classes=2, spatial_dim=2)
    with pytest.raises(ConfigError, match="in_channels = 0"):
        build(name, in_channels=0, num_classes=2)


def test_an_unknown_network_gets_the_nearest_names():
    with pytest.raises(UnknownNameError, match="lightmedseg"):
        build("lightmedsec", in_channels=1, num_classes=2)

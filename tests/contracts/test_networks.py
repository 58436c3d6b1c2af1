"""What every registered network promises, whatever its paper.

Shapes are tried on the meta device, which computes nothing; the rest on one small image. Weights
are shaken first, so that nothing that starts at zero hides what stands behind it, and running
statistics are half those of the image, as if training had gone on for a while.
"""

import json
from copy import deepcopy
from dataclasses import asdict
from typing import ClassVar, get_origin, get_type_hints

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from lamina.errors import ConfigError, UnknownNameError
from lamina.models import NETWORKS, NetworkConfig, build, configure
from lamina.models.accelerate import for_inference

ODD = (37, 21, 50)


@pytest.fixture(params=list(NETWORKS), scope="module")
def config(request) -> NetworkConfig:
    return configure(request.param, in_channels=2, num_classes=3)


@pytest.fixture(scope="module")
def network(config) -> nn.Module:
    """Shared by the tests of one preset: they must leave it as it is."""
    torch.manual_seed(0)
    return settled(shaken(config.build()), image(config, batch=2)).eval()


@torch.no_grad()
def shaken(network: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    for parameter in network.parameters():
        parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return network


@torch.no_grad()
def settled(network: nn.Module, x: torch.Tensor) -> nn.Module:
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.5
    network.train()(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return network


def image(config: NetworkConfig, batch: int = 1, *, sides: tuple[int, ...] = (1, 1, 2)):
    """Return noise whose sides are these multiples of the size divisor, and at least 32 voxels."""
    unit = max(config.size_divisor, 32 // max(sides))
    size = [side * unit for side in sides[-config.spatial_dims :]]
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, config.input_channels, *size, generator=generator)


def relative_difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float() - expected).abs().max() / expected.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("in_channels", "num_classes", "size"), [(1, 2, ODD), (5, 7, ODD[::-1])])
def test_logits_have_the_size_of_any_image(name, in_channels, num_classes, size):
    for dims in (2, 3):
        options = {"in_channels": in_channels, "num_classes": num_classes, "spatial_dims": dims}
        try:
            config = configure(name, **options)
        except ConfigError:
            continue
        with torch.device("meta"):
            x = torch.zeros(2, config.input_channels, *size[:dims])
            logits = config.build().eval()(x)
        assert logits.shape == (2, num_classes, *size[:dims])


def test_gradients_reach_every_parameter_that_can_matter(config, network):
    """In training or, where batch statistics take a bias off again, in evaluation."""
    trained, x = deepcopy(network), image(config, batch=2)
    heads = as_list(trained.train()(x))
    assert [head.shape[1] for head in heads] == [3] * len(heads)
    sum(head.square().mean() for head in heads).backward()
    if idle(trained):
        trained.eval()(x).square().mean().backward()
    assert idle(trained) == []


@torch.no_grad()
def test_one_image_as_small_as_the_divisor_trains(config, network):
    x = torch.randn(1, config.input_channels, *[config.size_divisor] * config.spatial_dims)
    finest = as_list(deepcopy(network).train()(x))[0]
    assert finest.shape == (1, 3, *x.shape[2:])
    assert finest.isfinite().all()


def as_list(logits) -> list[torch.Tensor]:
    return logits if isinstance(logits, list) else [logits]


def idle(network: nn.Module) -> list[str]:
    return [
        name
        for name, parameter in network.named_parameters()
        if parameter.requires_grad and (parameter.grad is None or not parameter.grad.any())
    ]


@torch.no_grad()
def test_parameters_declared_dead_change_nothing(config, network):
    dead = [name for name, p in network.named_parameters() if not p.requires_grad]
    if not dead:
        return
    other = deepcopy(network)
    for name in dead:
        other.get_parameter(name).add_(1.0)
    x = image(config)
    assert torch.equal(other(x), network(x))


@torch.no_grad()
def test_evaluation_is_repeatable_and_ignores_the_rest_of_the_batch(config, network):
    x = image(config, batch=2)
    first = network(x)
    assert torch.equal(network(x), first)
    assert relative_difference(network(x[1:]), first[1:]) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_configurations_survive_json(name):
    config = configure(name, in_channels=2, num_classes=3)
    assert configure(name, **json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("name", NETWORKS)
def test_what_a_class_says_of_its_networks_is_asked_for(name):
    config = type(configure(name, in_channels=2, num_classes=3))
    hints = get_type_hints(config).items()
    said = {key for key, hint in hints if get_origin(hint) is ClassVar and key[0] != "_"}
    assert said <= {*dir(NetworkConfig)}


@torch.no_grad()
def test_weights_survive_safetensors(config, network, tmp_path):
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    restored = config.build().eval()
    restored.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    assert torch.equal(restored(image(config)), network(image(config)))


@torch.no_grad()
def test_bfloat16_autocast_stays_near_float32(config, network):
    """Near in direction only: untrained networks amplify rounding, above all on tiny maps."""
    x = image(config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = network(x)
    assert torch.cosine_similarity(half.float().flatten(), network(x).flatten(), dim=0) > 0.6


@torch.no_grad()
def test_channels_last_changes_nothing(config, network):
    layout = torch.channels_last if config.spatial_dims == 2 else torch.channels_last_3d
    x = image(config)
    found = deepcopy(network).to(memory_format=layout)(x.to(memory_format=layout))
    assert relative_difference(found, network(x)) < 1e-4


@torch.no_grad()
def test_the_fast_form_predicts_the_same(config, network):
    weights = deepcopy(network.state_dict())
    x = image(config, batch=2, sides=(1, 2, 1))
    found, plain = for_inference(network)(x), network(x)
    exact = deepcopy(network).double()(x.double()).float()
    # On tiny maps untrained networks amplify rounding, that of their definition, too.
    assert relative_difference(found, exact) < max(1e-4, 3 * relative_difference(plain, exact))
    assert all(torch.equal(weights[name], w) for name, w in network.state_dict().items())


@torch.no_grad()
def test_the_fast_form_in_bfloat16_stays_near_float32(config, network):
    x = image(config)
    half = for_inference(network, bfloat16=True)(x)
    assert half.dtype == torch.float32
    assert torch.cosine_similarity(half.flatten(), network(x).flatten(), dim=0) > 0.6


@torch.no_grad()
def test_exported_graph_equals_the_network(config, network):
    x = image(config, sides=(1, 2, 1))
    exported = torch.export.export(network, (x,)).module()
    assert relative_difference(exported(x), network(x)) < 1e-4


@pytest.mark.parametrize("name", NETWORKS)
def test_wrong_options_are_refused_by_name(name):
    with pytest.raises(ConfigError, match="spatial_dim: unknown; did you mean spatial_dims"):
        build(name, in_channels=1, num_classes=2, spatial_dim=2)
    with pytest.raises(ConfigError, match="in_channels = 0"):
        build(name, in_channels=0, num_classes=2)


def test_an_unknown_network_gets_the_nearest_names():
    with pytest.raises(UnknownNameError, match="lightmedseg"):
        build("lightmedsec", in_channels=1, num_classes=2)

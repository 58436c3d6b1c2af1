"""One training step: averages, gradients, random numbers."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.training.config import Optimiser
from lamina.training.schedule import Clock
from lamina.training.supervised import Supervised


def supervised(network, **settings):
    clock = Clock(max_steps=10, time_budget_s=None, started=0.0)
    return Supervised(
        network, lambda logits, target: logits.mean(), Optimiser(**settings), clock, 0
    )


def set_gradients(network, value):
    for parameter in network.parameters():
        parameter.grad = torch.full_like(parameter, value)


def gradient(network):
    return torch.cat([p.grad.flatten() for p in network.parameters()])


def test_long_gradients_are_shortened_and_short_ones_left():
    module = supervised(nn.Linear(3, 2), max_grad_norm=0.5)
    set_gradients(module.network, 7.0)
    module.configure_gradient_clipping(None)
    clipped = gradient(module.network)
    assert clipped.norm() == pytest.approx(0.5, rel=1e-4)
    assert clipped.std() < 1e-6  # the direction stays
    set_gradients(module.network, 0.01)
    module.configure_gradient_clipping(None)
    assert_close(gradient(module.network), torch.full((8,), 0.01))


def test_the_average_is_an_exponential_one_from_the_first_step_on(new_run):
    decay = 0.75
    run = new_run()
    expected, seen = [], []

    def look(network):
        weights = nn.utils.parameters_to_vector(run.network.parameters()).detach().clone()
        last = expected[-1] if expected else weights
        expected.append(decay * last + (1 - decay) * weights)
        seen.append(nn.utils.parameters_to_vector(network.parameters()).detach().clone())
        return {"dice": 0.5}

    run(optimiser=Optimiser(ema_decay=decay), steps_per_epoch=1, epochs=4, validate=look)
    assert_close(seen, expected, rtol=1e-5, atol=1e-7)


def test_without_an_average_the_plain_weights_are_validated(new_run):
    run = new_run()
    validated = []
    run(
        optimiser=Optimiser(ema_decay=0),
        validate=lambda network: validated.append(network) or {"dice": 0.5},
    )
    assert all(network is run.network for network in validated)
    assert not any(name.startswith("average") for name in run.last["state_dict"])


def test_the_memory_layout_of_volumes_changes_no_number():
    network = nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Conv3d(4, 3, 1))
    image = torch.randn(2, 2, 6, 7, 8)
    before = network(image)
    module = supervised(network)
    assert network[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert_close(module.training_step((image, None), 0), before.mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"lr": 0.0}, "lr = 0.0: must be above 0"),
        ({"lr": float("nan")}, "lr = nan: must be above 0"),
        ({"weight_decay": -1.0}, "weight_decay = -1.0"),
        ({"betas": (0.9, 1.0)}, "betas = "),
        ({"warmup": 1.0}, "warmup = 1.0"),
        ({"final_lr": 1.5}, "final_lr = 1.5"),
        ({"max_grad_norm": 0.0}, "max_grad_norm = 0.0"),
        ({"ema_decay": 1.0}, "ema_decay = 1.0"),
    ],
)
def test_impossible_settings_are_refused(settings, fault):
    with pytest.raises(ValueError, match=fault):
        Optimiser(**settings)

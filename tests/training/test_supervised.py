"""One training step: averages, gradients, and numbers that are not finite."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.errors import TrainingError
from lamina.losses import build_loss
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


def test_the_average_is_an_exponential_one_that_forgets_its_beginning_faster(new_run):
    shares = [1, 9 / 11, 9 / 12, 0.7, 0.7]  # of the newest weights, where the decay is 0.3
    run = new_run()
    expected, seen = [], []

    def look(network):
        weights = nn.utils.parameters_to_vector(run.network.parameters()).detach().clone()
        last = expected[-1] if expected else weights
        expected.append(last + shares[len(expected)] * (weights - last))
        seen.append(nn.utils.parameters_to_vector(network.parameters()).detach().clone())
        return {"dice": 0.5}

    run(optimiser=Optimiser(ema_decay=0.3), steps_per_epoch=1, epochs=5, validate=look)
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


class Faulty:
    """A loss that goes wrong at some calls."""

    def __init__(self, how, calls):
        self.loss, self.how, self.calls, self.count = build_loss("dice_ce"), how, calls, 0

    def __call__(self, logits, target):
        self.count += 1
        loss = self.loss(logits, target)
        return loss + self.how(logits) if self.count in self.calls else loss


FAULTS = {
    "nan": lambda logits: logits.sum() * float("nan"),
    "infinite, gradient finite": lambda logits: float("inf"),
    "gradient nan, loss finite": lambda logits: (logits - logits).sum().sqrt(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_step_that_is_not_finite_changes_no_weight_and_is_counted(new_run, fault):
    run = new_run(loss=Faulty(FAULTS[fault], {3}))
    seen = []

    def look(average):
        copied = [[p.detach().clone() for p in net.parameters()] for net in (run.network, average)]
        seen.append(copied)
        return {"dice": 0.5}

    run(steps_per_epoch=1, epochs=4, validate=look)
    assert_close(seen[2], seen[1], rtol=0, atol=0)
    with pytest.raises(AssertionError):
        assert_close(seen[3], seen[2], rtol=0, atol=0)
    assert [report.skipped_steps for report in run.reports] == [0, 0, 1, 1]
    assert all(torch.isfinite(p).all() for nets in seen for net in nets for p in net)
    assert all(report.loss == report.loss for report in run.reports)


def test_skipped_steps_are_remembered_by_a_resumed_run(new_run):
    run = new_run(loss=Faulty(FAULTS["nan"], {2}))
    run.crash_after(4)
    run(resume=True)
    assert [report.skipped_steps for report in run.reports] == [1, 1]


def test_numbers_that_stay_nan_end_the_run_with_advice(new_run):
    run = new_run(loss=Faulty(FAULTS["nan"], range(4, 100)))
    with pytest.raises(TrainingError, match="26 times in a row; stopped at step 28") as caught:
        run(epochs=20)
    assert "optimiser.lr" in caught.value.remedy
    assert int(run.last["state_dict"]["steps_done"]) == 28
    run.loss = build_loss("dice_ce")
    run(resume=True, epochs=10)
    assert run.state.epochs_done == 10

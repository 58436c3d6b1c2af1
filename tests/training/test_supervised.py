"""One training step: averages, gradients, and numbers that are not finite."""

import pytest
import torch
from safetensors import safe_open
from torch import nn
from torch.testing import assert_close

from lamina.errors import TrainingError
from lamina.losses import build_loss
from lamina.losses.deep_supervision import DeepSupervision
from lamina.training.checkpoints import LAST
from lamina.training.config import Optimiser, Stages
from lamina.training.number_guard import NOT_FINITE
from lamina.training.optimisers import build_optimiser
from lamina.training.schedule import Clock
from lamina.training.supervised import Supervised


def supervised(network, *, channels_last=False, **settings):
    clock = Clock(max_steps=10, time_budget_s=None, started=0.0)
    optimiser = Optimiser(**settings)
    return Supervised(
        network, lambda logits, _: logits.mean(), optimiser, clock, 0, channels_last=channels_last
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


def test_the_memory_layout_of_images_changes_no_number():
    network = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Conv2d(4, 3, 1))
    image = torch.randn(2, 2, 6, 7)
    before = network(image)
    seen = []
    network[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    for channels_last in (False, True):
        module = supervised(network, channels_last=channels_last)
        assert_close(module.training_step((image, None), 0), before.mean(), rtol=1e-5, atol=1e-6)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert seen[-1].is_contiguous(memory_format=layout)
        assert network[0].weight.is_contiguous(memory_format=layout)


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


@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_that_is_not_finite_changes_no_running_statistics(new_run, parts):
    """Of several parts, the first is the one whose numbers are damaged."""

    class Spoilt(nn.BatchNorm3d):
        calls = 0

        def forward(self, image):
            self.calls += self.training
            return super().forward(image * float("inf") if self.calls == parts + 1 else image)

    run = new_run()
    run.network = nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), Spoilt(4), nn.Conv3d(4, 3, 1))
    run(steps_per_epoch=1, epochs=4, grad_accum_steps=parts)
    assert [report.skipped_steps for report in run.reports] == [0, 1, 1, 1]
    assert all(torch.isfinite(each).all() for each in run.last["state_dict"].values())


def test_skipped_steps_are_remembered_by_a_resumed_run(new_run):
    run = new_run(loss=Faulty(FAULTS["nan"], {2}))
    run.crash_after(4)
    run(resume=True)
    assert [report.skipped_steps for report in run.reports] == [1, 1]


def test_numbers_that_stay_nan_end_the_run_with_advice(new_run):
    run = new_run(loss=Faulty(FAULTS["nan"], range(4, 100)))
    with pytest.raises(TrainingError, match="26 times in a row; stopped at step 29") as caught:
        run(epochs=20)
    assert "optimiser.lr" in caught.value.remedy
    assert f"Its patches are in {run.folder / NOT_FINITE}" in caught.value.message
    assert (run.folder / NOT_FINITE).stat().st_mode == (run.folder / LAST).stat().st_mode
    with safe_open(run.folder / NOT_FINITE, "pt") as kept:
        assert kept.metadata()["step"] == "28"
        cases = kept.metadata()["cases"].split(", ")
        patches = [run.patches[2 * 28 + slot] for slot in range(2)]
        assert torch.equal(kept.get_tensor("image"), torch.stack([image for image, _ in patches]))
        assert torch.equal(kept.get_tensor("target"), torch.stack([label for _, label in patches]))
    assert cases == [run.patches.sampler.case_for(28, slot).case_id for slot in range(2)]
    assert int(run.last["state_dict"]["steps_done"]) == 28
    run.loss = build_loss("dice_ce")
    run(resume=True, epochs=10)
    assert run.state.epochs_done == 10


class FaultyInHalf(Faulty):
    """Goes wrong where logits have half precision."""

    def __call__(self, logits, target):
        loss = self.loss(logits, target)
        self.count += 1
        return loss * float("nan") if logits.dtype == torch.bfloat16 and self.count > 2 else loss


def test_numbers_that_stay_nan_in_half_precision_are_met_with_full_precision(new_run, caplog):
    run = new_run(loss=FaultyInHalf(None, ()))
    run(precision="bf16", epochs=10)
    assert "26 times in a row; going on in fp32" in caplog.text
    assert run.reports[-1].skipped_steps == 26
    assert run.state.precision == "fp32"
    assert not (run.folder / NOT_FINITE).exists()
    assert all(loss == loss for *_, loss, _ in run.steps[28:])


def test_a_resumed_run_keeps_the_precision_that_it_fell_back_to(new_run, caplog):
    whole, run = (new_run(name, loss=FaultyInHalf(None, ())) for name in ("whole", "run"))
    whole(precision="bf16", epochs=10)
    run.crash_after(29, precision="bf16", epochs=10)
    caplog.clear()
    run(resume=True, precision="bf16", epochs=10).assert_same_bits(whole)
    assert caplog.text == ""


@pytest.mark.parametrize("kind", ["adamw", "adam", "sgd"])
def test_every_optimiser_passes_over_steps_that_are_not_finite_and_resumes(new_run, kind):
    settings = {"optimiser": Optimiser(kind=kind, lr=0.01, ema_decay=0), "epochs": 3}
    whole, run = (new_run(name, loss=Faulty(FAULTS["nan"], {2})) for name in ("whole", "run"))
    whole(**settings)
    run.crash_after(5, **settings)
    run.loss = build_loss("dice_ce")
    run(resume=True, **settings).assert_same_bits(whole)
    assert run.reports[-1].skipped_steps == 1


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Adam's first step goes lr along the gradient's sign, in which a squared penalty counts.
        ({"kind": "adamw", "weight_decay": 0.5}, [0.995 - 0.01, 0.995 + 0.01]),
        ({"kind": "adam", "weight_decay": 0.5}, [0.99, 0.99]),
        ({"kind": "adam", "weight_decay": 0.0}, [0.99, 1.01]),
        ({"kind": "sgd", "weight_decay": 0.5}, [1 - 0.01 * 0.75, 1 - 0.01 * 0.25]),
        ({"kind": "sgd", "weight_decay": 0.0, "nesterov": True}, [1 - 0.01 * 0.475, 1.00475]),
    ],
)
def test_optimisers_decay_weights_each_in_its_way(settings, expected):
    weights = nn.Parameter(torch.ones(2, dtype=torch.float64))
    optimiser = build_optimiser(Optimiser(lr=0.01, **settings), [weights], fused=False)
    weights.grad = torch.tensor([0.25, -0.25], dtype=torch.float64)
    optimiser.step()
    assert_close(weights.detach(), torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def test_gradients_can_be_left_as_long_as_they_are():
    module = supervised(nn.Linear(3, 2), max_grad_norm=None)
    set_gradients(module.network, 7.0)
    module.configure_gradient_clipping(None)
    assert_close(gradient(module.network), torch.full((8,), 7.0), rtol=0, atol=0)


def test_the_coarser_heads_fade_as_the_run_goes_on():
    """MPU-Net's: 0.4 at first, four fifths of it after each twentieth of the run."""

    class Heads(nn.Module):
        def forward(self, image):
            return [torch.ones(1, 1, 2, 2), torch.ones(1, 1, 1, 1)]

    loss = DeepSupervision(lambda logits, target: logits.sum(), (1.0, 0.4))
    clock = Clock(max_steps=600, time_budget_s=None, started=0.0)
    fade = Stages(factor=0.8, count=20)
    module = Supervised(Heads(), loss, Optimiser(ema_decay=0), clock, 0, fade=fade)
    target, image = torch.zeros(1, 2, 2), torch.zeros(1, 1, 2, 2)
    for step in (0, 29, 30, 59, 60, 599):
        module.steps_done.fill_(step)
        expected = 4 + 0.4 * 0.8 ** (step // 30)
        assert module.training_step((image, target), 0) == pytest.approx(expected), step

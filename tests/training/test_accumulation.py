"""A step seen in parts is the same step, and is never cut in two."""

import os
import signal

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.losses import build_loss
from lamina.training.config import Optimiser

PARTS = {"batch_size": 2, "grad_accum_steps": 2}


@pytest.fixture
def new_plain_run(new_run):
    """Return a function that sets up a run whose loss and network treat each patch by itself."""

    def make(name):
        run = new_run(name, loss=build_loss("dice_ce", batch=False))
        run.network[1] = nn.Identity()  # no dropout
        return run

    return make


def test_parts_give_the_gradient_of_the_whole(new_plain_run):
    settings = {"optimiser": Optimiser(kind="sgd", lr=0.1, max_grad_norm=None)}
    whole = new_plain_run("whole")(**settings)
    parts = new_plain_run("parts")(**settings, **PARTS)
    assert_close(parts.last["state_dict"], whole.last["state_dict"], rtol=1e-4, atol=1e-6)
    assert [heard[0] for heard in parts.steps] == [1, 2, 3, 4, 5, 6]
    assert_close([h[2] for h in parts.steps], [h[2] for h in whole.steps], rtol=1e-4, atol=1e-6)
    assert [report.step for report in parts.reports] == [3, 6]
    assert parts.reports[1].loss == pytest.approx(whole.reports[1].loss, rel=1e-4)


def test_each_part_has_random_numbers_of_its_own(new_run):
    seen = []

    class Look(nn.Module):
        def forward(self, x):
            if self.training:
                seen.append(torch.rand(1).item())
            return x

    run = new_run()
    run.network[1] = Look()
    run(**PARTS)
    assert len(seen) == len(set(seen)) == 12


@pytest.mark.parametrize("step", [1, 4])
def test_a_run_in_parts_resumes_to_the_same_bits(new_run, step):
    whole, run = new_run("whole")(**PARTS), new_run("run")
    run.crash_after(step, **PARTS)
    run.network = new_run(seed=5).network
    run(resume=True, **PARTS).assert_same_bits(whole)


def test_a_signal_between_two_parts_waits_for_the_second(new_run):
    """Batch statistics have seen the first part already; stopping there would count it twice."""

    class Interrupted(nn.BatchNorm3d):
        batches = 0

        def forward(self, x):
            if self.training:
                self.batches += 1
                if self.batches == 5:  # the first part of the third step
                    os.kill(os.getpid(), signal.SIGINT)
            return super().forward(x)

    def make(name, norm):
        run = new_run(name)
        run.network[1] = norm(4)
        return run

    whole, run = make("whole", nn.BatchNorm3d)(**PARTS), make("run", Interrupted)
    run(**PARTS)
    assert run.state.stopped_because == "SIGINT"
    assert int(run.last["state_dict"]["steps_done"]) == 3
    run(resume=True, **PARTS).assert_same_bits(whole)


def test_one_faulty_part_makes_the_whole_step_in_vain(new_run):
    class Faulty:
        calls = 0

        def __call__(self, logits, target):
            self.calls += 1
            loss = build_loss("dice_ce")(logits, target)
            return loss + float("inf") if self.calls == 3 else loss

    run = new_run(loss=Faulty())
    validated = []

    def look(network):
        validated.append(nn.utils.parameters_to_vector(run.network.parameters()).clone())
        return {"dice": 0.5}

    run(steps_per_epoch=1, epochs=3, validate=look, **PARTS)
    assert torch.equal(validated[0], validated[1])
    assert not torch.equal(validated[1], validated[2])
    assert [report.skipped_steps for report in run.reports] == [0, 1, 1]

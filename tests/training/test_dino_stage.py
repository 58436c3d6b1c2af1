"""Self-distillation repeats bit for bit, resumes anywhere, and notices when it collapses."""

import itertools
import math
import os
import signal
from dataclasses import asdict

import numpy as np
import pytest
import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins import MixedPrecision
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.testing import assert_close

from lamina.config import resolve
from lamina.data.cache import open_cases
from lamina.data.views import ViewDataset, Views, find_slices
from lamina.errors import ConfigError, TrainingError
from lamina.files import write_json
from lamina.models.vit import ViTConfig
from lamina.training import dino
from lamina.training.checkpoints import LAST, read_checkpoint
from lamina.training.dino import DINOReport, distil
from lamina.training.dino_config import DINOConfig
from lamina.training.distillation import Distillation

VIT = {"in_channels": 1, "token_size": 8, "image_size": 16, "width": 12, "depth": 2, "num_heads": 2}
VIEWS = Views(global_size=16, local_size=8, local_crops_number=2, tone="solarise")
TINY = {
    "views": VIEWS,
    "num_outputs": 16,
    "head_width": 8,
    "batch_size": 4,
    "epochs": 3,
    "lr": 1e-2,
    "checkpoint_every_s": 0.0,
    "collapse_patience": 0,
}


@pytest.fixture(scope="module")
def slices(tmp_path_factory):
    """Eight images of noise, two steps an epoch."""
    cache, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(0)
    for number in range(8):
        folder = cache / str(number)
        folder.mkdir()
        np.save(folder / "image.npy", rng.normal(size=(1, 20, 24)).astype(np.float32))
        np.save(folder / "label.npy", np.zeros((1, 20, 24), np.uint8))
        np.save(folder / "positions.npy", np.zeros((0, 3), np.int32))
        write_json(folder / "case.json", {"spacing": [1.0, 1.0]})
    return find_slices(open_cases(cache, tuple(map(str, range(8)))), None)


class Crash(Exception):
    """Something that goes wrong and is no error of Lamina's."""


class Run:
    def __init__(self, folder, slices):
        self.folder, self.slices, self.reports = folder, slices, {}

    def __call__(self, *, resume=False, on_step=lambda *heard: None, spoil=None, **settings):
        config = DINOConfig(**TINY | settings)
        torch.manual_seed(config.seed + 100 * resume)  # a new process starts from other weights
        self.module = Distillation(ViTConfig(**VIT).build().eval(), config)
        if spoil is not None:
            spoil(self.module)
        views = ViewDataset(
            slices=self.slices,
            views=config.views,
            batch_size=config.batch_size,
            seed=config.seed,
            mean=(self.slices.mean,),
            std=(self.slices.std,),
        )
        self.state = distil(
            self.module,
            views,
            config,
            self.folder,
            resume=resume,
            on_epoch=lambda report: self.reports.update({report.epoch: report}),
            on_step=on_step,
        )
        return self

    def crash_after(self, step, **settings):
        def crash(done, *heard):
            if done == step:
                raise Crash

        with pytest.raises(Crash):
            self(on_step=crash, **settings)

    @property
    def last(self):
        return read_checkpoint(self.folder / LAST)

    def assert_same_bits(self, other):
        for part in ("state_dict", "optimizer_states"):
            assert_close(self.last[part], other.last[part], rtol=0, atol=0)
        left, right = (
            [asdict(report) | {"elapsed_s": 0} for report in run.reports.values()]
            for run in (self, other)
        )
        assert left == right


@pytest.fixture
def new_run(tmp_path, slices):
    return lambda name: Run(tmp_path / name, slices)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, slices):
    """A run that nothing stopped."""
    return Run(tmp_path_factory.mktemp("whole"), slices)()


def test_the_same_seed_gives_the_same_bits_and_another_seed_others(new_run, whole):
    new_run("again")().assert_same_bits(whole)
    other = new_run("other")(seed=1)
    assert other.reports[0].loss != whole.reports[0].loss
    assert [report.step for report in whole.reports.values()] == [2, 4, 6]


@pytest.mark.parametrize("step", [1, 2, 3, 6])
def test_a_run_that_breaks_after_any_step_resumes_to_the_same_bits(new_run, whole, step):
    run = new_run("run")
    run.crash_after(step)
    run(resume=True).assert_same_bits(whole)


def test_small_views_and_loader_processes_resume_too(new_run):
    views = {"views": Views(**asdict(VIEWS) | {"multicrop": True})}
    run, plain = new_run("run"), new_run("plain")(**views)
    run.crash_after(3, **views)
    run(resume=True, workers=1, **views).assert_same_bits(plain)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_being_told_to_end_stops_between_two_steps(new_run, whole, number):
    original = signal.signal(number, signal.default_int_handler)

    def end(done, *heard):
        if done == 3:
            os.kill(os.getpid(), number)

    run = new_run("run")(on_step=end, checkpoint_every_s=300)
    assert (run.state.stopped_because, run.state.steps_done) == (number.name, 3)
    assert signal.signal(number, original) is signal.default_int_handler
    run(resume=True).assert_same_bits(whole)
    assert run.state.stopped_because == ""


def test_the_teacher_follows_slower_and_slower_and_learns_nothing_itself(new_run):
    run, moves = new_run("run"), []

    def weights():
        return torch.cat([p.detach().flatten() for p in run.module.teacher.parameters()])

    latest = None

    def watch(done, *heard):
        nonlocal latest
        now = weights()
        if latest is not None:
            moves.append(float((now - latest).norm()))
        latest = now

    run(on_step=watch)
    assert moves[0] > 0
    assert moves[-1] == 0  # of the last step
    assert not any(p.requires_grad for p in run.module.teacher.parameters())
    assert not run.module.teacher.training


def test_the_last_layer_waits_for_the_first_epoch_to_end(new_run):
    run, seen = new_run("run"), []
    run(on_step=lambda *_: seen.append(run.module.student.head.last_layer.weight.clone()))
    assert torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


def test_rates_follow_their_schedules(new_run):
    rates = []
    run = new_run("run")
    run(
        warmup=0.5, on_step=lambda *_: rates.append(run.last["optimizer_states"][0]["param_groups"])
    )
    first, third, last = rates[1], rates[4], run.last["optimizer_states"][0]["param_groups"]
    assert first[0]["lr"] == pytest.approx(0)
    assert third[0]["lr"] == pytest.approx(1e-2)
    assert last[0]["lr"] < 4e-3
    assert first[0]["weight_decay"] == pytest.approx(0.04)
    assert 0.3 < last[0]["weight_decay"] < 0.4
    assert last[1]["weight_decay"] == 0
    shapes = [p.ndim for p in run.module.student.parameters()]
    assert len(last[1]["params"]) == sum(ndim == 1 for ndim in shapes)


def test_measures_tell_what_teachers_and_features_do():
    config = DINOConfig(**TINY)
    module = Distillation(ViTConfig(**VIT).build(), config)
    same = torch.ones(6, 12)
    entropy, spread = module.measure(same, [torch.zeros(3, 16)] * 2)
    assert (entropy, spread) == (pytest.approx(math.log(16)), pytest.approx(0, abs=1e-6))
    sure = 10 * torch.eye(16)[:6]
    entropy, spread = module.measure(torch.randn(600, 12), [sure])
    assert entropy == pytest.approx(0, abs=1e-6)
    assert spread == pytest.approx(1, abs=0.05)
    assert module.probabilities.sum() == pytest.approx(2)


@pytest.mark.parametrize(
    ("measured", "said"),
    [
        ({}, ""),
        ({"mean_entropy": 0.01}, "nearly all slices the same output"),
        ({"entropy": 0.9999}, "every slice all outputs alike"),
        ({"feature_std": 0.001}, "features of all slices are the same"),
    ],
)
def test_a_report_says_what_has_collapsed(measured, said):
    sound = {"entropy": 0.6, "mean_entropy": 0.9, "feature_std": 0.5}
    rest = {"epoch": 0, "step": 1, "elapsed_s": 1.0, "loss": 1.0, "lr": 0.1, "kl": 0.2}
    found = DINOReport(**rest, **sound | measured).collapse
    assert said in found
    assert bool(found) == bool(said)


def test_a_teacher_less_sure_than_its_student_collapses_and_is_stopped(new_run, caplog):
    collapsing = {"teacher_temp": 1.0, "teacher_momentum": 0.5, "lr": 3e-2, "epochs": 30}
    run = new_run("run")(collapse_patience=3, **collapsing)
    assert run.state.stopped_because.startswith("collapsed: the ")
    assert run.state.collapsed_epochs == 3
    last = [report.collapse for report in run.reports.values()][-4:]
    assert not last[0]
    assert all(last[1:])
    assert any("Collapsed in epoch" in message for message in caplog.messages)
    patient = new_run("patient")(**collapsing)  # told never to stop
    assert (patient.state.stopped_because, patient.state.epochs_done) == ("", 30)


def test_a_loss_that_is_no_number_ends_the_run(new_run):
    def spoil(module):
        module.student.vit.cls_token.data.fill_(math.nan)

    with pytest.raises(TrainingError, match=r"loss is nan at step 0.*Lower lr"):
        new_run("run")(spoil=spoil)


def test_a_gradient_that_is_no_number_ends_the_run_before_it_reaches_a_weight(new_run):
    steps = itertools.count()

    def spoil(module):
        weight = module.student.vit.cls_token
        weight.register_hook(lambda gradient: gradient * (math.inf if next(steps) == 1 else 1))

    run = new_run("run")
    with pytest.raises(TrainingError, match=r"norm of the gradients is .* at step 1.*Lower lr"):
        run(spoil=spoil)
    assert all(torch.isfinite(weight).all() for weight in run.last["state_dict"].values())


def test_a_timed_run_ends_with_its_time(new_run):
    heard = []
    timed = {"epochs": None, "time_budget_s": 0.5}
    run = new_run("run")(**timed, on_step=lambda step, done, *_: heard.append(done))
    assert heard[-1] == 1
    assert run.reports
    assert run.state.stopped_because == ""


def test_wrong_settings_are_all_listed():
    wrong = {"num_outputs": 1, "lr": 0, "warmup": 1, "weight_decay": [0.04, -1]}
    with pytest.raises(ConfigError, match="4 settings are wrong") as caught:
        resolve(DINOConfig, wrong)
    for fault in (
        "num_outputs = 1: must be at least 2",
        "lr = 0: must be above 0",
        "warmup = 1: must be below 1",
        "weight_decay.1 = -1: must be at least 0",
    ):
        assert fault in caught.value.message
    with pytest.raises(ConfigError, match="set drop_path in its place"):
        resolve(DINOConfig, {"vit": {"drop_path": 0.5}})


def test_longer_gradients_are_shortened_to_the_limit(new_run):
    lengths = []

    def measure(optimizer, *given):
        weights = [p for group in optimizer.param_groups for p in group["params"]]
        lengths.append(
            float(torch.nn.utils.get_total_norm([p.grad for p in weights if p.grad is not None]))
        )

    hook = register_optimizer_step_pre_hook(measure)
    try:
        new_run("run")(max_grad_norm=1e-3)
    finally:
        hook.remove()
    assert lengths == pytest.approx([1e-3] * 6, rel=1e-3)


def test_the_scale_of_half_precision_survives_a_restart(new_run, monkeypatch):
    """On a CPU, for which neither Lamina nor Lightning offers fp16."""
    scales = []

    def with_fp16(precision, **placed):
        scaler = torch.amp.GradScaler("cpu", init_scale=1.0, growth_interval=2)
        plugin = MixedPrecision("16-mixed", "cpu", scaler)
        scales.append(scaler)
        return Fabric(plugins=plugin, **placed)

    whole, run = new_run("whole"), new_run("run")
    monkeypatch.setattr(dino, "Fabric", with_fp16)
    monkeypatch.setattr(dino, "resolve_precision", lambda *asked: "fp16")
    whole()
    run.crash_after(3)
    run(resume=True).assert_same_bits(whole)
    assert scales[0].get_scale() == scales[2].get_scale() == 2**3

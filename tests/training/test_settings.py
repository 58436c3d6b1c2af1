"""Settings of a run that make no sense are refused, all at once."""

from dataclasses import replace

import pytest

from lamina.config import nested, resolve
from lamina.data.augment import AUGMENTATIONS, Augmentation
from lamina.errors import ConfigError
from lamina.training.config import TrainConfig


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"optimiser": {"lr": 0}}, "optimiser.lr = 0: must be above 0"),
        ({"optimiser": {"lr": float("nan")}}, "optimiser.lr = nan: must be above 0"),
        ({"optimiser": {"weight_decay": -1}}, "optimiser.weight_decay = -1: must be at least 0"),
        ({"optimiser": {"betas": [0.9, 1]}}, "optimiser.betas.1 = 1: must be below 1"),
        ({"optimiser": {"final_lr": 1.5}}, "optimiser.final_lr = 1.5: must be at most 1"),
        ({"optimiser": {"stages": {"factor": 2}}}, "stages.factor = 2: must be at most 1"),
        ({"optimiser": {"stages": {"count": 0}}}, "stages.count = 0: must be above 0"),
        (
            {"optimiser": {"momentun": 0.9}},
            "optimiser.momentun: unknown; did you mean optimiser.mo",
        ),
        ({"optimiser": {"nesterov": True, "momentum": 0}}, "nesterov: needs momentum"),
        ({"optimiser": {"kind": "lion"}}, "optimiser.kind = 'lion'"),
        ({"grad_accum_steps": 3, "batch_size": 8}, "grad_accum_steps = 3: must divide batch_size"),
        ({"deep_supervision_fade": {"factor": 0.8}}, "deep_supervision_fade: needs deep_superv"),
        ({"deep_supervision": []}, r"deep_supervision = \(\): must have a number above 0"),
        ({"deep_supervision": [0, 0]}, r"deep_supervision = \(0.0, 0.0\): must have"),
        ({"deep_supervision": [-1, 2]}, "deep_supervision.0 = -1: must be at least 0"),
        ({"deep_supervision": [float("nan")]}, "deep_supervision.0 = nan: must be a finite number"),
        (
            {"deep_supervision": [1, float("inf")]},
            "deep_supervision.1 = inf: must be a finite number",
        ),
        ({"patch_size": [16, 0, 16]}, "patch_size.1 = 0: must be above 0"),
        ({"overlap": 1}, "overlap = 1: must be at most 0.9"),
        ({"seed": 2**32}, "seed = 4294967296: must be below 4294967296"),
        ({"workers": -1}, "workers = -1: must be at least 0"),
        ({"workers": 0.5}, "workers = 0.5"),
        ({"augmentation": "glimps"}, "augmentation: 'glimps' is unknown; known: default, strong"),
        ({"augmentation": {"preset": "glims", "p_blur": 2}}, "p_blur = 2.0: must be 0 to 1"),
        ({"epoch": 3}, "epoch: unknown; did you mean epochs?"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(settings, fault):
    with pytest.raises(ConfigError, match=fault):
        resolve(TrainConfig, settings)


OUTSIDE = {
    "optimiser.betas": [0.9, 1],
    "optimiser.momentum": 1,
    "optimiser.power": 0,
    "optimiser.warmup": 1,
    "optimiser.final_lr": 1.1,
    "optimiser.max_grad_norm": 0,
    "optimiser.ema_decay": 1,
    "optimiser.weight_decay": -1,
    **dict.fromkeys(["batch_size", "grad_accum_steps", "steps_per_epoch", "patience"], 0),
    **dict.fromkeys(["passes_per_epoch", "epochs", "time_budget_s", "devices", "nodes"], 0),
    "roi_size": [16, 0],
    "oversample_foreground": 1.1,
    "training_share": 0,
    "overlap": -0.1,
    "seed": -1,
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_every_setting_keeps_to_its_range(name):
    with pytest.raises(ConfigError, match=rf"1 setting is wrong:\n.*{name}.* = .*: must be "):
        resolve(TrainConfig, nested(name, OUTSIDE[name]))


def test_all_wrong_settings_are_listed():
    wrong = {
        "epoch": 3,
        "optimiser": {"lr": -1, "ema_decay": 7},
        "precision": "fp8",
        "workers": 0.5,
    }
    with pytest.raises(ConfigError, match="5 settings are wrong") as caught:
        resolve(TrainConfig, wrong)
    for fault in ("epoch: ", "lr = -1", "ema_decay = 7", "precision = ", "workers = "):
        assert fault in caught.value.message


def test_settings_that_make_sense_are_taken():
    config = resolve(TrainConfig, {"seed": 2**32 - 1, "workers": 0, "patch_size": [8, 8]})
    assert (config.seed, config.workers, config.patch_size) == (2**32 - 1, 0, (8, 8))


def test_an_augmentation_has_a_name_that_single_settings_go_on_top_of():
    named = AUGMENTATIONS["glims"]
    assert resolve(TrainConfig, {"augmentation": "glims"}).augmentation == named
    changed = replace(named, p_mirror=0.0)
    for layers in (
        [{"augmentation": {"preset": "glims", "p_mirror": 0}}],
        [{"augmentation": "glims"}, {"augmentation": {"p_mirror": 0}}],
    ):
        assert resolve(TrainConfig, *layers).augmentation == changed
    own = [{"augmentation": {"p_mirror": 0}}, {"augmentation": "glims"}]
    assert resolve(TrainConfig, *own).augmentation == named
    assert resolve(TrainConfig, {"augmentation": {"p_mirror": 0}}).augmentation == Augmentation(
        p_mirror=0.0
    )

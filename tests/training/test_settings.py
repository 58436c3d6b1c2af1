"""Settings of a run that make no sense are refused, all at once."""

from dataclasses import replace

import pytest

from lamina.config import resolve
from lamina.data.augment import AUGMENTATIONS, Augmentation
from lamina.errors import ConfigError
from lamina.training.config import TrainConfig


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"optimiser": {"lr": 0}}, "lr = 0.0: must be above 0"),
        ({"optimiser": {"lr": float("nan")}}, "lr = nan: must be above 0"),
        ({"optimiser": {"weight_decay": -1}}, "weight_decay = -1.0: must be 0 or more"),
        ({"optimiser": {"betas": [0.9, 1]}}, r"betas = \(0.9, 1.0\): must be 0 to below 1"),
        ({"optimiser": {"warmup": 1}}, "warmup = 1.0: must be 0 to below 1"),
        ({"optimiser": {"final_lr": 1.5}}, "final_lr = 1.5: must be 0 to 1"),
        ({"optimiser": {"max_grad_norm": 0}}, "max_grad_norm = 0.0: must be above 0"),
        ({"optimiser": {"ema_decay": 1}}, "ema_decay = 1.0: must be 0 to below 1"),
        (
            {"optimiser": {"momentun": 0.9}},
            "optimiser.momentun: unknown; did you mean optimiser.mo",
        ),
        ({"optimiser": {"momentum": 1}}, "momentum = 1.0: must be 0 to below 1"),
        ({"optimiser": {"nesterov": True, "momentum": 0}}, "nesterov: needs momentum"),
        ({"optimiser": {"kind": "lion"}}, "optimiser.kind = 'lion'"),
        ({"optimiser": {"schedule": "linear"}}, "optimiser.schedule = 'linear'"),
        ({"optimiser": {"power": 0}}, "power = 0.0: must be above 0"),
        ({"optimiser": {"stages": {"factor": 2}}}, "factor = 2.0: must be above 0, at most 1"),
        ({"optimiser": {"stages": {"count": 0}}}, "count = 0: must be above 0"),
        ({"grad_accum_steps": 0}, "grad_accum_steps = 0: must be above 0"),
        ({"grad_accum_steps": 3, "batch_size": 8}, "grad_accum_steps = 3: must divide batch_size"),
        ({"passes_per_epoch": 0}, "passes_per_epoch = 0.0: must be above 0"),
        ({"deep_supervision_fade": {"factor": 0.8}}, "deep_supervision_fade: needs deep_superv"),
        ({"deep_supervision": []}, r"deep_supervision = \(\): must be numbers of 0 or more"),
        ({"deep_supervision": [0, 0]}, r"= \(0.0, 0.0\): .* one of them above 0"),
        ({"deep_supervision": [-1, 2]}, r"= \(-1.0, 2.0\): must be numbers of 0 or more"),
        ({"deep_supervision": [float("nan")]}, r"= \(nan,\): must be numbers of 0 or more"),
        ({"deep_supervision": [float("inf"), 1]}, r"= \(inf, 1.0\): must be numbers"),
        ({"roi_size": [16, 0]}, r"roi_size = \(16, 0\): must be above 0"),
        ({"overlap": 1}, "overlap = 1.0: must be 0 to 0.9"),
        ({"blending": "mean"}, "blending = 'mean'"),
        ({"select_by": "hd95"}, "select_by = 'hd95'"),
        ({"balance": "voxel"}, "balance = 'voxel'"),
        ({"augmentation": "glimps"}, "augmentation: 'glimps' is unknown; known: default, strong"),
        ({"augmentation": {"preset": "glims", "p_blur": 2}}, "p_blur = 2.0: must be 0 to 1"),
        ({"epoch": 3}, "epoch: unknown; did you mean epochs?"),
        ({"epochs": 0}, "epochs = 0: must be above 0"),
        ({"batch_size": -2}, "batch_size = -2: must be above 0"),
        ({"steps_per_epoch": 0}, "steps_per_epoch = 0: must be above 0"),
        ({"time_budget_s": float("nan")}, "time_budget_s = nan: must be above 0"),
        ({"patience": 0}, "patience = 0: must be above 0"),
        ({"patch_size": [16, 0, 16]}, r"patch_size = \(16, 0, 16\): must be above 0"),
        ({"oversample_foreground": 2}, "oversample_foreground = 2.0: must be 0 to 1"),
        ({"seed": -1}, r"seed = -1: must be 0 to below 2\*\*32"),
        ({"seed": 2**32}, r"seed = 4294967296: must be 0 to below 2\*\*32"),
        ({"workers": -1}, "workers = -1: must be 0 or more"),
        ({"devices": 0}, "devices = 0: must be above 0"),
        ({"nodes": 0}, "nodes = 0: must be above 0"),
        ({"workers": 0.5}, "workers = 0.5"),
        ({"precision": "fp8"}, "precision = 'fp8'"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(settings, fault):
    with pytest.raises(ConfigError, match=fault):
        resolve(TrainConfig, settings)


def test_all_wrong_settings_are_listed():
    wrong = {
        "epoch": 3,
        "optimiser": {"lr": -1, "ema_decay": 7},
        "precision": "fp8",
        "workers": 0.5,
    }
    with pytest.raises(ConfigError, match="4 settings are wrong") as caught:
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

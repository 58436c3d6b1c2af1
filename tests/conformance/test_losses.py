"""The losses against values that the authors' code gave in float64."""

import numpy as np
import pytest
import torch

from lamina.losses import build_loss
from lamina.losses.deep_supervision import DeepSupervision, nearest

GLIMS = {"squared": True, "batch": False, "smooth": (1e-6, 0.0), "ce": "softmax"}
LEVELS = (1, 2, 3, 4)


@pytest.fixture(scope="module")
def recorded(shared):
    with np.load(shared / "specs/fixtures/loss_metrics.npz") as fixture:
        arrays = {key: fixture[key] for key in fixture if fixture[key].dtype.kind in "fub"}
    return {key: torch.from_numpy(np.asarray(array)) for key, array in arrays.items()}


def heads(recorded):
    return [recorded[f"glims/logits{level}"].double() for level in LEVELS]


def assert_same(found, expected):
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "value"),
    [
        ({}, "level_losses"),
        ({"ce_weight": 0.0}, "level1_dice_only"),
        ({"dice_weight": 0.0}, "level1_softmax_ce_only"),
        ({"dice_weight": 0.0, "ce": "binary"}, "level1_bce_alternative"),
    ],
)
def test_glims_loss_of_the_finest_head(options, value, recorded):
    loss = build_loss("region_dice_ce", **GLIMS | options)
    assert_same(
        loss(heads(recorded)[0], recorded["glims/target"]),
        recorded[f"glims/{value}"].reshape(-1)[0],
    )


def test_glims_targets_of_coarser_heads_are_the_nearest_samples(recorded):
    for level, head in zip(LEVELS, heads(recorded), strict=True):
        found = nearest(recorded["glims/target"], head.shape[2:])
        assert torch.equal(found, recorded[f"glims/target_ds{level}"])


def test_glims_loss_of_each_head_and_of_all(recorded):
    loss, target = build_loss("region_dice_ce", **GLIMS), recorded["glims/target"]
    levels = [loss(head, nearest(target, head.shape[2:])) for head in heads(recorded)]
    assert_same(torch.stack(levels), recorded["glims/level_losses"])
    assert_same(DeepSupervision(loss)(heads(recorded), target), recorded["glims/total"])


def test_lgmsnet_loss_of_images(recorded):
    loss = build_loss("region_dice_ce", ce_weight=0.5, batch=False)
    found = loss(recorded["lgms2d/logits"].double(), recorded["lgms2d/target"])
    assert_same(found, recorded["lgms2d/bce_dice"])


def test_lgmsnet_loss_of_volumes(recorded):
    loss = build_loss(
        "dice_ce", include_background=True, squared=True, batch=False, smooth=(0.0, 1e-6)
    )
    found = loss(recorded["lgms3d/logits"].double(), recorded["lgms3d/labels"][:, 0])
    assert_same(found, recorded["lgms3d/dice_ce"])

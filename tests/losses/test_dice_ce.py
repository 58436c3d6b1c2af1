"""Dice plus cross-entropy: equal to an independent implementation, steady at the edges."""

import pytest
import torch

from lamina.errors import ConfigError
from lamina.labels import IGNORE_INDEX
from lamina.losses import build_loss


def batch(classes: int = 4, size: tuple[int, ...] = (6, 5, 4)):
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(2, classes, *size, generator=generator)
    target = torch.randint(0, classes, (2, *size), generator=generator)
    return logits.requires_grad_(), target


@pytest.mark.parametrize("size", [(6, 5, 4), (9, 7)])
@pytest.mark.parametrize("include_background", [True, False])
def test_equals_monai_when_nothing_is_ignored(include_background, size):
    from monai.losses import DiceCELoss

    logits, target = batch(size=size)
    reference = DiceCELoss(
        include_background=include_background, to_onehot_y=True, softmax=True, batch=True
    )
    found = build_loss("dice_ce", include_background=include_background)(logits, target)
    torch.testing.assert_close(found, reference(logits, target.unsqueeze(1)))


@pytest.mark.parametrize("size", [(6, 5, 4), (9, 7)])
@pytest.mark.parametrize("smooth", [(1e-5, 1e-5), (0.0, 1e-6), (1.0, 2.0)])
@pytest.mark.parametrize("whole_batch", [True, False])
@pytest.mark.parametrize("squared", [True, False])
def test_settings_equal_monais(squared, whole_batch, smooth, size):
    from monai.losses import DiceCELoss

    logits, target = batch(size=size)
    reference = DiceCELoss(
        to_onehot_y=True,
        softmax=True,
        squared_pred=squared,
        batch=whole_batch,
        smooth_nr=smooth[0],
        smooth_dr=smooth[1],
        lambda_ce=0.5,
    )
    settings = {"squared": squared, "batch": whole_batch, "smooth": list(smooth), "ce_weight": 0.5}
    found = build_loss("dice_ce", include_background=True, **settings)(logits, target)
    torch.testing.assert_close(found, reference(logits, target.unsqueeze(1)))


def test_terms_are_weighted():
    logits, target = batch()
    dice = build_loss("dice_ce", ce_weight=0.0)(logits, target)
    cross_entropy = build_loss("dice_ce", dice_weight=0.0)(logits, target)
    torch.testing.assert_close(
        cross_entropy, torch.nn.functional.cross_entropy(logits, target), rtol=1e-6, atol=0
    )
    total = build_loss("dice_ce", dice_weight=2.0, ce_weight=0.5)(logits, target)
    torch.testing.assert_close(total, 2 * dice + 0.5 * cross_entropy)


def test_ignored_voxels_count_as_if_cut_away():
    logits, target = batch()
    kept = build_loss("dice_ce")(logits[..., :2], target[..., :2])
    target[..., 2:] = IGNORE_INDEX
    found = build_loss("dice_ce")(logits, target.to(torch.uint8))
    torch.testing.assert_close(found, kept)
    found.backward()
    assert logits.grad[..., :2].any()
    assert not logits.grad[..., 2:].any()


@pytest.mark.parametrize("label", [0, 2, IGNORE_INDEX])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_finite_when_classes_are_absent_or_all_is_ignored(label, scale):
    logits, target = batch()
    loss = build_loss("dice_ce")(scale * logits, torch.full_like(target, label))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert (label == IGNORE_INDEX) == (not logits.grad.any())


def test_perfect_predictions_cost_nothing_and_the_classes_may_be_fewer_than_declared():
    _, target = batch()
    target = target.clamp(max=2)
    logits = 50.0 * torch.nn.functional.one_hot(target, 4).movedim(-1, 1)
    assert build_loss("dice_ce")(logits, target) < 1e-6


def test_computes_in_float32_under_autocast():
    logits, target = batch()
    expected = build_loss("dice_ce")(logits.bfloat16().float(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = build_loss("dice_ce")(logits.bfloat16(), target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="smoth: unknown; did you mean smooth"):
        build_loss("dice_ce", smoth=1.0)

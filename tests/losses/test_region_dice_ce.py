"""Regions that overlap: equal to an independent implementation, and settled by settings."""

import pytest
import torch

from lamina.errors import ConfigError
from lamina.losses import build_loss


def batch(regions: int = 3, size: tuple[int, ...] = (6, 5, 4)):
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(2, regions, *size, generator=generator)
    return logits, torch.randint(0, 2, (2, regions, *size), generator=generator)


@pytest.mark.parametrize("size", [(6, 5, 4), (9, 7)])
@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("whole_batch", [True, False])
def test_equals_monai_when_nothing_is_ignored(whole_batch, squared, size):
    from monai.losses import DiceLoss

    logits, masks = batch(size=size)
    dice = DiceLoss(sigmoid=True, squared_pred=squared, batch=whole_batch)(logits, masks.float())
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(logits, masks.float())
    found = build_loss("region_dice_ce", squared=squared, batch=whole_batch, ce_weight=0.5)
    torch.testing.assert_close(found(logits, masks), dice + 0.5 * entropy)


def test_softmax_equals_monai_though_regions_overlap():
    from monai.losses import DiceCELoss

    logits, masks = batch()
    found = build_loss("region_dice_ce", ce="softmax", batch=False)(logits, masks)
    torch.testing.assert_close(found, DiceCELoss(sigmoid=True)(logits, masks))


def test_regions_are_judged_apart():
    logits, masks = batch()
    loss = build_loss("region_dice_ce")
    apart = [loss(logits[:, r : r + 1], masks[:, r : r + 1]) for r in range(3)]
    torch.testing.assert_close(loss(logits, masks), torch.stack(apart).mean())


def test_a_voxel_may_be_ignored_in_one_region_alone():
    logits, masks = batch()
    logits.requires_grad_()
    masks[:, 1, 2:] = 255
    build_loss("region_dice_ce")(logits, masks).backward()
    assert not logits.grad[:, 1, 2:].any()
    assert logits.grad[:, 0, 2:].all()


def test_masks_may_be_of_any_type():
    logits, masks = batch()
    loss = build_loss("region_dice_ce")
    values = [loss(logits, masks.to(kind)) for kind in (torch.bool, torch.uint8, torch.float32)]
    assert values[0] == values[1] == values[2]


def test_class_indices_in_place_of_masks_are_refused():
    logits, masks = batch()
    with pytest.raises(ValueError, match=r"target \(2, 6, 5, 4\) must have the shape of logits"):
        build_loss("region_dice_ce")(logits, masks[:, 0])


def test_an_unknown_cross_entropy_is_refused():
    with pytest.raises(ConfigError, match="ce = 'hinge'"):
        build_loss("region_dice_ce", ce="hinge")

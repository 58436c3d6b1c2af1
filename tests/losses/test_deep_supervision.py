"""Many heads, one loss."""

import pytest
import torch

from lamina.losses import build_loss
from lamina.losses.deep_supervision import DeepSupervision, nearest


def constant(value: float):
    """A head whose loss is ``value``, by the loss of :func:`first_logit`."""
    return torch.full((1, 2, 4, 4), value)


def first_logit(logits, target):
    assert target.shape == (len(logits), *logits.shape[2:])
    return logits[0, 0].flatten()[0]


TARGET = torch.zeros(1, 8, 8, dtype=torch.uint8)


def test_each_head_weighs_half_as_much_as_the_finer_one_and_all_together_one():
    heads = [constant(8.0), constant(4.0), constant(2.0)]
    found = DeepSupervision(first_logit)(heads, TARGET)
    assert float(found) == pytest.approx((8 + 4 / 2 + 2 / 4) / 1.75)


def test_given_weights_are_taken_as_they_are():
    heads = [constant(8.0), constant(4.0), constant(2.0)]
    found = DeepSupervision(first_logit, (1.0, 0.4, 0.4))(heads, TARGET)
    assert float(found) == pytest.approx(8 + 0.4 * 6)


def test_a_lone_tensor_gets_the_loss_itself():
    logits, target = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    loss = build_loss("dice_ce")
    assert DeepSupervision(loss)(logits, target) == loss(logits, target)


def test_heads_of_the_targets_size_see_the_target_itself():
    target = torch.randint(0, 3, (2, 8, 8))
    assert nearest(target, (8, 8)) is target


@pytest.mark.parametrize("side", [96, 97, 100, 50, 5, 1])
@pytest.mark.parametrize("level", [1, 2, 3, 4])
def test_a_head_is_compared_with_the_voxels_that_lie_under_its_own(side, level):
    place = torch.arange(side)[None, :, None].expand(1, side, 8)
    size = (-(-side // 2**level), -(-8 // 2**level))
    assert nearest(place, size)[0, :, 0].tolist() == list(range(0, side, 2**level))


@pytest.mark.parametrize("leading", [(2,), (2, 3)])
def test_nearest_equals_torchs_where_sizes_are_of_no_stride(leading):
    for size in [(4, 9, 5), (7, 10, 10), (16, 1, 20)]:
        target = torch.randint(0, 255, (*leading, 16, 9, 10))
        as_image = target.reshape(2, -1, 16, 9, 10).float()
        expected = torch.nn.functional.interpolate(as_image, size, mode="nearest")
        assert torch.equal(nearest(target, size), expected.reshape(*leading, *size).long())


def test_every_head_gets_a_gradient():
    heads = [torch.randn(1, 2, *[8 // 2**k] * 3, requires_grad=True) for k in range(3)]
    target = torch.randint(0, 2, (1, 8, 8, 8))
    DeepSupervision(build_loss("boundary_dice_ce"))(heads, target).backward()
    assert all(head.grad.any() for head in heads)


def test_more_heads_than_weights_are_refused():
    with pytest.raises(ValueError, match=r"weights = \(1.0,\) must be as many as the 2 heads"):
        DeepSupervision(first_logit, (1.0,))([constant(1.0)] * 2, TARGET)

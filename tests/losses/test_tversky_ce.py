"""Tversky plus cross-entropy: the sums of the specification, and steady at the edges."""

import math

import pytest
import torch
from torch.nn import functional as F

from lamina.errors import ConfigError
from lamina.labels import IGNORE_INDEX
from lamina.losses import build_loss


def batch(classes: int = 3, size: tuple[int, ...] = (6, 5, 4)):
    generator = torch.Generator().manual_seed(3)
    logits = 3 * torch.randn(2, classes, *size, generator=generator)
    target = torch.randint(0, classes, (2, *size), generator=generator)
    return logits.requires_grad_(), target


def perfect(target: torch.Tensor, classes: int) -> torch.Tensor:
    return 50.0 * F.one_hot(target, classes).movedim(-1, 1)


@pytest.mark.parametrize("ce_input", ["prob", "sigmoid_of_prob"])
@pytest.mark.parametrize(("classes", "size"), [(2, (6, 5, 4)), (4, (9, 7))])
def test_equals_its_sums_written_out(classes, size, ce_input):
    logits, target = batch(classes, size)
    logits = logits.detach().double()
    expected = 0.0
    for p, labels in zip(logits.softmax(1), target, strict=True):
        overlap, entropy = 0.0, 0.0
        for c in range(classes):
            p_c, y_c = p[c], (labels == c).double()
            tp, fp, fn = (p_c * y_c).sum(), (p_c * (1 - y_c)).sum(), ((1 - p_c) * y_c).sum()
            overlap += tp / (tp + 0.3 * fp + 0.7 * fn + 1) / classes
            q = p_c if ce_input == "prob" else p_c.sigmoid()
            entropy -= (y_c * q.log() + (1 - y_c) * (1 - q).log()).mean() / classes
        expected += (1 - overlap + entropy) / 2
    found = build_loss("tversky_ce", ce_input=ce_input)(logits, target)
    torch.testing.assert_close(found, expected)


def test_missed_voxels_cost_more_than_surplus_ones():
    target = torch.zeros(1, 10, 10, dtype=torch.int64)
    target[:, :5] = 1
    smaller, larger = target.clone(), target.clone()
    smaller[:, 4:] = 0
    larger[:, :6] = 1
    loss = build_loss("tversky_ce", ce_weight=0.0)
    tp, tn = 40, 50
    missed = loss(perfect(smaller, 2), target)
    expected = 1 - (tp / (tp + 0.7 * 10 + 1) + tn / (tn + 0.3 * 10 + 1)) / 2
    torch.testing.assert_close(missed, torch.tensor(expected))
    surplus = loss(perfect(larger, 2), target)
    expected = 1 - ((tp + 10) / (tp + 10 + 0.3 * 10 + 1) + 40 / (40 + 0.7 * 10 + 1)) / 2
    torch.testing.assert_close(surplus, torch.tensor(expected))


def test_perfect_predictions_of_large_masks_cost_next_to_nothing():
    target = torch.arange(20_000).reshape(1, 20, 20, 50) % 2
    loss = build_loss("tversky_ce")(perfect(target, 2), target)
    torch.testing.assert_close(loss, torch.tensor(1 - 10_000 / 10_001), rtol=1e-2, atol=0)


def test_probabilities_through_another_sigmoid_bound_the_cross_entropy_from_below():
    _, target = batch(2)
    options = {"alpha": 0.0, "beta": 0.0, "smooth": 1e-9, "ce_input": "sigmoid_of_prob"}
    loss = build_loss("tversky_ce", **options)(perfect(target, 2), target)
    floor = (math.log(2) + math.log(1 + math.exp(-1))) / 2
    assert round(floor, 4) == 0.5032
    torch.testing.assert_close(loss, torch.tensor(floor))


def test_logarithms_of_probabilities_are_logits():
    logits, target = batch()
    loss = build_loss("tversky_ce")
    torch.testing.assert_close(loss(logits.log_softmax(1), target), loss(logits, target))


def test_terms_are_weighted():
    logits, target = batch()
    tversky, total, doubled = (
        build_loss("tversky_ce", ce_weight=weight)(logits, target) for weight in (0.0, 1.0, 2.0)
    )
    torch.testing.assert_close(doubled - total, total - tversky)
    assert 0 < tversky < 1 < total


def test_a_batch_costs_the_mean_of_its_volumes():
    logits, target = batch()
    loss = build_loss("tversky_ce")
    alone = [loss(logits[i : i + 1], target[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(loss(logits, target), (alone[0] + alone[1]) / 2)


def test_ignored_voxels_count_as_if_cut_away():
    logits, target = batch()
    kept = build_loss("tversky_ce")(logits[..., :2], target[..., :2])
    target[..., 2:] = IGNORE_INDEX
    found = build_loss("tversky_ce")(logits, target.to(torch.uint8))
    torch.testing.assert_close(found, kept)
    found.backward()
    assert logits.grad[..., :2].any()
    assert not logits.grad[..., 2:].any()


def test_a_volume_that_is_ignored_throughout_is_left_out_of_the_mean():
    logits, target = batch()
    expected = build_loss("tversky_ce")(logits[:1], target[:1])
    target[1] = IGNORE_INDEX
    torch.testing.assert_close(build_loss("tversky_ce")(logits, target), expected)
    target[0] = IGNORE_INDEX
    assert build_loss("tversky_ce")(logits, target) == 0


@pytest.mark.parametrize("ce_input", ["prob", "sigmoid_of_prob"])
@pytest.mark.parametrize("label", [0, 2, IGNORE_INDEX])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_finite_when_classes_are_absent_or_all_is_ignored(label, scale, ce_input):
    logits, target = batch()
    loss = build_loss("tversky_ce", ce_input=ce_input)
    value = loss(scale * logits, torch.full_like(target, label))
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()
    if label == IGNORE_INDEX:
        assert not logits.grad.any()


def test_a_sure_but_wrong_answer_still_learns():
    logits = torch.tensor([[100.0, -100.0]]).reshape(1, 2, 1, 1).requires_grad_()
    build_loss("tversky_ce")(logits, torch.ones(1, 1, 1, dtype=torch.int64)).backward()
    assert logits.grad[0, 0] > 0.1
    assert logits.grad[0, 1] < -0.1


def test_computes_in_float32_under_autocast():
    logits, target = batch()
    expected = build_loss("tversky_ce")(logits.bfloat16().float(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = build_loss("tversky_ce")(logits.bfloat16(), target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_unknown_settings_are_refused():
    with pytest.raises(ConfigError, match="ce_inputs: unknown; did you mean ce_input"):
        build_loss("tversky_ce", ce_inputs="prob")
    with pytest.raises(ConfigError, match="ce_input = 'logits'"):
        build_loss("tversky_ce", ce_input="logits")

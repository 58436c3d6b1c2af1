"""The DINO loss: its equation, its centre, and who learns from it."""

from math import log

import pytest
import torch

from lamina.losses.dino import DINOLoss, teacher_momentum


def views(number: int, outputs: int = 7) -> list[torch.Tensor]:
    return [torch.randn(4, outputs, requires_grad=True) for _ in range(number)]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("local_crops", [0, 8])
def test_even_scores_cost_the_logarithm_of_their_number(local_crops):
    scores = [torch.full((4, 4096), 0.3)] * (2 + local_crops)
    assert DINOLoss(4096)(scores, scores[:2]) == pytest.approx(log(4096), rel=1e-6)


def test_two_views_cost_what_the_paper_says():
    loss = DINOLoss(7, student_temp=0.5, teacher_temp=0.2)
    loss.center = torch.randn(7)
    (s1, s2), (t1, t2) = views(2), views(2)

    def p(t):
        return torch.exp((t - loss.center) / 0.2) / torch.exp((t - loss.center) / 0.2).sum(1, True)

    def log_q(s):
        return torch.log(torch.exp(s / 0.5) / torch.exp(s / 0.5).sum(1, True))

    expected = 0.5 * (-(p(t1) * log_q(s2)).sum(1) - (p(t2) * log_q(s1)).sum(1))
    torch.testing.assert_close(loss([s1, s2], [t1, t2]), expected.mean())


@pytest.mark.parametrize("local_crops", [0, 1, 8])
def test_every_pair_of_different_views_counts_once(local_crops):
    loss, student, teacher = DINOLoss(7), views(2 + local_crops), views(2)
    pairs = [(i, j) for i in range(2) for j in range(2 + local_crops) if i != j]
    assert len(pairs) == 2 * (local_crops + 1)
    costs = []
    for i, j in pairs:
        guess = (student[j] / 0.1).log_softmax(1)
        truth = (teacher[i] / 0.04).softmax(1)
        costs.append(-(truth * guess).sum(1).mean())
    torch.testing.assert_close(loss(student, teacher), torch.stack(costs).mean())


def test_the_student_learns_and_the_teacher_does_not():
    loss, student, teacher = DINOLoss(7), views(4), views(2)
    loss(student, teacher).backward()
    assert all(scores.grad.any() for scores in student)
    assert all(scores.grad is None for scores in teacher)
    assert list(loss.parameters()) == []


def test_the_centre_moves_only_when_told_and_is_saved():
    loss, teacher = DINOLoss(7), views(2)
    loss(views(3), teacher)
    assert not loss.center.any()
    loss.center.fill_(2.0)
    loss.update_center(teacher)
    expected = 0.9 * 2.0 + 0.1 * torch.cat(teacher).mean(0)
    torch.testing.assert_close(loss.center, expected.detach())
    assert not loss.center.requires_grad
    assert torch.equal(loss.state_dict()["center"], loss.center)


def test_the_centre_takes_away_what_all_of_the_teachers_scores_share():
    loss, student, teacher = DINOLoss(7), views(2), views(2)
    expected = loss(student, teacher)
    shared = torch.randn(7)
    loss.center.copy_(shared)
    torch.testing.assert_close(loss(student, [scores + shared for scores in teacher]), expected)


def test_computes_in_float32_under_autocast():
    loss, student, teacher = DINOLoss(7), views(3), views(2)
    half = [[scores.bfloat16() for scores in side] for side in (student, teacher)]
    expected = loss(*([scores.float() for scores in side] for side in half))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(*half)
        loss.update_center(half[1])
    assert found.dtype == loss.center.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_extreme_scores_stay_finite():
    loss, student = DINOLoss(7), views(2)
    cost = loss([1e4 * scores for scores in student], [1e4 * scores for scores in views(2)])
    cost.backward()
    assert cost.isfinite()
    assert all(scores.grad.isfinite().all() for scores in student)


def test_the_teacher_keeps_ever_more_of_itself():
    shares = [teacher_momentum(step / 10) for step in range(11)]
    assert shares == sorted(shares)
    assert (shares[0], shares[-1]) == (pytest.approx(0.996), 1.0)
    assert shares[5] == pytest.approx(0.998)
    assert teacher_momentum(0.0, start=0.9995) == pytest.approx(0.9995)

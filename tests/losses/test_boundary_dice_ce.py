"""The boundary loss against a plain restatement, and its behaviour at edges."""

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation, binary_erosion
from scipy.special import expit, log_softmax

from lamina.errors import ConfigError
from lamina.losses import build_loss

E = 1e-5


def nested(size: tuple[int, ...]) -> torch.Tensor:
    """Two images of class 1 around class 2 in class 0, and no class 3."""
    labels = torch.zeros(2, *size, dtype=torch.int64)
    labels[0][tuple(slice(2, n - 2) for n in size)] = 1
    labels[0][tuple(slice(3, n - 3) for n in size)] = 2
    labels[1][tuple(slice(0, n // 2) for n in size)] = 1
    return labels


def restated(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> list[float]:
    """Dice, cross-entropy and boundary term as the paper words them, class by class."""
    log_p = log_softmax(logits, axis=1)
    box = np.ones((3,) * (labels.ndim - 1))
    dice = boundary = entropy = total = 0.0
    for c, weight in enumerate(weights):
        y, p = labels == c, np.exp(log_p[:, c])
        dice += weight * (1 - (2 * p[y].sum() + E) / (p.sum() + y.sum() + E))
        entropy += weight * -log_p[:, c][y].sum()
        total += weight * y.sum()
        band = np.stack(
            [binary_dilation(m, box) & ~binary_erosion(m, box, border_value=1) for m in y]
        )
        sigmoid = expit(logits[:, c])
        bce = -np.where(y, np.log(sigmoid), np.log1p(-sigmoid))
        boundary += weight * bce[band].sum() / (band.sum() + E)
    present = (weights > 0).sum()
    return [dice / present, entropy / total, boundary / present]


@pytest.mark.parametrize("fixed", [None, (0.2, 1.0, 5.0, 9.0)])
@pytest.mark.parametrize("size", [(10, 9, 8), (10, 9)])
def test_equals_a_plain_restatement(size, fixed):
    generator = torch.Generator().manual_seed(2)
    logits = 2 * torch.randn(2, 4, *size, generator=generator, dtype=torch.float64)
    labels = nested(size)
    counts = np.bincount(labels.flatten(), minlength=4)
    weights = (counts > 0) * (np.array(fixed) if fixed else counts.sum() / (4 * counts.clip(1)))
    weights *= (weights > 0).sum() / weights.sum()
    terms = restated(logits.numpy(), labels.numpy(), weights)
    for shares in np.eye(3):
        names = ("dice_weight", "ce_weight", "boundary_weight")
        options = dict(zip(names, map(float, shares), strict=True))
        found = build_loss("boundary_dice_ce", class_weights=fixed, **options)(logits, labels)
        assert float(found) == pytest.approx(float(shares @ terms), abs=1e-9)
    found = build_loss("boundary_dice_ce", class_weights=fixed)(logits, labels)
    assert float(found) == pytest.approx(terms[0] + terms[1] + 0.5 * terms[2], abs=1e-9)


def test_only_voxels_next_to_a_border_have_a_boundary_loss():
    labels = torch.zeros(1, 12, 12, dtype=torch.int64)
    labels[:, 6:] = 1
    logits = torch.zeros(1, 2, 12, 12, requires_grad=True)
    loss = build_loss("boundary_dice_ce", dice_weight=0.0, ce_weight=0.0)
    loss(logits, labels).backward()
    rows = logits.grad.abs().amax(dim=(0, 1, 3)).nonzero().flatten()
    assert rows.tolist() == [5, 6]


def test_the_edge_of_known_voxels_is_no_border():
    labels = torch.full((1, 8, 8, 8), 255)
    labels[:, 2:6] = 1
    loss = build_loss("boundary_dice_ce", dice_weight=0.0, ce_weight=0.0)
    assert loss(torch.randn(1, 2, 8, 8, 8), labels) == 0


def test_rare_classes_pull_as_hard_as_common_ones():
    labels = torch.zeros(1, 16, 16, dtype=torch.int64)
    labels[:, 4:6, 4:6] = 1
    logits = torch.zeros(1, 2, 16, 16, requires_grad=True)
    loss = build_loss("boundary_dice_ce", dice_weight=0.0, boundary_weight=0.0)
    loss(logits, labels).backward()
    pull = [logits.grad[:, 0][labels == c].sum().abs() for c in (0, 1)]
    torch.testing.assert_close(*pull)


def test_fixed_weights_count_by_their_proportions():
    logits, labels = torch.randn(2, 4, 10, 9), nested((10, 9))
    small, large = (
        build_loss("boundary_dice_ce", class_weights=tuple(scale * w for w in (1, 2, 3, 4)))
        for scale in (1e-6, 1e3)
    )
    torch.testing.assert_close(small(logits, labels), large(logits, labels))


@pytest.mark.parametrize("weights", [(), (0.0, 0.0), (1.0, -1.0)])
def test_weights_that_weigh_nothing_or_less_are_refused(weights):
    with pytest.raises(ConfigError, match="class_weights"):
        build_loss("boundary_dice_ce", class_weights=weights)


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 2.0), (1.0, 2.0, 3.0, 4.0, 5.0)])
def test_as_many_class_weights_as_classes_are_needed(weights):
    loss = build_loss("boundary_dice_ce", class_weights=weights)
    with pytest.raises(ConfigError, match="must be 4 numbers"):
        loss(torch.zeros(2, 4, 10, 9), nested((10, 9)))

"""What every loss of segmentation promises, whatever its paper."""

from itertools import pairwise

import pytest
import torch

from lamina.labels import IGNORE_INDEX
from lamina.losses import build_loss

SETTINGS = {
    "dice_ce": {},
    "dice_ce dai_net": {"include_background": True, "dice_weight": 0.5, "ce_weight": 0.5},
    "dice_ce lgmsnet": {
        "include_background": True,
        "squared": True,
        "batch": False,
        "smooth": (0.0, 1e-6),
    },
    "region_dice_ce": {},
    "region_dice_ce lgmsnet": {"ce_weight": 0.5, "batch": False},
    "region_dice_ce squared": {"squared": True, "batch": False},
    "region_dice_ce glims": {
        "squared": True,
        "batch": False,
        "smooth": (1e-6, 0.0),
        "ce": "softmax",
    },
    "boundary_dice_ce": {},
    "boundary_dice_ce fixed": {"class_weights": (0.1, 2.0, 1.0)},
}
SIZES = [(6, 5, 4), (9, 7)]


BY_IMAGE = [name for name, options in SETTINGS.items() if not options.get("batch", True)]


@pytest.fixture(params=SETTINGS)
def name(request):
    return request.param


@pytest.fixture
def loss(name):
    return build_loss(name.split()[0], **SETTINGS[name])


def masks(labels: torch.Tensor) -> torch.Tensor:
    """Class indices -> three regions, all of them nested but the background."""
    regions = torch.stack([labels == 0, labels >= 1, labels == 2], dim=1).to(torch.uint8)
    return regions.masked_fill((labels == IGNORE_INDEX).unsqueeze(1), IGNORE_INDEX)


def target_for(name: str, labels: torch.Tensor) -> torch.Tensor:
    return masks(labels) if name.startswith("region") else labels


def example(size=(6, 5, 4), dtype=torch.float32):
    generator = torch.Generator().manual_seed(5)
    logits = 2 * torch.randn(2, 3, *size, generator=generator, dtype=dtype)
    labels = torch.randint(0, 3, (2, *size), generator=generator)
    return logits.requires_grad_(), labels


def confident(name: str, labels: torch.Tensor) -> torch.Tensor:
    """Logits that say the labels, surely."""
    regions = name.startswith("region")
    truth = masks(labels) if regions else torch.stack([labels == c for c in range(3)], dim=1)
    return 60.0 * (2 * truth.float() - 1)


@pytest.mark.parametrize("size", SIZES)
def test_gradients_are_those_of_finite_differences(size, name, loss):
    logits, labels = example(tuple(n // 2 for n in size), torch.float64)
    labels[..., 0] = IGNORE_INDEX
    target = target_for(name, labels)
    assert torch.autograd.gradcheck(lambda x: loss(x, target), logits)


@pytest.mark.parametrize("size", SIZES)
def test_ignored_voxels_count_as_if_cut_away(size, name, loss):
    logits, labels = example(size)
    kept = loss(logits[..., :3], target_for(name, labels[..., :3]))
    labels[..., 3:] = IGNORE_INDEX
    found = loss(logits, target_for(name, labels))
    torch.testing.assert_close(found, kept)
    found.backward()
    assert logits.grad[..., :3].any()
    assert not logits.grad[..., 3:].any()


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("label", [0, 1, IGNORE_INDEX])
def test_finite_where_classes_are_absent_or_all_is_ignored(label, scale, name, loss):
    logits, labels = example()
    found = loss(scale * logits, target_for(name, torch.full_like(labels, label)))
    found.backward()
    assert found.isfinite()
    assert logits.grad.isfinite().all()
    if label == IGNORE_INDEX:
        assert found == 0
        assert not logits.grad.any()


def test_finite_for_certain_and_correct_predictions_of_absent_classes(name, loss):
    labels = torch.zeros(2, 6, 5, 4, dtype=torch.int64)
    logits = confident(name, labels).requires_grad_()
    found = loss(logits, target_for(name, labels))
    found.backward()
    assert found.isfinite()
    assert logits.grad.isfinite().all()


def test_perfect_predictions_cost_nothing(name, loss):
    if "glims" in name:
        pytest.skip("a softmax cannot be sure of two regions at once")
    _, labels = example()
    found = loss(confident(name, labels), target_for(name, labels))
    assert found.abs() < 1e-5


def test_the_order_of_the_batch_does_not_matter(name, loss):
    logits, labels = example()
    target = target_for(name, labels)
    torch.testing.assert_close(loss(logits.flip(0), target.flip(0)), loss(logits, target))


def test_missing_a_structure_never_lowers_the_loss(name, loss):
    labels = torch.zeros(1, 8, 8, 8, dtype=torch.int64)
    labels[:, 1:7, 1:7, 1:7] = 1
    labels[:, 3:5, 3:5, 3:5] = 2
    blind = labels.clamp(max=1)
    target = target_for(name, labels)
    losses = [
        loss(
            (0.1 * sure * confident(name, labels)) + 0.1 * (1 - sure) * confident(name, blind),
            target,
        )
        for sure in torch.linspace(0, 1, 5)
    ]
    assert all(better < worse for worse, better in pairwise(losses))


def test_computes_in_float32_under_autocast_and_in_float64_where_logits_are(name, loss):
    logits, labels = example()
    target = target_for(name, labels)
    expected = loss(logits.bfloat16().float(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(logits.bfloat16(), target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected)
    precise = loss(logits.double(), target)
    assert precise.dtype == torch.float64
    torch.testing.assert_close(precise.float(), loss(logits, target))


@pytest.mark.parametrize("name", BY_IMAGE)
def test_an_image_that_is_ignored_throughout_is_left_out_of_the_mean(name, loss):
    logits, labels = example()
    expected = loss(logits[:1], target_for(name, labels[:1]))
    labels[1] = IGNORE_INDEX
    torch.testing.assert_close(loss(logits, target_for(name, labels)), expected)

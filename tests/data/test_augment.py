"""Augmentation keeps image and label together, anatomy in shape, and repeats itself on demand."""

from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.data.augment import Augmentation, augment
from lamina.errors import ConfigError

NEVER = {f.name: 0.0 for f in fields(Augmentation) if f.name.startswith("p_")}
ALWAYS = dict.fromkeys(NEVER, 1.0)
SPACING = (1.0, 1.5, 3.0)
SHAPE = (48, 44, 20)  # 48 x 66 x 60 mm


def rng(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mm(shape, spacing) -> np.ndarray:
    """Place of every voxel in mm from the middle, ``(*shape, dims)``."""
    places = np.moveaxis(np.indices(shape), 0, -1)
    return (places - (np.array(shape) - 1) / 2) * spacing


def ball(centre, radius, shape=SHAPE, spacing=SPACING) -> torch.Tensor:
    away = np.linalg.norm(mm(shape, spacing) - centre, axis=-1)
    return torch.from_numpy((away < radius).astype(np.uint8))[None]


def dice(a, b) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def noise(shape=(2, 12, 10, 8), seed=0) -> torch.Tensor:
    return torch.from_numpy(rng(seed).normal(size=shape).astype(np.float32))


def labels(shape=(1, 12, 10, 8)) -> torch.Tensor:
    return torch.from_numpy(rng(1).choice(np.array([0, 3, 255], np.uint8), shape))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_shapes_types_and_label_values_are_kept(dims, seed):
    image, label = noise((2, 12, 10, 8)[: dims + 1]), labels((1, 12, 10, 8)[: dims + 1])
    before = image.clone(), label.clone()
    moved, classes = augment(
        image, label, Augmentation(**ALWAYS), SPACING[:dims], range(dims), rng(seed)
    )
    assert (moved.shape, moved.dtype) == (image.shape, torch.float32)
    assert (classes.shape, classes.dtype) == (label.shape, torch.uint8)
    assert set(classes.unique().tolist()) <= {0, 3, 255}
    assert moved.isfinite().all()
    assert not torch.equal(moved, image)
    assert torch.equal(image, before[0])
    assert torch.equal(label, before[1])


def test_the_same_generator_gives_the_same_patch():
    results = [
        augment(noise(), labels(), Augmentation(**ALWAYS), SPACING, (0, 1, 2), rng(seed))
        for seed in (5, 5, 6)
    ]
    assert all(torch.equal(a, b) for a, b in zip(results[0], results[1], strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(results[0], results[2], strict=True))


def test_without_any_probability_nothing_changes():
    image, label = augment(noise(), labels(), Augmentation(**NEVER), SPACING, (0, 1, 2), rng())
    assert torch.equal(image, noise())
    assert torch.equal(label, labels())


@pytest.mark.parametrize("name", sorted(NEVER))
def test_each_probability_switches_its_own_change(name):
    how = Augmentation(**(NEVER | {name: 1.0}))
    image, label = augment(noise(), labels(), how, SPACING, (0, 1, 2), rng())
    assert not torch.equal(image, noise())
    assert torch.equal(label, labels()) == (name not in ("p_affine", "p_mirror"))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_image_and_label_move_together(dims, seed):
    label = ball((4, -6, 5)[:dims], 12, SHAPE[:dims], SPACING[:dims])
    how = Augmentation(**(NEVER | {"p_affine": 1.0, "p_mirror": 0.5}), rotation_deg=180)
    image, moved = augment(label.float(), label, how, SPACING[:dims], range(dims), rng(seed))
    assert dice(image > 0.5, moved > 0) > 0.95
    assert dice(moved > 0, label > 0) < 0.99


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_rotations_are_those_of_real_space(dims, seed):
    """In voxels a ball on this grid is a lens; turned there, it would not stay a ball in mm."""
    spacing, shape = SPACING[-dims:], SHAPE[-dims:]
    how = Augmentation(**(NEVER | {"p_affine": 1.0}), rotation_deg=180, scale=0)
    still = ball((0,) * dims, 18, shape, spacing)
    _, turned = augment(still.float(), still, how, spacing, (), rng(seed))
    assert dice(turned > 0, still > 0) > 0.93

    aside = ball((0,) * (dims - 1) + (14,), 8, shape, spacing)
    _, turned = augment(aside.float(), aside, how, spacing, (), rng(seed))
    centre = mm(shape, spacing)[turned[0].numpy() > 0].mean(axis=0)
    assert np.linalg.norm(centre) == pytest.approx(14, abs=1)
    assert turned.sum() == pytest.approx(float(aside.sum()), rel=0.1)


def test_rotations_reach_every_direction_and_no_further_than_asked():
    aside = ball((0, 18, 0), 6)
    reached = []
    for seed in range(12):
        how = Augmentation(**(NEVER | {"p_affine": 1.0}), rotation_deg=15, scale=0)
        _, turned = augment(aside.float(), aside, how, SPACING, (), rng(seed))
        reached.append(mm(SHAPE, SPACING)[turned[0].numpy() > 0].mean(axis=0))
    spread = np.ptp(reached, axis=0)
    assert spread[0] > 3
    assert spread[2] > 3
    # Two of the three turns move this ball, by at most 15 degrees each.
    assert max(np.abs(reached)[:, (0, 2)].max(axis=0)) <= 18 * np.sin(np.deg2rad(15)) + 1


def test_zooms_reach_both_ways_and_no_further_than_asked():
    still = ball((0, 0, 0), 14)
    how = Augmentation(**(NEVER | {"p_affine": 1.0}), rotation_deg=0, scale=0.3)
    growth = []
    for seed in range(20):
        _, zoomed = augment(still.float(), still, how, SPACING, (), rng(seed))
        growth.append((float(zoomed.sum()) / float(still.sum())) ** (1 / 3))
    assert 0.68 < min(growth) < 0.85
    assert 1.15 < max(growth) < 1.32


@pytest.mark.parametrize("axes", [(), (0,), (1, 2)])
def test_only_the_given_axes_are_mirrored(axes):
    how = Augmentation(**(NEVER | {"p_mirror": 1.0}))
    image, label = augment(noise(), labels(), how, SPACING, axes, rng())
    flips = [axis + 1 for axis in axes]
    assert torch.equal(image, noise().flip(flips))
    assert torch.equal(label, labels().flip(flips))


def test_grey_values_keep_their_order_and_reach():
    how = Augmentation(**(NEVER | {"p_gamma": 1.0}))
    image, _ = augment(noise(), labels(), how, SPACING, (), rng())
    for bent, plain in zip(image, noise(), strict=True):
        order = plain.flatten().argsort()
        assert (bent.flatten()[order].diff() >= 0).all()
        assert bent.amin().item() == pytest.approx(plain.amin().item(), abs=1e-5)
        assert bent.amax().item() == pytest.approx(plain.amax().item(), abs=1e-5)
    flat, _ = augment(torch.full((1, 4, 4, 4), 2.0), labels(), how, SPACING, (), rng())
    assert flat.flatten().tolist() == pytest.approx([2.0] * 64)


def test_channels_change_brightness_each_on_its_own():
    how = Augmentation(**(NEVER | {"p_brightness": 1.0}), brightness=0.4)
    image, _ = augment(noise(), labels(), how, SPACING, (), rng())
    lines = [
        np.polyfit(plain.flatten(), bright.flatten(), 1)
        for plain, bright in zip(noise().double(), image, strict=True)
    ]
    assert not np.allclose(lines[0], lines[1], atol=1e-3)
    for slope, shift in lines:
        assert 0.6 <= slope <= 1.4
        assert -0.4 <= shift <= 0.4


def test_noise_and_blur_are_as_strong_as_asked():
    flat = torch.zeros((1, 20, 20, 20))
    how = Augmentation(**(NEVER | {"p_noise": 1.0}), noise_std=0.5)
    strengths = [
        augment(flat, labels(), how, SPACING, (), rng(seed))[0].std().item() for seed in range(9)
    ]
    assert 0 < min(strengths) < 0.2 < 0.3 < max(strengths) <= 0.51
    how = Augmentation(**(NEVER | {"p_blur": 1.0}))
    blurred, _ = augment(noise((1, 20, 20, 20)), labels(), how, SPACING, (), rng())
    assert 0.45 < blurred.std().item() < 0.6
    level, _ = augment(flat + 3, labels(), how, SPACING, (), rng())
    torch.testing.assert_close(level, flat + 3)


@settings(deadline=None)
@given(
    name=st.sampled_from([f.name for f in fields(Augmentation)]),
    value=st.sampled_from([-0.01, -3.0, 1e9, float("nan"), float("inf")]),
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=f"augmentation: {name} = .*: must be 0 to "):
        Augmentation(**{name: value})


def test_all_settings_out_of_range_are_listed():
    with pytest.raises(ConfigError, match="p_blur = 2: .*; brightness = -1: "):
        Augmentation(p_blur=2, brightness=-1)

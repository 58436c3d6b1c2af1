"""Grey values change as asked, motions are those asked for, sides know their partners."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.data.augment import (
    AUGMENTATIONS,
    NO_AUGMENTATION,
    Augmentation,
    change_intensities,
)
from lamina.data.motion import draw_motion
from lamina.data.sides import lone_sides, side_pairs
from lamina.errors import ConfigError
from lamina.labels import LabelSet

GREY = ("p_blur", "p_low_resolution", "p_noise", "p_brightness", "p_gamma")
ALWAYS = replace(NO_AUGMENTATION, **dict.fromkeys(GREY, 1.0))
SPACING = (1.0, 1.5, 3.0)


def rng(seed=0) -> np.random.Generator:
    return np.random.default_rng(seed)


def only(**changes) -> Augmentation:
    return replace(NO_AUGMENTATION, **changes)


def noise(shape=(2, 12, 10, 8), seed=0) -> torch.Tensor:
    return torch.from_numpy(rng(seed).normal(size=shape).astype(np.float32))


def motions(how, count=200, size=(12, 12, 12), spacing=(1, 1, 1), axes=(0, 1, 2)):
    return [draw_motion(how, size, spacing, axes, rng(seed)) for seed in range(count)]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_shape_and_type_are_kept_and_the_given_image_too(dims, seed):
    image = noise((2, 12, 10, 8)[: dims + 1])
    before = image.clone()
    changed = change_intensities(image, ALWAYS, rng(seed))
    assert (changed.shape, changed.dtype) == (image.shape, torch.float32)
    assert changed.isfinite().all()
    assert not torch.equal(changed, image)
    assert torch.equal(image, before)


def test_tissue_can_be_rescaled_in_every_patch():
    image = 3 + 2 * noise((3, 12, 10, 8))
    image[:, :4] = 0
    changed = change_intensities(image, only(rescale=True), rng(), untouched_channels=1)
    assert not changed[:2, :4].any()
    for channel in changed[:2, 4:]:
        assert channel.mean() == pytest.approx(0, abs=1e-5)
        assert channel.std(correction=0) == pytest.approx(1, rel=1e-5)
    assert torch.equal(changed[2], image[2])


def test_the_same_generator_makes_the_same_changes():
    first, again, other = [change_intensities(noise(), ALWAYS, rng(seed)) for seed in (5, 5, 6)]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_any_probability_nothing_changes():
    assert torch.equal(change_intensities(noise(), NO_AUGMENTATION, rng()), noise())
    for motion in motions(NO_AUGMENTATION, 20):
        assert motion.matrix is None
        assert motion.shifts is None
        assert motion.flips == ()
        assert motion.turn is None


@pytest.mark.parametrize("name", [f.name for f in fields(Augmentation) if f.name[:2] == "p_"])
def test_each_probability_switches_its_own_change(name):
    how = only(**{name: 1.0})
    assert torch.equal(change_intensities(noise(), how, rng(1)), noise()) == (name not in GREY)
    moved = {"p_affine": "matrix", "p_elastic": "shifts", "p_quarter_turn": "turn"}
    for motion in motions(how, 5):
        for switch, part in moved.items():
            assert (getattr(motion, part) is not None) == (
                switch == name or (part == "matrix" and name == "p_elastic")
            )
        assert motion.flips == ((0, 1, 2) if name == "p_mirror" else ())


def test_attention_maps_keep_their_values():
    image = noise((5, 12, 10, 8))
    changed = change_intensities(image, ALWAYS, rng(), untouched_channels=3)
    assert torch.equal(changed[2:], image[2:])
    assert torch.equal(changed[:2], change_intensities(image[:2], ALWAYS, rng()))
    assert not torch.isclose(changed[:2], image[:2]).all(dim=(1, 2, 3)).any()


def test_motions_happen_as_often_as_asked():
    drawn = motions(only(p_affine=0.2, p_elastic=0.6, p_mirror=0.4, p_quarter_turn=0.8), 1000)
    assert np.mean([m.matrix is not None for m in drawn]) == pytest.approx(0.68, abs=0.05)
    assert np.mean([m.shifts is not None for m in drawn]) == pytest.approx(0.6, abs=0.05)
    assert np.mean([m.turn is not None for m in drawn]) == pytest.approx(0.8, abs=0.05)
    for axis in range(3):
        assert np.mean([axis in m.flips for m in drawn]) == pytest.approx(0.4, abs=0.05)


def test_quarter_turns_are_made_in_square_planes_only():
    how = only(p_quarter_turn=1)
    turns = {m.turn for m in motions(how)}
    assert turns == {(k, a, b) for k in (1, 2, 3) for a, b in ((0, 1), (0, 2), (1, 2))}
    assert {m.turn[1:] for m in motions(how, size=(12, 10, 12))} == {(0, 2)}
    assert {m.turn[1:] for m in motions(how, spacing=(1, 1, 5))} == {(0, 1)}
    assert {m.turn for m in motions(how, size=(12, 10, 8))} == {None}
    slanted = 0.9999999989, 1.0000000268, 1.0000000049  # as float32 keeps a turned grid of 1 mm
    assert {m.turn[1:] for m in motions(how, spacing=slanted)} == {(0, 1), (0, 2), (1, 2)}


def test_rotations_and_zooms_reach_what_is_asked_and_no_further():
    drawn = motions(only(p_affine=1, rotation_deg=15, scale=0.3))
    zooms = [np.linalg.det(m.matrix) ** (-1 / 3) for m in drawn]
    assert 0.7 <= min(zooms) < 0.75
    assert 1.25 < max(zooms) <= 1.3
    turns = [m.matrix * zoom for m, zoom in zip(drawn, zooms, strict=True)]
    angles = [np.rad2deg(np.arccos((np.trace(turn) - 1) / 2)) for turn in turns]
    assert 15 < max(angles) <= 15 * 3**0.5 + 1e-6
    for turn in turns:
        np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-12)
    (flat,) = motions(only(p_affine=1, scale=0), 1, (12, 12), (1, 1), ())
    assert flat.matrix.shape == (2, 2)


def test_grey_values_keep_their_order_and_reach():
    how = only(p_gamma=1)
    image = change_intensities(noise(), how, rng())
    for bent, plain in zip(image, noise(), strict=True):
        order = plain.flatten().argsort()
        assert (bent.flatten()[order].diff() >= 0).all()
        assert bent.amin().item() == pytest.approx(plain.amin().item(), abs=1e-5)
        assert bent.amax().item() == pytest.approx(plain.amax().item(), abs=1e-5)
    flat = change_intensities(torch.full((1, 4, 4, 4), 2.0), how, rng())
    assert flat.flatten().tolist() == pytest.approx([2.0] * 64)


def test_channels_change_brightness_each_on_its_own():
    how = only(p_brightness=1, brightness=0.4)
    image = change_intensities(noise(), how, rng())
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
    how = only(p_noise=1, noise_std=0.5)
    strengths = [change_intensities(flat, how, rng(seed)).std().item() for seed in range(9)]
    assert 0 < min(strengths) < 0.2 < 0.3 < max(strengths) <= 0.51
    blurred = change_intensities(noise((1, 20, 20, 20)), only(p_blur=1), rng())
    assert 0.45 < blurred.std().item() < 0.6
    torch.testing.assert_close(change_intensities(flat + 3, only(p_blur=1), rng()), flat + 3)


@pytest.mark.parametrize("dims", [2, 3])
def test_low_resolution_loses_detail_and_keeps_the_rest(dims):
    how = only(p_low_resolution=1, low_resolution=0.8)
    fine = noise((1, 24, 24, 24)[: dims + 1])
    left = [change_intensities(fine, how, rng(seed)).std().item() for seed in range(12)]
    assert min(left) < 0.3 * 2 ** (3 - dims)
    assert max(left) > 2 * min(left)
    ramp = torch.linspace(0, 1, 24).expand(fine.shape)
    for seed in range(12):
        coarse = change_intensities(ramp, how, rng(seed))
        inside = (slice(None), *[slice(6, -6)] * dims)
        assert (coarse - ramp)[inside].abs().max() < 0.04
        assert coarse.mean().item() == pytest.approx(0.5, abs=1e-3)


@settings(deadline=None)
@given(
    name=st.sampled_from([f.name for f in fields(Augmentation) if f.type is float]),
    value=st.sampled_from([-0.01, -3.0, 1e9, float("nan"), float("inf")]),
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(ConfigError, match=rf"augmentation: {name} = .*: must be \d to "):
        Augmentation(**{name: value})


def test_all_settings_out_of_range_are_listed():
    with pytest.raises(ConfigError, match="p_blur = 2: .*; brightness = -1: "):
        Augmentation(p_blur=2, brightness=-1)


@pytest.mark.parametrize("axes", [(0, 0), (-1,)])
def test_mirror_axes_that_cannot_be_are_refused(axes):
    with pytest.raises(ConfigError, match="mirror_axes = .*: must be different and 0 or more"):
        Augmentation(mirror_axes=axes)


def test_bending_that_folds_tissue_is_refused():
    with pytest.raises(ConfigError, match="elastic_mm = 13: above 0.4 of elastic_grid_mm"):
        Augmentation(elastic_mm=13, elastic_grid_mm=32)


def test_published_lists_change_nothing_that_their_papers_do_not():
    published = {
        "glims",
        "lightmedseg",
        "lgmsnet_2d",
        "lgmsnet_kvasir",
        "unetr",
        "dainet",
        "mpunet",
    }
    assert set(AUGMENTATIONS) == {"default", "strong", "none", *published}
    for how in map(AUGMENTATIONS.get, published):
        assert how.p_low_resolution == 0
        assert how.p_mirror > 0
    bent = {name for name in published if AUGMENTATIONS[name].p_elastic}
    assert bent == {"lgmsnet_kvasir"}
    assert AUGMENTATIONS["mpunet"] == only(p_mirror=0.5, mirror_axes=(0, 1))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("kidney_left", "kidney_right"),
        ("Left Kidney", "right kidney"),
        ("left kidney", "Kidney_R"),
        ("LeftKidney", "RightKidney"),
        ("KidneyL", "KidneyR"),
        ("hippocampus lh", "hippocampus rh"),
        ("ren sinister", "ren dexter"),
        ("Left-Lateral-Ventricle", "Right-Lateral-Ventricle"),
    ],
)
def test_names_of_two_sides_make_a_pair(left, right):
    for names, pair in (((left, "spine", right), (1, 3)), ((right, left), (1, 2))):
        labels = LabelSet(values={name: 7 * i + 1 for i, name in enumerate(names)})
        assert side_pairs(labels) == (pair,)
        assert lone_sides(labels) == ()


@pytest.mark.parametrize(
    "names",
    [
        ("kidney_left",),
        ("kidney_left", "kidney_left_cyst", "kidney_right_tumour"),
        ("left lung", "lung left", "right lung"),
        ("left ventricle", "right ventricle"),
        ("lung_upper_lobe_left", "lung_upper_lobe_right"),
        ("left-right bridge",),
    ],
)
def test_sides_without_a_mirror_image_stay_alone(names):
    labels = LabelSet(values={name: i for i, name in enumerate((*names, "spine"), start=1)})
    assert side_pairs(labels) == ()
    assert set(lone_sides(labels)) == set(names)


def test_structures_without_a_side_have_no_partner():
    labels = LabelSet(values={"liver": 1, "L3 vertebra": 2, "LV": 3, "RV": 4})
    assert side_pairs(labels) == ()
    assert lone_sides(labels) == ()

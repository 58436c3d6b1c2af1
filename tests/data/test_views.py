"""Views are a function of seed, step and slot, and show slices as they may look."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from lamina.data.cache import open_cases
from lamina.data.plan import Normalisation
from lamina.data.views import (
    ViewDataset,
    Views,
    find_slices,
    normalised,
    side_axis,
    slice_axis,
)
from lamina.errors import ConfigError, DatasetError
from lamina.files import write_json

PLAIN = Views(global_size=16, local_size=8, p_flip=0, p_jitter=0, p_blur=(0, 0, 0), p_tone=0)
SPAN = np.linspace(-1, 3, 20 * 24, dtype=np.float32).reshape(1, 20, 24)


@pytest.fixture
def store(tmp_path):
    """Keep images as prepared cases and return these."""

    def keep(*images):
        for number, image in enumerate(images):
            folder = tmp_path / f"case{number}"
            folder.mkdir(parents=True)
            np.save(folder / "image.npy", image)
            np.save(folder / "label.npy", np.zeros((1, *image.shape[1:]), np.uint8))
            np.save(folder / "positions.npy", np.zeros((0, image.ndim), np.int32))
            write_json(folder / "case.json", {"spacing": [1.0] * (image.ndim - 1)})
        return open_cases(tmp_path, tuple(f"case{n}" for n in range(len(images))))

    return keep


@pytest.fixture
def dataset(store):
    """Five noisy images in steps of two; settings of the dataset or of its views may be changed."""
    rng = np.random.default_rng(0)
    slices = find_slices(store(*rng.normal(size=(5, 1, 20, 24)).astype(np.float32)), None)

    def make(*, seed=0, sides=None, mean=(0.0,), std=(1.0,), **views):
        return ViewDataset(
            slices=slices,
            views=replace(PLAIN, **views),
            batch_size=2,
            seed=seed,
            mean=mean,
            std=std,
            side_axis=sides,
        )

    return make


ALL = {"p_jitter": 0.8, "p_blur": (1, 0.1, 0.5), "p_tone": 0.5, "tone": "solarise", "sides": 0}


def test_views_depend_on_seed_and_number_alone(dataset):
    first, again, other = (dataset(seed=s, p_flip=0.5, **ALL) for s in (0, 0, 1))
    forwards = [first[n] for n in range(10)]
    backwards = [again[n] for n in reversed(range(10))][::-1]
    assert_close(forwards, backwards, rtol=0, atol=0)
    assert not torch.equal(forwards[3][0], other[3][0])
    assert not torch.equal(*forwards[3])


def test_every_slice_is_seen_once_a_round(dataset, monkeypatch):
    made, read = dataset(), []
    monkeypatch.setattr(
        type(made.slices), "read", lambda self, n: read.append(n) or SPAN.clip(0, 1)
    )
    for number in range(10):
        made[number]
    assert sorted(read[:5]) == sorted(read[5:]) == [0, 1, 2, 3, 4]
    assert read[:5] != read[5:]


def test_small_views_come_with_multicrop_and_large_ones_show_more_then(dataset):
    assert [len(view[0]) for view in dataset()[0]] == [16, 16]
    views = dataset(multicrop=True, local_crops_number=3)[0]
    assert [tuple(view.shape) for view in views] == [(1, 16, 16)] * 2 + [(1, 8, 8)] * 3
    assert PLAIN.large_scale == (0.14, 1)
    assert replace(PLAIN, multicrop=True).large_scale == (0.4, 1)


@pytest.mark.parametrize("axis", [0, 1])
def test_views_are_mirrored_between_left_and_right_alone(dataset, axis):
    plain, mirrored = dataset(sides=axis), dataset(sides=axis, p_flip=1)
    for number in range(3):
        for view, flipped in zip(plain[number], mirrored[number], strict=True):
            assert_close(view.flip(1 + axis), flipped, rtol=0, atol=0)
    assert_close(dataset(p_flip=1)[0], dataset(p_flip=0)[0], rtol=0, atol=0)


@pytest.mark.parametrize("tone", ["solarise", "gamma"])
def test_the_second_view_alone_changes_its_tone(dataset, tone):
    plain, toned = dataset(tone=tone)[0], dataset(tone=tone, p_tone=1)[0]
    assert torch.equal(plain[0], toned[0])
    assert not torch.equal(plain[1], toned[1])
    if tone == "solarise":
        assert_close(toned[1], torch.where(plain[1] < 0.5, plain[1], 1 - plain[1]))


def test_blur_smooths_and_every_change_stays_within_black_and_white(dataset):
    sharp, soft = dataset()[0], dataset(p_blur=(1, 0, 0), blur_sigma=(1, 2))[0]
    assert soft[0].std() < 0.8 * sharp[0].std()
    for number in range(20):
        for view in dataset(p_flip=0.5, **ALL)[number]:
            assert 0 <= view.min() < view.max() <= 1


def test_slices_of_background_are_left_out_wherever_its_grey_value_lies(store):
    """Darkest in CT, in the middle where zeros are kept, brightest in pictures on white."""
    structure = np.zeros((20, 24), np.float32)
    structure[:10, :10] = np.random.default_rng(0).normal(size=(10, 10))
    speck = np.zeros((20, 24), np.float32)
    speck[:4, :4] = structure[:4, :4]
    for background in (-5, 0, 5):
        flats = np.where(structure != 0, structure, background), np.full((20, 24), background)
        flats += (np.where(speck != 0, speck, background),)
        volume = np.stack(flats, axis=1)[None].astype(np.float32)
        (case,) = store(volume)
        slices = find_slices([case], 1)
        assert slices.places.tolist() == [[0, 0]]
        assert slices.read(0).shape == (1, 20, 24)
        for file in case.folder.iterdir():
            file.unlink()
        case.folder.rmdir()


def test_cases_without_anything_to_see_are_refused(store):
    with pytest.raises(DatasetError, match="None of 2 cases has a slice"):
        find_slices(store(np.zeros((1, 8, 8), np.float32), np.ones((1, 8, 8), np.float32)), None)


def test_mean_and_deviation_are_those_of_the_slices_between_black_and_white(store):
    slices = find_slices(store(SPAN, 100 + 50 * SPAN), None)
    pixels = np.stack([slices.read(0), slices.read(1)])
    assert (pixels.min(), pixels.max()) == (0, 1)
    assert slices.mean == pytest.approx(pixels.mean(), rel=1e-5)
    assert slices.std == pytest.approx(pixels.std(), rel=1e-5)


def test_a_transformer_gets_its_own_channels():
    two = np.stack([np.zeros((4, 4)), np.ones((4, 4))]).astype(np.float32)
    grey = normalised(two, (0.5, 0.25, 0.0), (0.5, 0.25, 0.125))
    assert grey[:, 0, 0].tolist() == [0, 1, 4]
    own = normalised(two, (0.5, 0.5), (0.5, 0.5))
    assert own[:, 0, 0].tolist() == [-1, 1]


@pytest.mark.parametrize(
    ("changes", "axis", "sides"),
    [
        ({"target_spacing": (1.0, 1.0, 1.0)}, 2, 0),
        ({"target_spacing": (1.0, 5.0, 1.0)}, 1, 0),
        ({"target_spacing": (5.0, 1.0, 1.0)}, 0, None),
        ({"slice_axis": 1, "patch_size": (8, 1, 8), "roi_size": (8, 1, 8)}, 1, 0),
        ({"orientation": "SAR", "target_spacing": (5.0, 1.0, 1.0)}, 0, 1),
        ({"spatial_dims": 2, "orientation": "AL"}, None, 1),
    ],
)
def test_slices_lie_as_the_plan_says_else_across_the_coarsest_axis(plan_with, changes, axis, sides):
    plan = plan_with(normalisation=(Normalisation(scheme="zscore"),), **changes)
    assert (slice_axis(plan), side_axis(plan)) == (axis, sides)


def test_wrong_settings_are_all_listed():
    with pytest.raises(ConfigError, match=r"scales must be .*; probabilities must be .*; jitter"):
        Views(global_scale=(0.5, 1.5), p_blur=(2, 0, 0), jitter=3)

"""Patches come in numbered order, each moved as one, and the same however they are asked for."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lamina.data.augment import NO_AUGMENTATION, Augmentation
from lamina.data.cache import PreparedCase
from lamina.data.motion import Motion, draw_motion
from lamina.data.patches import PatchDataset, StepSampler, cut, cut_moved, exchange
from lamina.data.sampling import PatchSampler, random_for
from lamina.files import write_json

SPACING = (1.0, 1.5, 3.0)
SHAPE = (48, 44, 20)  # 48 x 66 x 60 mm
WHOLE = (0, 0, 0)


@pytest.fixture(scope="module")
def patches(prepared_cases) -> PatchDataset:
    sampler = PatchSampler(
        cases=prepared_cases,
        patch_size=(12, 10, 8),
        batch_size=3,
        seed=7,
        oversample_foreground=0.5,
    )
    return PatchDataset(sampler=sampler, augmentation=Augmentation(), mirror_axes=(0, 1, 2))


@pytest.fixture
def stored(tmp_path):
    """Store an image ``(C, *S)`` and a label ``(*S)`` as preparation does."""

    def store(image, label, spacing=SPACING):
        folder = tmp_path / "case"
        folder.mkdir(exist_ok=True)
        places = [[label[tuple(place)], *place] for place in np.argwhere(label)]
        np.save(folder / "image.npy", image.astype(np.float32))
        np.save(folder / "label.npy", label.astype(np.uint8)[None])
        np.save(
            folder / "positions.npy", np.array(sorted(places), np.int32).reshape(-1, image.ndim)
        )
        write_json(folder / "case.json", {"spacing": list(spacing[: label.ndim])})
        return PreparedCase(folder)

    return store


def mm(shape, spacing) -> np.ndarray:
    """Place of every voxel in mm from the middle, ``(*shape, dims)``."""
    places = np.moveaxis(np.indices(shape), 0, -1)
    return (places - (np.array(shape) - 1) / 2) * spacing


def ball(centre, radius, shape=SHAPE, spacing=SPACING) -> np.ndarray:
    return np.linalg.norm(mm(shape, spacing) - centre, axis=-1) < radius


def dice(a, b) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def moved(case, how, seed, size=SHAPE, start=WHOLE, axes=()):
    rng = np.random.default_rng(seed)
    motion = draw_motion(how, size, case.spacing, axes, rng)
    image, label = cut_moved(case, start[: len(size)], size, motion)
    return image.numpy(), label[0].numpy()


def only(**changes) -> Augmentation:
    return replace(NO_AUGMENTATION, **changes)


def test_a_patch_is_what_torch_trains_on(patches):
    image, label = patches[4]
    assert (image.shape, image.dtype) == ((1, 12, 10, 8), torch.float32)
    assert (label.shape, label.dtype) == ((12, 10, 8), torch.uint8)


def test_a_number_means_the_same_patch_in_any_process(patches):
    elsewhere = pickle.loads(pickle.dumps(patches))
    for number in (11, 0, 7, 11):
        for here, there in zip(patches[number], elsewhere[number], strict=True):
            assert torch.equal(here, there)
    different = [patches[number][0] for number in range(10)]
    assert not any(torch.equal(a, b) for a, b in zip(different, different[1:], strict=False))


def test_a_patch_without_changes_is_a_piece_of_its_case(patches, prepared_cases):
    plain = replace(patches, augmentation=NO_AUGMENTATION)
    for number in range(6):
        image, label = plain[number]
        case = plain.sampler.case_for(*divmod(number, 3))
        margins = [(0, 0), (12, 12), (12, 12), (12, 12)]
        wide = np.pad(case.image, margins, mode="edge")[0]
        windows = np.lib.stride_tricks.sliding_window_view(wide, (12, 10, 8))
        places = np.argwhere((windows == image[0].numpy()).all(axis=(-1, -2, -3)))
        assert len(places) == 1
        wide = np.pad(case.label, margins, mode="edge")[0]
        piece = wide[tuple(slice(a, a + n) for a, n in zip(places[0], (12, 10, 8), strict=True))]
        np.testing.assert_array_equal(label, piece)


@settings(deadline=None)
@given(start=st.tuples(*[st.integers(-6, 6)] * 3), size=st.tuples(*[st.integers(7, 30)] * 3))
def test_a_cut_continues_the_case_at_its_edges(prepared_cases, start, size):
    case = prepared_cases[2]
    image, label = cut(case, start, size)
    index = np.ix_(*[np.clip(np.arange(a, a + n), 0, 15) for a, n in zip(start, size, strict=True)])
    np.testing.assert_array_equal(image[0], case.image[0][index])
    np.testing.assert_array_equal(label[0], case.label[0][index])
    assert image.flags.writeable
    assert not isinstance(image, np.memmap)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(5))
def test_image_and_label_move_together_and_keep_their_types(stored, dims, seed):
    still = ball((4, -6, 5)[:dims], 12, SHAPE[:dims], SPACING[:dims])
    case = stored(np.stack([still, ~still]), 3 * still)
    how = only(p_affine=1, rotation_deg=180, p_elastic=1, p_mirror=0.5, p_quarter_turn=0.5)
    image, label = moved(case, how, seed, SHAPE[:dims], axes=range(dims))
    assert (image.shape, image.dtype) == ((2, *SHAPE[:dims]), np.float32)
    assert (label.shape, label.dtype) == (SHAPE[:dims], np.uint8)
    assert set(np.unique(label)) == {0, 3}
    assert dice(image[0] > 0.5, label > 0) > 0.95
    np.testing.assert_allclose(image.sum(0), 1, atol=1e-5)
    assert dice(label > 0, still) < 0.99


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("seed", range(4))
def test_rotations_are_those_of_real_space(stored, dims, seed):
    """In voxels a ball on this grid is a lens; turned there, it would not stay a ball in mm."""
    spacing, shape = SPACING[-dims:], SHAPE[-dims:]
    how = only(p_affine=1, rotation_deg=180, scale=0)
    still = ball((0,) * dims, 18, shape, spacing)
    _, turned = moved(stored(still[None], still, spacing), how, seed, shape)
    assert dice(turned > 0, still) > 0.93

    aside = ball((0,) * (dims - 1) + (14,), 8, shape, spacing)
    _, turned = moved(stored(aside[None], aside, spacing), how, seed, shape)
    centre = mm(shape, spacing)[turned > 0].mean(axis=0)
    assert np.linalg.norm(centre) == pytest.approx(14, abs=1)
    assert turned.sum() == pytest.approx(float(aside.sum()), rel=0.1)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("start", [(14, 12, 10), (-3, 20, -2)])
def test_a_moved_patch_shows_what_lies_around_it(stored, dims, start):
    """An image that is linear in mm tells for each voxel where in the case it was taken."""
    shape, size, spacing = (60, 50, 40)[:dims], (20, 16, 12)[:dims], SPACING[:dims]
    places = np.moveaxis(np.indices(shape), 0, -1) * np.array(spacing)
    case = stored(np.moveaxis(places, -1, 0), np.zeros(shape))
    how = only(p_affine=1, rotation_deg=30, p_elastic=1, elastic_mm=3, elastic_grid_mm=12)
    motion = draw_motion(how, size, spacing, (), np.random.default_rng(2))
    flat = replace(motion, shifts=None)
    end = (np.array(shape) - 1) * spacing
    middle = (np.array(start[:dims]) + (np.array(size) - 1) / 2) * spacing
    expected = middle + mm(size, spacing) @ motion.matrix.T
    image, _ = cut_moved(case, start[:dims], size, flat)
    np.testing.assert_allclose(
        np.moveaxis(image.numpy(), 0, -1), np.clip(expected, 0, end), atol=1e-3
    )
    bent, _ = cut_moved(case, start[:dims], size, motion)
    shift = (np.moveaxis(bent.numpy(), 0, -1) - expected) @ np.linalg.inv(motion.matrix).T
    inside = ((np.moveaxis(bent.numpy(), 0, -1) % end) > 0).all(-1)
    assert inside.mean() > 0.4
    assert np.abs(shift[inside]).max() <= 3
    assert 0.4 < shift[inside].std() < 3


def test_bending_is_smooth_and_folds_nothing(stored):
    size = (40, 36, 20)
    places = np.moveaxis(np.indices((60, 60, 60)), 0, -1) * np.array(SPACING)
    case = stored(np.moveaxis(places, -1, 0), np.zeros((60, 60, 60)))
    how = only(p_elastic=1, elastic_mm=8, elastic_grid_mm=20)
    for seed in range(5):
        bent, _ = moved(case, how, seed, size, (10, 12, 20))
        slopes = np.array(np.gradient(bent, *SPACING, axis=(1, 2, 3)))
        volume = np.linalg.det(np.moveaxis(slopes, (0, 1), (-2, -1)))
        assert volume.min() > 0
        assert volume.std() > 0.05


def test_mirrors_and_quarter_turns_lose_no_voxel(stored):
    image = np.random.default_rng(0).normal(size=(2, 8, 8, 5))
    label = np.arange(320).reshape(8, 8, 5) % 200
    case = stored(image, label)
    motion = Motion(flips=(0, 2), turn=(1, 0, 1))
    turned, classes = cut_moved(case, WHOLE, (8, 8, 5), motion)
    wanted = np.rot90(case.image[:, ::-1, :, ::-1], 1, (1, 2))
    np.testing.assert_array_equal(turned, wanted)
    np.testing.assert_array_equal(classes, np.rot90(case.label[:, ::-1, :, ::-1], 1, (1, 2)))


def test_mirrored_sides_change_their_names(patches):
    plain = replace(patches, augmentation=NO_AUGMENTATION)
    mirrored = replace(plain, augmentation=only(p_mirror=1), side_axis=1, side_pairs=((1, 2),))
    swapped = {0: 0, 1: 2, 2: 1, 255: 255}
    seen = set()
    for number in range(12):
        label = plain[number][1]
        seen |= set(label.unique().tolist())
        across = replace(mirrored, mirror_axes=(1,))[number][1]
        assert across.flip(1).tolist() == label.clone().apply_(swapped.get).tolist()
        along = replace(mirrored, mirror_axes=(0, 2))[number][1]
        assert torch.equal(along.flip(0, 2), label)
    assert seen >= {0, 1, 2}


def test_classes_that_have_no_partner_stay():
    label = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(exchange(label, ()), label)
    moved_on = [i for i, x in enumerate(exchange(label, ((3, 7), (4, 5))).tolist()) if i != x]
    assert moved_on == [3, 4, 5, 7]


def test_attention_maps_move_with_the_image_and_keep_their_values(stored):
    image = np.random.default_rng(0).normal(size=(1, 24, 20, 12))
    case = stored(np.concatenate([image, image]), image[0] > 0)
    sampler = PatchSampler(
        cases=[case], patch_size=(12, 10, 8), batch_size=1, seed=3, oversample_foreground=0
    )
    dataset = PatchDataset(
        sampler=sampler,
        augmentation=Augmentation(p_affine=1, p_noise=1, p_gamma=1),
        mirror_axes=(0,),
        untouched_channels=1,
    )
    for number in range(5):
        rng = random_for(3, number, 0)
        _, start = sampler.place_for(number, 0, rng)
        motion = draw_motion(dataset.augmentation, (12, 10, 8), SPACING, (0,), rng)
        still, _ = cut_moved(case, start, (12, 10, 8), motion)
        both, _ = dataset[number]
        assert torch.equal(both[1], still[1])
        assert not torch.equal(both[0], still[0])


def test_a_list_may_choose_its_own_mirror_axes(patches):
    how = only(p_mirror=1, mirror_axes=(2,))
    plain = replace(patches, augmentation=NO_AUGMENTATION)[3]
    assert torch.equal(replace(patches, augmentation=how)[3][0], plain[0].flip(3))


def test_steps_go_on_where_they_stopped():
    whole = list(StepSampler(0, 9, 3))
    assert whole == [[0, 1, 2], *[[3 * s, 3 * s + 1, 3 * s + 2] for s in range(1, 9)]]
    assert [*StepSampler(0, 4, 3), *StepSampler(4, 9, 3)] == whole
    assert len(StepSampler(4, 9, 3)) == 5
    assert list(StepSampler(9, 9, 3)) == []


def test_processes_share_each_batch_in_equal_parts():
    shares = [list(StepSampler(2, 5, 6, rank=rank, count=3)) for rank in range(3)]
    joined = [sum(parts, []) for parts in zip(*shares, strict=True)]
    assert joined == list(StepSampler(2, 5, 6))
    assert {len(part) for share in shares for part in share} == {2}


def test_a_loader_gives_the_batches_of_its_steps(patches):
    loader = DataLoader(patches, batch_sampler=StepSampler(2, 4, 3))
    batches = list(loader)
    assert len(batches) == 2
    for batch, first in zip(batches, (6, 9), strict=True):
        for part in (0, 1):
            expected = torch.stack([patches[number][part] for number in range(first, first + 3)])
            assert torch.equal(batch[part], expected)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_slice_is_moved_within_its_plane_alone(stored, axis):
    """Every slice holds its own number: a patch of one slice holds one number, however moved."""
    numbers = np.broadcast_to(
        np.arange(SHAPE[axis]).reshape([-1 if a == axis else 1 for a in range(3)]), SHAPE
    )
    case = stored(numbers[None], 1 + numbers)
    size = tuple(1 if a == axis else 12 for a in range(3))
    sampler = PatchSampler(
        cases=[case], patch_size=size, batch_size=4, seed=3, oversample_foreground=0.5
    )
    how = replace(NO_AUGMENTATION, p_affine=1, p_elastic=1, p_mirror=0.5, p_quarter_turn=0.5)
    slices = PatchDataset(
        sampler=sampler, augmentation=how, mirror_axes=(0, 1), slice_axis=axis, side_axis=0
    )
    found = set()
    for number in range(24):
        image, label = slices[number]
        assert image.shape == (1, 12, 12)
        assert label.shape == (12, 12)
        assert len(label.unique()) == 1
        torch.testing.assert_close(image[0] + 1, label.float(), atol=1e-3, rtol=0)
        found.add(int(label[0, 0]))
    assert len(found) > 5


def test_labels_of_two_sides_change_places_in_a_mirrored_slice(stored):
    label = np.ones(SHAPE)
    label[: SHAPE[0] // 2] = 2
    case = stored(label[None], label)
    sampler = PatchSampler(
        cases=[case], patch_size=(48, 44, 1), batch_size=1, seed=0, oversample_foreground=0
    )
    slices = PatchDataset(
        sampler=sampler,
        augmentation=replace(NO_AUGMENTATION, p_mirror=1),
        mirror_axes=(0,),
        slice_axis=2,
        side_axis=0,
        side_pairs=((1, 2),),
    )
    image, mirrored = slices[0]
    np.testing.assert_array_equal(mirrored.numpy(), label[..., 0])
    np.testing.assert_array_equal(image[0].numpy(), label[::-1, :, 0])

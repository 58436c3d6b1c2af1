"""Patches come in numbered order, the same however they are asked for."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from lamina.data.augment import Augmentation
from lamina.data.patches import PatchDataset, StepSampler, cut
from lamina.data.sampling import PatchSampler

STILL = Augmentation(p_affine=0, p_mirror=0, p_noise=0, p_blur=0, p_brightness=0, p_gamma=0)


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


def test_a_patch_is_what_torch_trains_on(patches):
    image, label = patches[4]
    assert (image.shape, image.dtype) == ((1, 12, 10, 8), torch.float32)
    assert (label.shape, label.dtype) == ((12, 10, 8), torch.uint8)
    assert patches.spatial_dims == 3


def test_a_number_means_the_same_patch_in_any_process(patches):
    elsewhere = pickle.loads(pickle.dumps(patches))
    for number in (11, 0, 7, 11):
        for here, there in zip(patches[number], elsewhere[number], strict=True):
            assert torch.equal(here, there)
    different = [patches[number][0] for number in range(10)]
    assert not any(torch.equal(a, b) for a, b in zip(different, different[1:], strict=False))


def test_a_patch_without_changes_is_a_piece_of_its_case(patches, prepared_cases):
    plain = replace(patches, augmentation=STILL)
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


def test_steps_go_on_where_they_stopped():
    whole = list(StepSampler(0, 9, 3))
    assert whole == [[0, 1, 2], *[[3 * s, 3 * s + 1, 3 * s + 2] for s in range(1, 9)]]
    assert [*StepSampler(0, 4, 3), *StepSampler(4, 9, 3)] == whole
    assert len(StepSampler(4, 9, 3)) == 5
    assert list(StepSampler(9, 9, 3)) == []


def test_a_loader_gives_the_batches_of_its_steps(patches):
    loader = DataLoader(patches, batch_sampler=StepSampler(2, 4, 3))
    batches = list(loader)
    assert len(batches) == 2
    for batch, first in zip(batches, (6, 9), strict=True):
        for part in (0, 1):
            expected = torch.stack([patches[number][part] for number in range(first, first + 3)])
            assert torch.equal(batch[part], expected)

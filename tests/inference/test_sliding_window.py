"""The sliding window changes nothing that the network did not change, and keeps few logits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import SlidingWindowInferer

from lamina.inference.sliding_window import SlidingWindow
from lamina.inference.windows import Tiling


def window_by_window(network, image, roi_size, axis=0, rows=None, overlap=0.5, batch=1, **how):
    """Read all logits, some rows at a time; all of them at once where it is not said how many."""
    size = image.shape[1 + axis]
    tiling = Tiling(
        spatial_shape=image.shape[1:],
        roi_size=tuple(roi_size),
        overlap=overlap,
        stream_axis=axis,
        max_rows=rows or size,
        sw_batch_size=batch,
    )
    logits = SlidingWindow(network, image, tiling, **how)
    whole = [slice(0, n) for n in image.shape[1:]]
    parts = []
    for first in range(0, size, rows or size):
        whole[axis] = slice(first, min(size, first + (rows or size)))
        parts.append(logits[(slice(None), *whole)].copy())
    return np.concatenate(parts, axis=1 + axis)


def by_monai(network, image, roi_size, overlap=0.5, blending="gaussian"):
    """The same by the inferer that many use."""
    inferer = SlidingWindowInferer(roi_size, 1, overlap, blending, padding_mode="replicate")
    batch = torch.from_numpy(image)[None]
    return inferer(batch, lambda window: torch.from_numpy(network(window.numpy())))[0].numpy()


def uneven(batch):
    """Logits that depend on a voxel's neighbours and on its place in the window."""
    place = np.linspace(-1, 1, batch[0, 0].size, dtype=np.float32).reshape(batch.shape[2:])
    blurred = batch + np.roll(batch, 1, -1) * np.roll(batch, 2, 2)
    return np.concatenate([blurred[:, :1], place * batch[:, -1:], blurred[:, -1:] ** 2], axis=1)


@st.composite
def jobs(draw):
    """An image of random size, a window that may be larger than it along any axis, and rows."""
    dims = draw(st.integers(2, 3))
    sides = draw(st.lists(st.integers(1, 21 if dims == 2 else 11), min_size=dims, max_size=dims))
    windows = draw(st.lists(st.integers(1, 9), min_size=dims, max_size=dims))
    axis = draw(st.integers(0, dims - 1))
    how = {
        "overlap": draw(st.sampled_from([0.0, 0.25, 0.5, 0.7])),
        "batch": draw(st.integers(1, 5)),
        "blending": draw(st.sampled_from(["gaussian", "constant"])),
        "axis": axis,
    }
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    image = rng.normal(size=(draw(st.integers(1, 2)), *sides)).astype(np.float32)
    return image, windows, how, draw(st.integers(1, sides[axis]))


@settings(max_examples=25, deadline=None)
@given(jobs())
def test_logits_are_those_of_monai(job):
    image, roi_size, how, rows = job
    found = window_by_window(uneven, image, roi_size, rows=rows, **how)
    expected = by_monai(uneven, image, roi_size, how["overlap"], how["blending"])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(jobs())
def test_row_by_row_they_are_the_same_to_the_last_bit(job):
    image, roi_size, how, rows = job
    dense = window_by_window(uneven, image, roi_size, **how)
    np.testing.assert_array_equal(
        window_by_window(uneven, image, roi_size, rows=rows, **how), dense
    )


@settings(max_examples=10, deadline=None)
@given(jobs())
def test_several_threads_make_the_same_to_the_last_bit(job):
    image, roi_size, how, rows = job
    alone = window_by_window(uneven, image, roi_size, rows=rows, **how)
    together = window_by_window(uneven, image, roi_size, rows=rows, threads=3, **how)
    np.testing.assert_array_equal(together, alone)


@settings(max_examples=25, deadline=None)
@given(jobs())
def test_of_the_identity_is_the_identity_and_progress_ends_at_its_total(job):
    image, roi_size, how, rows = job
    calls, sizes = [], set()

    def identity(batch):
        sizes.add(batch.shape[2:])
        assert 1 <= len(batch) <= how["batch"]
        return batch

    logits = window_by_window(
        identity, image, roi_size, rows=rows, **how, progress=lambda *call: calls.append(call)
    )
    np.testing.assert_allclose(logits, image, atol=1e-5, rtol=1e-5)
    assert sizes == {tuple(roi_size)}
    counts, totals = zip(*calls, strict=True)
    assert len(set(totals)) == 1
    assert list(counts) == sorted(set(counts))
    assert counts[-1] == totals[0]


def test_no_more_windows_are_run_than_the_rows_read_lie_in():
    calls = []
    image = np.random.default_rng(0).normal(size=(1, 32, 8)).astype(np.float32)
    tiling = Tiling(
        spatial_shape=(32, 8), roi_size=(8, 8), overlap=0.5, stream_axis=0, max_rows=4,
        sw_batch_size=1,
    )  # fmt: skip
    logits = SlidingWindow(uneven, image, tiling, progress=lambda *call: calls.append(call))
    assert tiling.slab_shape == (12, 8)
    counts = []
    for first in range(0, 32, 4):
        _ = logits[:, first : first + 4, 0:8]
        counts.append(calls[-1][0])
    assert counts == [1, 2, 3, 4, 5, 6, 7, 7]
    with pytest.raises(ValueError, match="rows from 0 are asked for, those before 28 gone"):
        logits[:, 0:4, 0:8]


def test_the_slab_lies_along_the_axis_that_needs_the_least():
    def thinnest(shape, roi_size, rows=lambda axis: 4):
        return Tiling.thinnest(shape, roi_size, 0.5, rows, 1)

    assert thinnest((40, 60, 20), (16, 16, 16)).stream_axis == 1
    assert thinnest((40, 60, 20), (16, 16, 1)).stream_axis == 2
    assert thinnest((40, 40, 40), (16, 16, 16), [4, 4, 2].__getitem__).stream_axis == 2


def test_an_image_smaller_than_the_window_is_continued_at_its_edges():
    image = np.array([[[1.0, 2.0], [3.0, 4.0]]], np.float32)
    seen = []

    def look(batch):
        seen.append(batch.copy())
        return batch

    window_by_window(look, image, (4, 4))
    (window,) = seen
    assert set(np.unique(window)) == {1.0, 2.0, 3.0, 4.0}
    corners = window[0, 0][[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_windows_are_blended_towards_their_middle():
    """A network that is wrong at the border of its window is put right by the neighbours."""

    def wrong_at_the_border(batch):
        spoilt = batch.copy()
        spoilt[..., 0] = spoilt[..., -1] = 100
        return spoilt

    image = np.zeros((1, 8, 32), np.float32)
    logits = window_by_window(wrong_at_the_border, image, (8, 16))
    assert logits[..., 0].min() > 99
    assert logits[0, 4, 1:15].max() < 1


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_networks_of_any_precision_are_blended_in_single_precision(dtype):
    image = np.random.default_rng(0).normal(size=(1, 8, 8)).astype(np.float32)
    assert window_by_window(lambda x: x.astype(dtype), image, (4, 4)).dtype == np.float32


@pytest.mark.parametrize("rows", [1, 3, None])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_reach_the_network_some_at_a_time_and_return_to_their_place(axis, rows):
    image = np.random.default_rng(0).normal(size=(2, 6, 7, 9)).astype(np.float32)
    roi_size = [9, 9, 9]
    roi_size[axis] = 1
    seen = []

    def network(batch):
        seen.append(batch.shape)
        return 3 * batch

    how = {"axis": axis, "rows": rows, "batch": 2}
    logits = window_by_window(network, image, roi_size, **how, slice_axis=axis)
    np.testing.assert_allclose(logits, 3 * image, rtol=1e-6)
    assert {shape[2:] for shape in seen} == {(9, 9)}
    assert [shape[0] for shape in seen[:-1]] == [2] * (len(seen) - 1)


def test_the_network_sees_windows_of_one_value_once_and_nothing_changes():
    """Air round a body: most windows, but one look."""
    image = np.full((2, 40, 12, 12), -1, np.float32)
    image[0, 26:30] = np.random.default_rng(0).normal(size=(4, 12, 12))
    image[1, 0, 0, 0] = 0  # a single voxel of a single channel
    seen = []

    def count(batch):
        seen.extend(np.ptp(window) for window in batch)
        return uneven(batch)

    found = window_by_window(count, image, (4, 4, 4), batch=3, rows=5)
    assert seen.count(0) == 1
    assert len(seen) == 1 + 1 + 3 * 25
    np.testing.assert_allclose(found, by_monai(uneven, image, (4, 4, 4)), rtol=1e-5, atol=1e-5)

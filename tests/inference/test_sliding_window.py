"""The sliding window changes nothing that the network did not change."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.inference.sliding_window import sliding_window


@st.composite
def jobs(draw):
    """An image of random size, and a window that may be larger than it along any axis."""
    dims = draw(st.integers(2, 3))
    sides = st.lists(st.integers(1, 21 if dims == 2 else 11), min_size=dims, max_size=dims)
    windows = st.lists(st.integers(2, 9), min_size=dims, max_size=dims)
    overlap = draw(st.sampled_from([0.0, 0.25, 0.5, 0.7]))
    image = torch.rand((draw(st.integers(1, 2)), *draw(sides)))
    return image, draw(windows), overlap, draw(st.integers(1, 5))


@settings(max_examples=25, deadline=None)
@given(jobs())
def test_of_the_identity_is_the_identity_and_progress_ends_at_its_total(job):
    image, roi_size, overlap, sw_batch_size = job
    calls, sizes = [], set()

    def identity(batch):
        sizes.add(tuple(batch.shape[2:]))
        assert 1 <= batch.shape[0] <= sw_batch_size
        return batch

    logits = sliding_window(
        identity,
        image,
        roi_size,
        overlap=overlap,
        sw_batch_size=sw_batch_size,
        progress=lambda done, total: calls.append((done, total)),
    )
    torch.testing.assert_close(logits, image, atol=1e-5, rtol=1e-5)
    assert sizes == {tuple(roi_size)}
    counts, totals = zip(*calls, strict=True)
    assert len(set(totals)) == 1
    assert list(counts) == sorted(set(counts))
    assert counts[-1] == totals[0]


def test_an_image_smaller_than_the_window_is_continued_at_its_edges():
    image = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    seen = []

    def look(batch):
        seen.append(batch.clone())
        return batch

    sliding_window(look, image, (4, 4))
    (window,) = seen
    assert set(window.unique().tolist()) == {1.0, 2.0, 3.0, 4.0}
    corners = window[0, 0][[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.tolist() == [1.0, 2.0, 3.0, 4.0]


def test_the_number_of_classes_is_the_networks_own():
    image = torch.rand(1, 9, 7)
    logits = sliding_window(lambda x: torch.cat([x, 2 * x, -x], dim=1), image, (4, 4))
    torch.testing.assert_close(logits, torch.cat([image, 2 * image, -image]))


def test_windows_are_blended_towards_their_middle():
    """A network that is wrong at the border of its window is put right by the neighbours."""

    def wrong_at_the_border(batch):
        spoilt = batch.clone()
        spoilt[..., 0] = spoilt[..., -1] = 100
        return spoilt

    logits = sliding_window(wrong_at_the_border, torch.zeros(1, 8, 32), (8, 16), overlap=0.5)
    assert logits[..., 0].min() > 99
    assert logits[0, 4, 1:15].max() < 1


def test_a_half_precision_network_is_blended_in_single_precision():
    logits = sliding_window(lambda batch: batch.half(), torch.rand(1, 8, 8), (4, 4))
    assert logits.dtype == torch.float32


def test_nothing_is_kept_for_a_backward_pass():
    weight = torch.ones((), requires_grad=True)
    assert not sliding_window(lambda x: weight * x, torch.rand(1, 8, 8), (4, 4)).requires_grad


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_windows_of_volumes_lie_channels_last(spatial_dims):
    """Twice as fast on a CPU; the network gets them so whatever the image lies like."""
    layouts = []

    def look(batch):
        last = torch.channels_last_3d if batch.ndim == 5 else torch.channels_last
        layouts.append(batch.is_contiguous(memory_format=last))
        return batch

    sliding_window(look, torch.rand(3, *[8] * spatial_dims), [4] * spatial_dims)
    assert all(layouts) is (spatial_dims == 3)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_reach_the_network_one_by_one_and_return_to_their_place(axis):
    image = torch.rand(2, 6, 7, 9)
    roi_size = [4, 4, 4]
    roi_size[axis] = 1
    seen = []

    def network(batch):
        seen.append(batch.shape[2:])
        return 3 * batch

    logits = sliding_window(network, image, roi_size, slice_axis=axis)
    torch.testing.assert_close(logits, 3 * image)
    assert set(seen) == {(4, 4)}

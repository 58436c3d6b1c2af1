"""Resampling in blocks gives what SciPy gives for the whole scan at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lamina.data import resampling
from lamina.data.resampling import axis_weights, blocks, weighted

lengths = st.tuples(st.integers(1, 30), st.floats(0.4, 3), st.integers(1, 30))


def resample(array, axes, order):
    weights = [axis_weights(*axis, order) for axis in axes]
    out = np.full([count for _, _, count in axes], np.nan, np.float32)
    for target, source, parts in blocks(weights):
        assert np.isnan(out[target]).all()
        out[target] = weighted(array[source], parts)
    return out


@pytest.mark.parametrize("order", [1, 3])
@given(axes=st.lists(lengths, min_size=2, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_blocks_give_what_the_whole_gives(order, axes, seed):
    sizes, steps, counts = map(np.array, zip(*axes, strict=True))
    array = np.random.default_rng(seed).normal(0, 300, sizes).astype(np.float32)
    sigma = np.maximum(0, (steps - 1) / 2)
    smooth = ndimage.gaussian_filter(array.astype(np.float64), sigma, mode="nearest")
    offset = (sizes - 1) / 2 - steps * (counts - 1) / 2
    expected = ndimage.affine_transform(
        smooth, steps, offset, tuple(counts), order=order, mode="nearest"
    )
    whole = resample(array, axes, order)
    np.testing.assert_allclose(whole, expected, atol=1e-2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(resampling, "_BLOCK_VOXELS", 60)
        np.testing.assert_allclose(resample(array, axes, order), whole, atol=2e-3)


@given(axes=st.lists(lengths, min_size=2, max_size=3), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_channels_are_resampled_together_as_each_by_itself(axes, seed):
    weights = [axis_weights(*axis, 1) for axis in axes]
    sizes = [size for size, _, _ in axes]
    channels = np.random.default_rng(seed).normal(size=(3, *sizes)).astype(np.float32)
    apart = np.stack([weighted(channel, weights) for channel in channels])
    np.testing.assert_allclose(weighted(channels, weights), apart, rtol=1e-5, atol=1e-6)


def test_a_grid_that_stays_is_left_alone():
    np.testing.assert_array_equal(axis_weights(40, 1.0, 40, 3), np.eye(40, dtype=np.float32))

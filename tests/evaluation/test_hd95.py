"""HD95 against hand-worked distances, a distance transform and MONAI."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import distance_transform_edt

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics.hd95 import hd95


def hd95_of(prediction, reference, spacing):
    return hd95(Comparison(prediction, reference, spacing))


def voxels(*positions, shape=(12, 12, 12)):
    mask = np.zeros(shape, bool)
    mask[tuple(np.transpose(positions))] = True
    return mask


def by_distance_transform(prediction, reference, spacing):
    """Measure every surface voxel's distance in a map of distances; slow and plain."""
    surfaces = []
    for mask in (prediction, reference):
        padded = np.pad(mask, 1)
        inner = padded.copy()
        for axis in range(mask.ndim):
            inner &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
        surfaces.append(padded & ~inner)
    first, second = surfaces
    return max(
        np.percentile(distance_transform_edt(~there, sampling=spacing)[here], 95)
        for here, there in ((first, second), (second, first))
    )


def test_of_two_voxels_is_their_distance_in_millimetres():
    first, second = voxels((1, 1, 1)), voxels((4, 3, 2))
    assert hd95_of(first, second, (1.0, 1.0, 1.0)) == pytest.approx(np.sqrt(9 + 4 + 1))
    assert hd95_of(first, second, (1.0, 2.0, 12.0)) == pytest.approx(13.0)


def test_takes_the_worse_direction():
    near, both = voxels((0, 0, 0)), voxels((0, 0, 0), (0, 0, 9))
    # From the pair, half of the distances are 0 and half 9: the 95th percentile lies at 0.95 * 9.
    assert hd95_of(near, both, (1, 1, 1)) == pytest.approx(9 * 0.95)
    assert hd95_of(both, near, (1, 1, 1)) == pytest.approx(9 * 0.95)


def test_forgives_a_twentieth_of_the_surface():
    line = voxels(*((0, 0, k) for k in range(40)), shape=(3, 60, 40))
    speck = line | voxels((2, 50, 0), shape=(3, 60, 40))
    assert hd95_of(speck, line, (1, 1, 1)) == 0
    half = line & (np.arange(40) < 20)
    assert hd95_of(half, line, (1, 1, 1)) == pytest.approx(18.05)


def test_inner_voxels_are_no_surface():
    solid = np.zeros((9, 9, 9), bool)
    solid[1:8, 1:8, 1:8] = True
    hollow = solid.copy()
    hollow[2:7, 2:7, 2:7] = False
    core = voxels((4, 4, 4), shape=(9, 9, 9))
    assert hd95_of(solid, core, (1, 1, 1)) == hd95_of(hollow, core, (1, 1, 1))


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    share=st.sampled_from([0.02, 0.2, 0.9]),
    shape=st.sampled_from([(9, 8), (6, 7, 5), (1, 12, 9)]),
    spacing=st.tuples(*[st.floats(0.2, 5)] * 3),
)
def test_agrees_with_a_distance_transform_and_scales_with_spacing(seed, share, shape, spacing):
    rng = np.random.default_rng(seed)
    prediction, reference = rng.random((2, *shape)) < share
    prediction[(0,) * len(shape)] = reference[(-1,) * len(shape)] = True
    spacing = spacing[: len(shape)]
    value = hd95_of(prediction, reference, spacing)
    assert value == pytest.approx(by_distance_transform(prediction, reference, spacing))
    doubled = tuple(2 * mm for mm in spacing)
    assert hd95_of(prediction, reference, doubled) == pytest.approx(2 * value)


def test_is_the_number_of_monai():
    import torch
    from monai.metrics.hausdorff_distance import compute_hausdorff_distance

    grid = np.indices((24, 24, 24)) - 12
    centred = (np.square(grid).sum(axis=0) <= 64) | (grid[2] > 9)
    shifted = np.roll(centred, (2, -1, 3), axis=(0, 1, 2))
    spacing = (1.5, 1.0, 0.8)
    batch = [torch.from_numpy(mask)[None, None] for mask in (centred, shifted)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = compute_hausdorff_distance(
            *batch, include_background=True, percentile=95, spacing=spacing
        )
    assert hd95_of(centred, shifted, spacing) == pytest.approx(float(theirs), rel=1e-5)

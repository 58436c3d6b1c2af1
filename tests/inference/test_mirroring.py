"""Mirror images are seen along the planned axes, and sides of the body keep their names."""

import numpy as np
import pytest

from lamina.data.plan import Normalisation, Plan
from lamina.inference.mirroring import Mirrored, mirrored
from lamina.labels import LabelSet

SIDES = LabelSet(values={"left kidney": 1, "liver": 2, "right kidney": 3})
BATCH = np.random.default_rng(0).normal(size=(2, 1, 6, 5, 4)).astype(np.float32)


def plan(labels=SIDES, mirror_axes=(0,), orientation="RAS", **changes):
    fields = {
        "spatial_dims": 3,
        "channels": ("CT",),
        "labels": labels,
        "orientation": orientation,
        "target_spacing": (1.0,) * 3,
        "normalisation": (Normalisation(scheme="zscore"),),
        "network": "lightmedseg",
        "patch_size": (8,) * 3,
        "roi_size": (8,) * 3,
        "batch_size": 1,
        "mirror_axes": mirror_axes,
        "epochs": 1,
        "steps_per_epoch": 1,
    }
    return Plan(**fields | changes)


def lopsided(batch):
    """Finds the left kidney on the left of a window and the right one on its right."""
    x = batch[:, 0]
    there = np.broadcast_to(np.linspace(1, -1, x.shape[1])[None, :, None, None], x.shape)
    return np.stack([0 * x, x + 3 * there, x, x - 3 * there], axis=1)


def test_sides_change_names_in_a_mirror():
    """What is told of a scan and of its mirror image is the same: the mean is either."""
    found = mirrored(lopsided, plan())(BATCH)
    np.testing.assert_allclose(found, lopsided(BATCH), rtol=1e-5, atol=1e-5)


def test_without_sides_the_mean_of_all_images_is_taken():
    def corner(batch):
        mark = np.zeros_like(batch)
        mark[:, :, 0, 0, 0] = 8
        return mark

    balls = LabelSet(values={"ball": 1})
    found = mirrored(corner, plan(balls, (0, 2)))(BATCH)
    assert np.count_nonzero(found) == 2 * 4
    np.testing.assert_array_equal(found[:, :, ::5, 0, ::3], 2)


@pytest.mark.parametrize("slice_axis", [None, 2])
def test_a_symmetric_network_finds_the_same(slice_axis):
    roi = (8, 8, 8) if slice_axis is None else (8, 8, 1)
    how = plan(
        LabelSet(values={"ball": 1}), (0, 1), slice_axis=slice_axis, patch_size=roi, roi_size=roi
    )
    batch = BATCH if slice_axis is None else BATCH[..., 0]
    np.testing.assert_allclose(mirrored(lambda x: 2 * x, how)(batch), 2 * batch, rtol=1e-6)


def test_axes_are_those_that_the_network_sees():
    """Across slices nothing is mirrored; the axis from side to side is found wherever it runs."""
    roi = (1, 8, 8)
    how = plan(orientation="SAL", mirror_axes=(2,), slice_axis=0, patch_size=roi, roi_size=roi)
    network = mirrored(lopsided, how)
    assert isinstance(network, Mirrored)
    assert network.side_axis == 1
    calls = []
    Mirrored(lambda x: calls.append(x.copy()) or x, (1,))(BATCH[..., 0])
    np.testing.assert_array_equal(calls[1], calls[0][..., ::-1])


def test_regions_follow_their_structures():
    regions = {
        "left": ("left kidney",),
        "all": ("left kidney", "liver", "right kidney"),
        "right": ("right kidney",),
    }
    labels = LabelSet(values=SIDES.values, regions=regions)

    def regional(batch):
        return lopsided(batch)[:, 1:]

    found = mirrored(regional, plan(labels, region_based=True))(BATCH)
    np.testing.assert_allclose(found, regional(BATCH), rtol=1e-5, atol=1e-5)


def test_a_region_without_a_mirror_image_is_not_mirrored():
    labels = LabelSet(
        values={"left kidney": 1, "right kidney": 3},
        regions={"left": ("left kidney",), "all": ("left kidney", "right kidney")},
    )
    assert mirrored(lopsided, plan(labels, region_based=True)) is lopsided


def test_no_axis_no_change():
    assert mirrored(lopsided, plan(mirror_axes=())) is lopsided

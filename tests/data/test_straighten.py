"""Slanted scans are refused, or resampled to right angles, and label maps come back exactly."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lamina.data.straighten import Straightening, straightened, way_upright
from lamina.errors import GeometryError
from lamina.geometry import affine_from, corners, is_sheared
from lamina.volume import Volume

SHAPE = (52, 48, 30)
LEANS = {
    "gantry tilt": ((1, 1, 2), (0, np.tan(np.radians(20)), 1)),
    "thin slices": ((0.9, 0.9, 0.7), (0, -0.25, 1)),
    "both ways": ((1, 1.2, 2), (0.3, -0.2, 1)),
}


def slanted(spacing, lean, turn=(0, 0, 0), order=(0, 1, 2), shape=SHAPE) -> Volume:
    """A ball of 9 mm in the middle of a grid whose third axis leans; array axes in any order."""
    axes = np.diag(spacing).astype(float)
    axes[:, 2] = np.array(lean) * spacing[2]
    affine = np.eye(4)
    affine[:3, :3] = (Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ axes)[:, order]
    shape = tuple(shape[axis] for axis in order)
    affine[:3, 3] = np.array([3, -8, 20]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    away = np.linalg.norm(positions(affine, shape) - (4.3, -7.1, 20.6), axis=-1)
    return Volume((away < 9).astype(np.uint8)[None], affine, "tilted.nii")


def positions(affine, shape) -> np.ndarray:
    """World position in mm of every voxel, ``(*shape, 3)``."""
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]


def centroid(label: Volume) -> np.ndarray:
    return positions(label.affine, label.spatial_shape)[label.array[0] > 0].mean(axis=0)


def volume_mm(label: Volume) -> float:
    return np.count_nonzero(label.array) * abs(np.linalg.det(label.affine[:3, :3]))


anywhere = pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)], ids=str)
every_lean = pytest.mark.parametrize(("spacing", "lean"), LEANS.values(), ids=LEANS)


@anywhere
@every_lean
@given(turn=st.tuples(*[st.floats(-180, 180)] * 3))
@settings(max_examples=3, deadline=None)
def test_a_ball_keeps_its_place_and_volume_and_comes_back(spacing, lean, order, turn):
    scan = slanted(spacing, lean, turn, order)
    way = Straightening.of(scan)
    upright = way.apply_label(scan)
    assert not is_sheared(upright.affine)
    tolerance = 0.2 * min(spacing)
    np.testing.assert_allclose(centroid(upright), centroid(scan), atol=tolerance)
    assert volume_mm(upright) == pytest.approx(volume_mm(scan), rel=0.02)
    back = way.undo(upright)
    np.testing.assert_array_equal(back.affine, scan.affine)
    assert back.array.shape == scan.array.shape
    assert back.array.dtype == np.uint8
    np.testing.assert_allclose(centroid(back), centroid(scan), atol=tolerance)
    assert volume_mm(back) == pytest.approx(volume_mm(scan), rel=0.02)


@anywhere
@every_lean
def test_the_plane_of_the_slices_stays_and_the_whole_scan_is_covered(spacing, lean, order):
    scan = slanted(spacing, lean, (20, -35, 70), order)
    found = Straightening.of(scan)
    across = order.index(2)
    for axis in set(range(3)) - {across}:
        np.testing.assert_allclose(found.upright_affine[:3, axis], scan.affine[:3, axis])
    assert found.upright_shape[across] == SHAPE[2]
    # The lean adds nothing to the height that the third axis gains a slice.
    assert np.linalg.norm(found.upright_affine[:3, across]) == pytest.approx(spacing[2])
    ends = corners(scan.affine, scan.spatial_shape) - found.upright_affine[:3, 3]
    index = np.linalg.solve(found.upright_affine[:3, :3], ends.T)
    assert (index > -0.01).all()
    assert (index.max(axis=1) < np.array(found.upright_shape) - 1 + 0.01).all()


def test_a_label_on_a_tilted_grid_comes_back_voxel_for_voxel():
    scan = slanted(*LEANS["gantry tilt"])
    label = replace(scan, array=np.random.default_rng(0).integers(0, 5, (1, *SHAPE), np.uint8))
    way = Straightening.of(label)
    np.testing.assert_array_equal(way.undo(way.apply_label(label)).array, label.array)


@every_lean
def test_a_ramp_in_space_stays_the_same_ramp(spacing, lean):
    scan = slanted(spacing, lean, (10, 20, 30))
    ramp = positions(scan.affine, SHAPE) @ (1.0, -2.0, 0.5)
    way = Straightening.of(scan)
    upright = way.apply_image(replace(scan, array=np.stack([ramp, -ramp])))
    assert upright.array.dtype == np.float32
    found = upright.array[0]
    np.testing.assert_array_equal(upright.array[1], -found)
    world = positions(upright.affine, found.shape)
    index = (world - scan.affine[:3, 3]) @ np.linalg.inv(scan.affine[:3, :3]).T
    inside = ((index >= 0) & (index <= np.array(SHAPE) - 1)).all(axis=-1)
    assert inside.mean() > 0.4
    np.testing.assert_allclose(found[inside], (world @ (1.0, -2.0, 0.5))[inside], atol=1e-2)
    assert ramp.min() - 0.01 <= found.min() <= found.max() <= ramp.max() + 0.01


def test_a_broken_voxel_does_not_spread(caplog):
    scan = slanted(*LEANS["both ways"])
    image = np.random.default_rng(0).normal(100, 10, (1, *SHAPE)).astype(np.float32)
    image[0, 20, 20, 10] = np.nan
    found = Straightening.of(scan).apply_image(replace(scan, array=image)).array
    assert np.isfinite(found).all()
    assert "tilted.nii: 1 voxels are NaN" in caplog.text


@pytest.mark.parametrize("normal", [(0, 0, 1), (0.4, 0, 1)])
def test_slanted_pictures_are_straightened_too(normal):
    affine = affine_from((1, 1))
    affine[0, 1], affine[:3, 2] = 0.3, normal
    label = np.zeros((1, 60, 50), np.uint8)
    label[0, 20:40, 15:35] = 1
    scan = Volume(label, affine, "slide.png")
    way = Straightening.of(scan)
    upright = way.apply_label(scan)
    assert not is_sheared(upright.affine)
    assert np.prod(upright.spatial_shape) > 60 * 50
    assert volume_mm(upright) == pytest.approx(volume_mm(scan), rel=0.02)
    np.testing.assert_array_equal(way.undo(upright).array, label)


def test_slanted_scans_are_refused_unless_they_may_be_resampled():
    scan = slanted(*LEANS["gantry tilt"])
    sentence = r"tilted\.nii: two axes are 20\.0 degrees off a right angle"
    for refused in (lambda: way_upright(scan, False), lambda: straightened(scan, scan, False)):
        with pytest.raises(GeometryError, match=sentence) as caught:
            refused()
        assert "--resample-oblique" in caught.value.remedy
    image, label = straightened(scan, scan, resample=True)
    assert image.spatial_shape == label.spatial_shape != scan.spatial_shape
    assert (image.array.dtype, label.array.dtype) == (np.float32, np.uint8)


@pytest.mark.parametrize("resample", [True, False])
def test_turned_scans_at_right_angles_pass_untouched(resample):
    scan = slanted((1, 1, 2), (0, 0, 1), turn=(12, 40, -70))
    assert way_upright(scan, resample) is None
    assert straightened(scan, scan, resample) == (scan, scan)

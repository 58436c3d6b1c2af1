"""Affines, orientations and grids, checked against nibabel and against voxels' world positions."""

import itertools

import nibabel
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lamina.errors import GeometryError
from lamina.geometry import (
    affine_along,
    affine_from,
    check_affine,
    check_same_grid,
    corner_distance,
    corners,
    is_sheared,
    orientation_of,
    reorientation,
    resampled_grid,
    spacing_of,
    voxel_volume,
)

ORIENTATIONS = [
    "".join(letters)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for letters in itertools.product(*axes)
]
mm = st.floats(0.2, 8)
shapes = st.tuples(*[st.integers(1, 9)] * 3)


@st.composite
def affines(draw):
    """Any rotation, handedness, spacing and origin: oblique unless drawn otherwise."""
    turn = Rotation.from_euler("xyz", [draw(st.floats(-180, 180)) for _ in range(3)], degrees=True)
    signs = [draw(st.sampled_from([-1, 1])) for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = turn.as_matrix() * np.array([draw(mm) for _ in range(3)]) * signs
    affine[:3, 3] = [draw(st.floats(-500, 500)) for _ in range(3)]
    return affine


def _positions(affine, shape):
    """World position of every voxel, ``(*shape, 3)``."""
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]


def _middle(affine, shape):
    return affine[:3, :3] @ ((np.array(shape) - 1) / 2) + affine[:3, 3]


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("target", ORIENTATIONS)
@settings(max_examples=20)
@given(affine=affines(), shape=shapes)
def test_reorientation_moves_voxels_nowhere_and_is_undone_exactly(target, affine, shape):
    array = np.moveaxis(_positions(affine, shape), -1, 0)
    turn = reorientation(affine, target)
    turned = turn.apply(array)
    moved = turn.affine(affine, shape)
    assert orientation_of(moved) == target
    np.testing.assert_allclose(
        np.moveaxis(turned, 0, -1), _positions(moved, turned.shape[1:]), atol=1e-9
    )
    np.testing.assert_array_equal(turn.undo(turned), array)


@given(affine=affines(), shape=st.tuples(st.integers(1, 9), st.integers(1, 9)))
def test_an_image_turns_within_its_own_plane(affine, shape):
    here = orientation_of(affine, 2)
    array = np.arange(np.prod(shape)).reshape(1, *shape)
    turn = reorientation(affine, here[::-1])
    assert orientation_of(turn.affine(affine, shape), 2) == here[::-1]
    np.testing.assert_array_equal(turn.apply(array), array.transpose(0, 2, 1))
    np.testing.assert_array_equal(turn.undo(turn.apply(array)), array)


def test_an_image_cannot_leave_its_plane():
    with pytest.raises(GeometryError, match="axes run RA; none of them runs along 'S' of 'RS'"):
        reorientation(np.eye(4), "RS")


@pytest.mark.parametrize("target", ["RAR", "RAX", "ras", "LRA"])
def test_an_impossible_orientation_is_refused(target):
    with pytest.raises(GeometryError, match="one letter each"):
        reorientation(np.eye(4), target)


@given(affines())
def test_orientation_agrees_with_nibabel(affine):
    assert orientation_of(affine) == "".join(nibabel.aff2axcodes(affine))


@given(affine=affines())
def test_spacing_agrees_with_nibabel(affine):
    np.testing.assert_allclose(spacing_of(affine), nibabel.affines.voxel_sizes(affine))
    assert spacing_of(affine, 2) == spacing_of(affine)[:2]


@given(affine=affines(), shape=shapes)
def test_corners_are_the_extreme_voxels_positions(affine, shape):
    positions = _positions(affine, shape)
    ends = positions[np.ix_(*[(0, size - 1) for size in shape])].reshape(8, 3)
    np.testing.assert_allclose(corners(affine, shape), ends, atol=1e-9)


@given(affine=affines(), shape=st.tuples(*[st.integers(1, 60)] * 3), target=st.tuples(mm, mm, mm))
def test_resampled_grid_covers_the_same_box_around_the_same_middle(affine, shape, target):
    moved, size = resampled_grid(affine, shape, target)
    np.testing.assert_allclose(_middle(moved, size), _middle(affine, shape), atol=1e-6)
    np.testing.assert_allclose(spacing_of(moved), target, rtol=1.01e-4)
    before = np.array(shape) * spacing_of(affine)
    after = np.array(size) * spacing_of(moved)
    wide_enough = before >= 0.5 * np.array(target)
    np.testing.assert_array_less((abs(after - before) / spacing_of(moved))[wide_enough], 0.5 + 1e-6)
    assert all(n == 1 for n, wide in zip(size, wide_enough, strict=True) if not wide)
    direction = affine[:3, :3] / spacing_of(affine)
    np.testing.assert_allclose(moved[:3, :3] / spacing_of(moved), direction, atol=1e-9)


@given(
    affine=affines(),
    shape=st.tuples(*[st.integers(1, 60)] * 3),
    finer=st.tuples(*[st.floats(0.1, 0.99)] * 3),
)
def test_refining_and_coming_back_gives_the_grid_one_came_from(affine, shape, finer):
    spacing = spacing_of(affine)
    target = [length * factor for length, factor in zip(spacing, finer, strict=True)]
    back, size = resampled_grid(*resampled_grid(affine, shape, target), spacing)
    assert size == shape
    np.testing.assert_allclose(back, affine, atol=1e-6)


@given(affine=affines(), shape=shapes)
def test_the_spacing_one_has_changes_nothing(affine, shape):
    nearly = [length * 1.00005 for length in spacing_of(affine)]
    moved, size = resampled_grid(affine, shape, nearly)
    assert size == shape
    np.testing.assert_array_equal(moved, affine)


@pytest.mark.parametrize("target", [(1, 1), (1, 1, 0), (1, 1, -1), (1, 1, float("nan")), (1,)])
def test_resampling_to_an_impossible_spacing_is_refused(target):
    with pytest.raises(GeometryError, match="3 positive numbers are needed"):
        resampled_grid(np.eye(4), (4, 4, 4), target)


@given(affine=affines(), shape=shapes, by=st.floats(0, 0.99))
def test_grids_within_the_tolerance_are_one(affine, shape, by):
    moved = affine.copy()
    moved[0, 3] += by * max(1e-3, 0.01 * min(spacing_of(affine)))
    check_same_grid(affine, shape, moved, shape, "image and label")


@given(affine=affines(), shape=shapes, by=st.floats(1.01, 1e4))
def test_grids_further_apart_are_not(affine, shape, by):
    moved = affine.copy()
    moved[1, 3] -= by * max(1e-3, 0.01 * min(spacing_of(affine)))
    with pytest.raises(GeometryError, match="image and label: positions differ by .* mm"):
        check_same_grid(affine, shape, moved, shape, "image and label")


def test_the_far_corner_shows_a_small_turn():
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", 0.01, degrees=True).as_matrix()
    check_same_grid(np.eye(4), (9, 9, 9), turned, (9, 9, 9), "a and b")
    with pytest.raises(GeometryError, match="positions differ"):
        check_same_grid(np.eye(4), (99, 99, 99), turned, (99, 99, 99), "a and b")
    expected = 98 * np.sqrt(2) * np.deg2rad(0.01)
    assert corner_distance(np.eye(4), (99,) * 3, turned, (99,) * 3) == pytest.approx(expected, 1e-3)


def test_other_sizes_are_another_grid():
    with pytest.raises(GeometryError, match="sizes differ, 4 x 5 x 6 and 4 x 5 x 7 voxels"):
        check_same_grid(np.eye(4), (4, 5, 6), np.eye(4), (4, 5, 7), "a and b")


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.eye(3), "has shape"),
        (np.diag([1, 1, np.nan, 1]), "NaN"),
        (np.diag([1, np.inf, 1, 1]), "NaN or infinite"),
        (np.diag([1, 1, 0, 1]), "singular, with spacing 1 x 1 x 0 mm"),
        (np.zeros((4, 4)), "0 0 0 1 is needed"),
        (np.diag([1, 1, 1, 2]), "0 0 0 1 is needed"),
        (np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
    ],
)
def test_an_affine_that_places_nothing_is_refused(affine, message):
    with pytest.raises(GeometryError, match=message) as caught:
        check_affine(affine, "scan.nii")
    assert str(caught.value).startswith("scan.nii: affine")
    assert caught.value.remedy


@given(affines())
def test_a_good_affine_is_returned_as_a_copy(affine):
    checked = check_affine(affine.astype(np.float64), "scan.nii")
    np.testing.assert_array_equal(checked, affine)
    assert not np.shares_memory(checked, affine)
    assert not is_sheared(checked)


def test_shear_is_noticed():
    tilted = np.eye(4)
    tilted[1, 2] = np.tan(np.deg2rad(12))
    assert is_sheared(check_affine(tilted, "tilted.nii"))


def test_a_slanted_voxel_has_the_volume_of_an_upright_one_of_the_same_height():
    spacing = (0.7, 0.9765625, 3.0)
    upright, slanted = affine_from(spacing), affine_from(spacing)
    slanted[:3, 2] += (0.4, -1.5, 0)
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("xyz", (10, 200, 33), degrees=True).as_matrix()
    assert voxel_volume(upright) == np.prod(spacing)
    for order in ([0, 1, 2, 3], [2, 0, 1, 3]):
        assert voxel_volume((turned @ slanted)[:, order]) == pytest.approx(np.prod(spacing))


def test_a_pixel_has_an_area_whatever_its_normal():
    slanted = affine_from((2, 3))
    slanted[:3, 1] += (1, 0, 0)
    slanted[:3, 2] *= 7
    assert voxel_volume(slanted, 2) == pytest.approx(6)


def test_affine_from_spacing_and_origin():
    affine = affine_from((0.5, 2), origin=(1, 2, 3))
    np.testing.assert_array_equal(
        affine, [[0.5, 0, 0, 1], [0, 2, 0, 2], [0, 0, 1, 3], [0, 0, 0, 1]]
    )
    assert spacing_of(affine_from((3, 2, 1))) == (3, 2, 1)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SLA", "IPR"])
def test_a_grid_along_given_directions_runs_there(orientation):
    affine = affine_along(orientation, (1, 2, 3))
    assert orientation_of(affine) == orientation
    assert spacing_of(affine) == (1, 2, 3)


@pytest.mark.parametrize("orientation", ["LP", "RA", "LI"])
def test_a_flat_grid_along_given_directions_has_a_normal(orientation):
    affine = check_affine(affine_along(orientation, (0.5, 2)), "image")
    assert orientation_of(affine, 2) == orientation
    assert spacing_of(affine, 2) == (0.5, 2)

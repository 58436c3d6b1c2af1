"""Scans go to the prepared grid and back without moving; intensities come to one scale."""

import itertools

import nibabel
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial.transform import Rotation

from lamina.data import preprocess
from lamina.data.intensity import normalise
from lamina.data.plan import Normalisation
from lamina.data.preprocess import Alignment, foreground_box
from lamina.errors import DatasetError, GeometryError
from lamina.geometry import affine_from
from lamina.labels import IGNORE_INDEX
from lamina.volume import Volume

ORIENTATIONS = [
    "".join(letters)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for letters in itertools.product(*axes)
]
ZSCORE = (Normalisation(scheme="zscore"),)
few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
angles = st.tuples(*[st.floats(-180, 180)] * 3)
mm = st.tuples(*[st.floats(0.7, 3)] * 3)


def oblique(turn, spacing, shape) -> np.ndarray:
    """Affine of a grid of any rotation, centred at (12, -7, 40) mm."""
    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() * spacing
    affine[:3, 3] = np.array([12, -7, 40]) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def positions(affine, shape) -> np.ndarray:
    """World position in mm of every voxel, ``(*shape, 3)``."""
    return np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]


def ball(affine, shape, radius=11.0) -> np.ndarray:
    """A ball off the grid's middle, ``(1, *shape)`` uint8."""
    away = np.linalg.norm(positions(affine, shape) - (14.5, -6, 38.5), axis=-1)
    return (away < radius).astype(np.uint8)[None]


def one_hot(label, num_classes=3) -> np.ndarray:
    return 9.0 * np.stack([label[0] == k for k in range(num_classes)]).astype(np.float32)


def bounds(box) -> list[tuple[int, int]]:
    return [(part.start, part.stop) for part in box]


def dice(a, b) -> float:
    return 2 * np.count_nonzero(a & b) / (np.count_nonzero(a) + np.count_nonzero(b))


@pytest.mark.parametrize("target", ORIENTATIONS)
@given(turn=angles, spacing=mm)
@settings(max_examples=4, deadline=None)
def test_reorientation_alone_is_undone_exactly(plan_with, target, turn, spacing):
    affine = oblique(turn, spacing, (5, 6, 7))
    label = np.random.default_rng(0).integers(0, 3, (1, 5, 6, 7), np.uint8)
    volume = Volume(label, affine)
    canonical = nibabel.as_closest_canonical(nibabel.Nifti1Image(label[0], affine))
    to_target = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(target)
    )
    expected = canonical.as_reoriented(to_target)

    spacing = tuple(float(x) for x in expected.header.get_zooms())
    alignment = Alignment.of(volume, plan_with(orientation=target, target_spacing=spacing))
    prepared = alignment.prepare_label(label)
    np.testing.assert_array_equal(prepared[0], np.asarray(expected.dataobj))
    np.testing.assert_allclose(alignment.prepared_affine, expected.affine, atol=1e-4)
    np.testing.assert_array_equal(alignment.prepare_image(label), prepared)
    np.testing.assert_array_equal(alignment.restore(one_hot(prepared)), label)


@few
@given(turn=angles, spacing=mm, target=mm, orientation=st.sampled_from(ORIENTATIONS))
def test_a_resampled_structure_comes_back_to_its_place(
    plan_with, turn, spacing, target, orientation
):
    shape = tuple(int(48 / x) for x in spacing)
    affine = oblique(turn, spacing, shape)
    label = ball(affine, shape)
    plan = plan_with(orientation=orientation, target_spacing=target)
    alignment = Alignment.of(Volume(label, affine), plan)

    prepared = alignment.prepare_label(label)
    size = prepared.shape[1:]
    assert dice(prepared > 0, ball(alignment.prepared_affine, size) > 0) > 0.9
    there = positions(alignment.prepared_affine, size)[prepared[0] > 0].mean(axis=0)
    here = positions(affine, shape)[label[0] > 0].mean(axis=0)
    np.testing.assert_allclose(there, here, atol=0.35 * max(*spacing, *target))

    restored = alignment.restore(one_hot(prepared))
    assert restored.shape == label.shape
    assert restored.dtype == np.uint8
    assert dice(restored > 0, label > 0) > 0.9
    back = positions(affine, shape)[restored[0] > 0].mean(axis=0)
    np.testing.assert_allclose(back, here, atol=0.35 * max(*spacing, *target))


@st.composite
def framed_scans(draw):
    """Noise and random classes in a frame of -1000 of any width, on an oblique grid."""
    inner = draw(st.tuples(*[st.integers(1, 9)] * 3))
    frame = draw(st.tuples(*[st.tuples(*[st.integers(1, 5)] * 2)] * 3))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    kept = tuple(slice(low, low + size) for (low, _), size in zip(frame, inner, strict=True))
    shape = tuple(size + low + high for (low, high), size in zip(frame, inner, strict=True))
    image, label = np.full((1, *shape), -1000, np.int16), np.zeros((1, *shape), np.uint8)
    image[0][kept], label[0][kept] = rng.integers(0, 99, inner), rng.integers(0, 3, inner)
    affine = oblique(draw(angles), draw(mm), shape)
    return Volume(image, affine), label, kept


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@given(scan=framed_scans())
@settings(max_examples=3, deadline=None)
def test_a_scan_is_cropped_to_its_content_and_its_label_comes_back_exactly(
    plan_with, orientation, scan
):
    volume, label, kept = scan
    own = Alignment.of(volume, plan_with(orientation=orientation, target_spacing=(1, 1, 1)))
    spacing = tuple(volume.spacing[axis] for axis in own.reorientation.axes)
    alignment = Alignment.of(volume, plan_with(orientation=orientation, target_spacing=spacing))
    assert alignment.box == kept
    prepared, indices = alignment.prepare_image(volume.array), alignment.prepare_label(label)
    assert sorted(indices.shape[1:]) == sorted(part.stop - part.start for part in kept)
    index = positions(np.linalg.inv(volume.affine) @ alignment.prepared_affine, indices.shape[1:])
    assert np.abs(index - np.rint(index)).max() < 1e-6
    there = tuple(np.moveaxis(np.rint(index).astype(int), -1, 0))
    np.testing.assert_array_equal(prepared[0], volume.array[0][there])
    np.testing.assert_array_equal(indices[0], label[0][there])
    np.testing.assert_array_equal(alignment.restore(one_hot(indices)), label)


@few
@given(
    turn=angles,
    spacing=mm,
    target=mm,
    orientation=st.sampled_from(ORIENTATIONS),
    frame=st.tuples(*[st.tuples(*[st.integers(0, 6)] * 2)] * 3),
)
def test_a_cropped_and_resampled_structure_comes_back_to_its_place(
    plan_with, turn, spacing, target, orientation, frame
):
    size = np.array([int(48 / x) for x in spacing])
    kept = (slice(None), *(slice(low, low + n) for (low, _), n in zip(frame, size, strict=True)))
    shape = tuple(int(n) + sum(ends) for n, ends in zip(size, frame, strict=True))
    affine = oblique(turn, spacing, shape)
    image, label = np.zeros((1, *shape)), np.zeros((1, *shape), np.uint8)
    image[kept] = np.random.default_rng(0).normal(100, 5, (1, *size))
    label[kept] = ball(affine, shape)[kept]
    plan = plan_with(orientation=orientation, target_spacing=target)
    alignment = Alignment.of(Volume(image, affine), plan, label)

    prepared = alignment.prepare_label(label)
    there = positions(alignment.prepared_affine, prepared.shape[1:])[prepared[0] > 0].mean(axis=0)
    here = positions(affine, shape)[label[0] > 0].mean(axis=0)
    np.testing.assert_allclose(there, here, atol=0.35 * max(*spacing, *target))
    restored = alignment.restore(one_hot(prepared))
    assert dice(restored > 0, label > 0) > 0.9
    back = positions(affine, shape)[restored[0] > 0].mean(axis=0)
    np.testing.assert_allclose(back, here, atol=0.35 * max(*spacing, *target))


def test_only_what_is_background_in_every_channel_is_cropped():
    image = np.zeros((2, 10, 9, 8))
    image[1] = -7
    image[0, 2:4, 3, 5], image[1, 6, 3, 2] = 1, 0
    assert bounds(foreground_box(image)) == [(2, 7), (3, 4), (2, 6)]


def test_nothing_labelled_is_cropped_but_the_ignored_may_be(plan_with):
    image, label = np.zeros((1, 10, 9, 8)), np.zeros((1, 10, 9, 8), np.uint8)
    image[0, 4:6, 4:6, 4:6], label[0, 5, 5, 1], label[0, 0, 0] = 1, 2, IGNORE_INDEX
    volume = Volume(image, affine_from((1, 1, 1)))
    assert bounds(Alignment.of(volume, plan_with()).box) == [(4, 6)] * 3
    assert bounds(Alignment.of(volume, plan_with(), label).box) == [(4, 6), (4, 6), (1, 6)]


@pytest.mark.parametrize("odd", ["corner", "nan", "even"])
def test_a_scan_whose_background_is_unknown_is_kept_whole(odd):
    image = np.zeros((2, 6, 5, 4))
    label = np.zeros((1, 6, 5, 4), np.uint8)
    label[0, 2, 2, 2] = 1
    if odd != "even":
        image[0, 2, 2, 2] = image[1, 2, 3, 2] = 1
        image[1, 5, 0, 3] = 0.1 if odd == "corner" else np.nan
    assert bounds(foreground_box(image, label)) == [(0, 6), (0, 5), (0, 4)]


def test_what_was_cropped_becomes_background_whatever_the_logits_say(plan_with):
    image = np.zeros((1, 12, 12, 12))
    image[0, 4:8, 4:8, 4:8] = np.random.default_rng(0).normal(9, 1, (4, 4, 4))
    volume = Volume(image, affine_from((1, 1, 1)))
    alignment = Alignment.of(volume, plan_with(target_spacing=(2, 2, 1)))
    logits = np.stack([np.full(alignment.prepared_shape, x, np.float32) for x in (0, 3)])
    for restored in (alignment.restore(logits), alignment.restore(logits, [(1, 1)])):
        np.testing.assert_array_equal(restored, image != 0)


def test_a_box_a_single_voxel_thick_keeps_a_voxel(plan_with):
    image = np.zeros((1, 12, 12, 12))
    image[0, 3:9, 5, 3:9] = 1 + np.arange(36).reshape(6, 6)
    volume = Volume(image, affine_from((1, 1, 1)))
    alignment = Alignment.of(volume, plan_with(target_spacing=(3, 3, 3)))
    assert alignment.prepare_image(image).shape == (1, 2, 1, 2)
    assert np.count_nonzero(alignment.restore(one_hot(np.ones((1, 2, 1, 2))))) == 36


@few
@given(turn=angles, spacing=mm, target=mm, orientation=st.sampled_from(ORIENTATIONS))
def test_a_ramp_in_space_stays_the_same_ramp(plan_with, turn, spacing, target, orientation):
    """Cubic splines and smoothing keep a linear image, so each prepared voxel tells its place."""
    shape = (24, 22, 20)
    affine = oblique(turn, spacing, shape)
    ramp = positions(affine, shape) @ (1.0, -2.0, 0.5)
    plan = plan_with(orientation=orientation, target_spacing=target)
    alignment = Alignment.of(Volume(ramp[None], affine), plan)
    prepared = alignment.prepare_image(ramp[None])[0]
    expected = positions(alignment.prepared_affine, prepared.shape) @ (1.0, -2.0, 0.5)
    index = np.moveaxis(
        positions(np.linalg.inv(affine) @ alignment.prepared_affine, prepared.shape), -1, 0
    )
    border = np.array(shape)[:, None, None, None] - 1
    inside = (np.minimum(index, border - index) > 7).all(axis=0)
    assert inside.any()
    np.testing.assert_allclose(prepared[inside], expected[inside], atol=0.02)


@few
@given(turn=angles, orientation=st.sampled_from(ORIENTATIONS), seed=st.integers(0, 99))
def test_restored_logits_are_the_argmax_of_dense_interpolation(plan_with, turn, orientation, seed):
    shape = (9, 10, 11)
    affine = oblique(turn, (1, 1.3, 0.9), shape)
    plan = plan_with(orientation=orientation, target_spacing=(1.7, 2, 1.5))
    alignment = Alignment.of(Volume(np.zeros((1, *shape)), affine), plan)
    size = alignment.prepared_shape
    logits = np.random.default_rng(seed).normal(size=(4, *size)).astype(np.float32)
    index = positions(np.linalg.inv(alignment.prepared_affine) @ affine, shape)
    dense = np.stack(
        [
            ndimage.map_coordinates(channel, np.moveaxis(index, -1, 0), order=1, mode="nearest")
            for channel in logits
        ]
    )
    clear = np.ptp(np.sort(dense, axis=0)[-2:], axis=0) > 1e-4
    restored = alignment.restore(logits)[0]
    np.testing.assert_array_equal(restored[clear], dense.argmax(axis=0)[clear])
    assert clear.mean() > 0.99


def test_regions_are_drawn_over_each_other_where_they_are_likely(plan_with):
    alignment = Alignment.of(
        Volume(np.zeros((1, 6, 6, 6)), affine_from((1, 1, 1))), plan_with(target_spacing=(2, 2, 2))
    )
    core, whole = np.full((2, 3, 3, 3), -1, np.float32)
    whole[1:] = 1
    core[2] = 1
    restored = alignment.restore(np.stack([core, whole]), drawing=[(1, 2), (0, 1)])[0]
    np.testing.assert_array_equal(restored[:, 0, 0], [0, 0, 2, 2, 1, 1])


def test_classes_that_are_equally_likely_fall_to_the_first(plan_with):
    alignment = Alignment.of(
        Volume(np.zeros((1, 6, 6, 6)), affine_from((1, 1, 1))), plan_with(target_spacing=(2, 2, 2))
    )
    logits = np.stack([np.full((3, 3, 3), value, np.float32) for value in (-1, 4, 4)])
    assert (alignment.restore(logits) == 1).all()


@pytest.mark.parametrize("target", ["RA", "PL"])
def test_images_are_prepared_within_their_plane(plan_with, target):
    shape = (40, 30)
    affine = affine_from((1, 1.5), (5, 6, 7))
    label = np.zeros((1, *shape), np.uint8)
    label[0, 8:25, 10:22] = 1
    image = np.zeros((1, *shape))
    image[0, 4:34, 6:22] = np.random.default_rng(0).normal(90, 9, (30, 16))
    plan = plan_with(spatial_dims=2, orientation=target, target_spacing=(1.2, 1.2))
    alignment = Alignment.of(Volume(image, affine), plan)
    prepared = alignment.prepare_label(label)
    assert prepared.shape == (1, *((25, 20) if target == "RA" else (20, 25)))
    assert dice(alignment.restore(one_hot(prepared)) > 0, label > 0) > 0.95


def test_scans_of_other_dimensions_are_refused(plan_with):
    image = Volume(np.zeros((1, 4, 4)), affine_from((1, 1)), "slice.nii")
    with pytest.raises(GeometryError, match=r"slice\.nii: has 2 spatial axes, the plan is for 3"):
        Alignment.of(image, plan_with())


def test_unknown_voxels_stay_unknown_and_small_classes_do_not_bleed(plan_with):
    label = np.zeros((1, 24, 24, 24), np.uint8)
    label[0, :12], label[0, :, :12], label[0, 16:, 16:, 16:] = 1, IGNORE_INDEX, 2
    volume = Volume(label, affine_from((1, 1, 1)))
    alignment = Alignment.of(volume, plan_with(target_spacing=(2, 1.5, 0.8)))
    prepared = alignment.prepare_label(label)
    assert set(np.unique(prepared)) == {0, 1, 2, IGNORE_INDEX}
    for value in np.unique(label):
        share = np.mean(prepared == value)
        assert share == pytest.approx(np.mean(label == value), abs=0.02)


def test_a_coarser_grid_averages_noise_instead_of_picking_voxels(plan_with):
    noise = np.random.default_rng(0).normal(0, 1, (1, 40, 40, 40)).astype(np.float32)
    alignment = Alignment.of(
        Volume(noise, affine_from((1, 1, 1))), plan_with(target_spacing=(3, 3, 3))
    )
    assert alignment.prepare_image(noise).std() < 0.4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_broken_voxel_does_not_spread(plan_with, caplog, bad):
    image = np.random.default_rng(0).normal(100, 10, (1, 20, 20, 20)).astype(np.float32)
    broken = image.copy()
    broken[0, 10, 10, 10] = bad
    volume = Volume(broken, affine_from((1, 1, 1)), "scan.nii")
    alignment = Alignment.of(volume, plan_with(target_spacing=(1.5, 1.5, 1.5)))
    found, expected = alignment.prepare_image(broken), alignment.prepare_image(image)
    assert "scan.nii: 1 voxels are NaN or infinite" in caplog.text
    far = np.ones(found.shape, bool)
    far[0, 4:10, 4:10, 4:10] = False
    np.testing.assert_allclose(found[far], expected[far], atol=0.5)
    assert np.isfinite(found).all()


def test_a_scan_without_a_finite_voxel_is_refused(plan_with):
    image = np.full((1, 4, 4, 4), np.nan)
    alignment = Alignment.of(Volume(image, affine_from((1, 1, 1)), "scan.nii"), plan_with())
    for refused in (
        lambda: alignment.prepare_image(image),
        lambda: normalise(image.astype(np.float32), ZSCORE, "scan.nii"),
    ):
        with pytest.raises(DatasetError, match=r"scan\.nii: no voxel holds a finite number"):
            refused()


@settings(deadline=None)
@given(
    scale=st.floats(1e-9, 1e9),
    shift=st.floats(-100, 100),
    seed=st.integers(0, 9),
)
def test_the_scanners_own_units_do_not_matter(scale, shift, seed):
    image = np.random.default_rng(seed).gamma(2, 30, (1, 8, 9, 10))
    plain = normalise(image.astype(np.float32), ZSCORE, "a")
    other = normalise((scale * (image + shift)).astype(np.float32), ZSCORE, "b")
    np.testing.assert_allclose(other, plain, atol=1e-4)
    assert plain.mean() == pytest.approx(0, abs=1e-5)
    assert plain.std() == pytest.approx(1, abs=1e-5)
    assert plain.dtype == np.float32


def test_each_channel_has_its_own_scale():
    rng = np.random.default_rng(0)
    image = np.stack([rng.normal(5, 2, (6, 6, 6)), rng.normal(-4000, 900, (6, 6, 6))])
    found = normalise(image.astype(np.float32), ZSCORE * 2, "a")
    for channel in range(2):
        alone = normalise(image[channel : channel + 1].astype(np.float32), ZSCORE, "a")
        np.testing.assert_array_equal(found[channel], alone[0])


@pytest.mark.parametrize("value", [0, 7.3, -1e9, 1e-30])
def test_a_constant_image_becomes_zero(value):
    image = np.full((1, 5, 5, 5), value, np.float32)
    assert not normalise(image, ZSCORE, "a").any()


def test_outliers_are_clipped_but_a_small_structure_on_black_is_kept():
    image = np.random.default_rng(0).normal(0, 1, (1, 20, 20, 20)).astype(np.float32)
    spiked = image.copy()
    spiked[0, 3, 3, 3] = 1e6
    found = normalise(spiked, ZSCORE, "a")
    np.testing.assert_allclose(
        np.delete(found, 1263), np.delete(normalise(image, ZSCORE, "a"), 1263), atol=0.05
    )
    black = np.zeros_like(image)
    black[0, 5:7, 5:7, 5:7] = 100
    found = normalise(black, ZSCORE, "a")
    assert found[0, 5, 5, 5] - found[0, 0, 0, 0] > 1


def test_broken_voxels_take_extreme_values_with_a_warning(caplog):
    image = np.arange(1000, dtype=np.float32).reshape(1, 10, 10, 10)
    image[0, 5, 5, :3] = np.nan, np.inf, -np.inf
    found = normalise(image, ZSCORE, "scan.nii")
    assert "scan.nii: 3 voxels are NaN or infinite" in caplog.text
    assert np.isfinite(found).all()
    assert found[0, 5, 5, 0] == found[0, 5, 5, 2] == found.min()
    assert found[0, 5, 5, 1] == found.max()


def test_hounsfield_units_keep_their_meaning():
    how = (Normalisation(scheme="ct", low=-100, high=300, mean=50, std=25),)
    image = np.array([-1000, -100, 50, 75, 300, 3000], np.float32).reshape(1, 1, 2, 3)
    expected = [-6, -6, 0, 1, 10, 10]
    np.testing.assert_allclose(normalise(image, how, "a").ravel(), expected)
    assert not normalise(np.full((1, 2, 2, 2), 50, np.float32), how, "a").any()


def test_other_channels_than_planned_are_refused():
    with pytest.raises(DatasetError, match=r"scan\.nii: 2 channels, the model takes 1"):
        normalise(np.zeros((2, 3, 3, 3), np.float32), ZSCORE, "scan.nii")


def test_spacing_in_a_wrong_unit_is_refused(plan_with):
    metres = Volume(
        np.zeros((1, 8, 8, 8), np.float32), affine_from((0.0007, 0.0007, 0.001)), "m.nii"
    )
    with pytest.raises(GeometryError, match=r"m.nii: voxels of .* unit"):
        Alignment.of(metres, plan_with())


def test_scaling_by_the_tissue_leaves_the_empty_background_at_zero():
    image = np.zeros((1, 4, 4, 4), np.float32)
    image[0, 1:3] = np.random.default_rng(0).normal(500, 30, (2, 4, 4))
    found = normalise(image, (Normalisation(scheme="zscore_nonzero"),), "scan")
    tissue = found[image != 0]
    assert (found[image == 0] == 0).all()
    assert (tissue.mean(), tissue.std()) == pytest.approx((0, 1), abs=1e-3)
    empty = np.zeros((1, 4, 4, 4), np.float32)
    np.testing.assert_array_equal(
        normalise(empty, (Normalisation(scheme="zscore_nonzero"),), "x"), empty
    )


def test_a_border_of_nan_is_background_as_one_of_zeros_is():
    inside = np.arange(1, 121, dtype=np.float32).reshape(1, 4, 5, 6)
    margin = ((0, 0), (2, 1), (0, 3), (1, 1))
    image = np.pad(inside, margin, constant_values=np.nan)
    assert bounds(foreground_box(image)) == [(2, 6), (0, 5), (1, 7)]


def test_the_way_back_of_a_large_picture_needs_no_matrix_of_its_size(plan_with, monkeypatch):
    plan = plan_with(
        spatial_dims=2,
        orientation="RA",
        target_spacing=(1.0, 1.0),
        patch_size=(8, 8),
        roi_size=(8, 8),
        mirror_axes=(),
    )
    way = Alignment.of(Volume(np.zeros((1, 700, 5), np.uint8), affine_from((1, 1))), plan)
    monkeypatch.setattr(preprocess, "axis_weights", None)
    logits = np.random.default_rng(0).normal(size=(3, 700, 5)).astype(np.float32)
    np.testing.assert_array_equal(way.restore(logits)[0], logits.argmax(axis=0))

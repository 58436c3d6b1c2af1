"""A prediction lies where the scan lies, whatever its orientation, obliquity, spacing and size."""

import numpy as np
import pytest

from lamina.data.plan import Normalisation, Plan
from lamina.errors import BundleError, DatasetError, GeometryError
from lamina.geometry import affine_from, orientation_of, reorientation
from lamina.inference.predictor import Predictor
from lamina.labels import LabelSet
from lamina.volume import Volume

RADIUS_MM = 9.0


def brighter_than_most(batch):
    """A network that knows the answer: what stands two deviations above its scan's mean."""
    return np.concatenate([np.full_like(batch[:, :1], 2.0), batch[:, :1]], axis=1)


def plan(spatial_dims=3, **changes):
    fields = {
        "spatial_dims": spatial_dims,
        "channels": ("MR",),
        "labels": LabelSet(values={"ball": 7}),
        "orientation": "RAS"[:spatial_dims],
        "target_spacing": (1.5, 1.5, 2.0)[:spatial_dims],
        "normalisation": (Normalisation(scheme="zscore"),),
        "network": "lightmedseg",
        "patch_size": (24,) * spatial_dims,
        "roi_size": (24,) * spatial_dims,
        "batch_size": 2,
        "mirror_axes": (),
        "epochs": 1,
        "steps_per_epoch": 1,
    }
    return Plan(**fields | changes)


def ball(affine, spatial_shape, centre):
    """A bright ball at a place in world mm, in noise; every voxel by its own position."""
    shape = (*spatial_shape, *[1] * (3 - len(spatial_shape)))
    world = affine[:3, :3] @ np.indices(shape).reshape(3, -1) + affine[:3, 3:]
    inside = ((world - np.array(centre)[:, None]) ** 2).sum(0) < RADIUS_MM**2
    noise = np.random.default_rng(0).normal(0, 10, inside.size)
    values = (inside * 1000 + noise).reshape(1, *spatial_shape).astype(np.float32)
    return Volume(values, affine, "ball"), inside.reshape(spatial_shape)


def rotation(degrees):
    x, y, z = np.radians(degrees)
    about_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    about_y = [[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]]
    about_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    return np.array(about_z) @ np.array(about_y) @ np.array(about_x)


def grid(orientation, degrees, spacing, spatial_shape):
    """A scanner's grid whose axes run as said, give or take a rotation, about a far-off middle."""
    affine = affine_from(spacing)
    affine[:3, :3] = rotation(degrees) @ affine[:3, :3]
    affine[:3, 3] = (-35, 120, 1400) - affine[:3, :3] @ ((np.array(spatial_shape) - 1) / 2)
    turn = reorientation(affine, orientation)
    return turn.affine(affine, spatial_shape), tuple(spatial_shape[axis] for axis in turn.axes)


def centroid(mask, affine):
    index = np.argwhere(mask.reshape(*mask.shape, *[1] * (3 - mask.ndim))).mean(0)
    return affine[:3, :3] @ index + affine[:3, 3]


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS", "PIR", "SAL", "IPL", "ASR"])
@pytest.mark.parametrize(
    ("degrees", "spacing", "shape"),
    [
        ((0, 0, 0), (1.5, 1.5, 2.0), (40, 36, 30)),  # the plan's own grid: nothing is resampled
        ((0, 0, 0), (1.0, 1.1, 3.0), (51, 44, 19)),
        ((12, -8, 20), (1.3, 0.9, 2.2), (45, 60, 25)),
    ],
)
def test_a_ball_is_found_at_its_place_in_the_world(orientation, degrees, spacing, shape):
    affine, spatial_shape = grid(orientation, degrees, spacing, shape)
    assert orientation_of(affine) == orientation
    there = np.array([-35, 120, 1400]) + (4.3, -5.1, 3.7)
    image, inside = ball(affine, spatial_shape, there)
    found = Predictor(network=brighter_than_most, plan=plan())(image)
    assert found.array.shape == image.array.shape
    np.testing.assert_array_equal(found.affine, affine)
    assert set(np.unique(found.array)) == {0, 7}
    mask = found.array[0] == 7
    assert np.linalg.norm(centroid(mask, affine) - there) < 0.5
    assert 2 * (mask & inside).sum() / (mask.sum() + inside.sum()) > 0.85


@pytest.mark.parametrize("orientation", ["RAS", "PIR", "IPL"])
def test_a_ball_in_a_tilted_scan_is_found_on_the_scans_own_grid_where_that_is_asked_for(
    orientation,
):
    affine, spatial_shape = grid("RAS", (5, 0, 10), (1.1, 1.1, 2.0), (60, 56, 30))
    affine[:3, 2] += 0.4 * affine[:3, 1] * 2.0 / 1.1
    turn = reorientation(affine, orientation)
    affine = turn.affine(affine, spatial_shape)
    spatial_shape = tuple(spatial_shape[axis] for axis in turn.axes)
    there = affine[:3, :3] @ ((np.array(spatial_shape) - 1) / 2 + 1.3) + affine[:3, 3]
    image, inside = ball(affine, spatial_shape, there)
    with pytest.raises(GeometryError, match=r"ball: two axes are 21.8 degrees .*--resample-obl"):
        Predictor(network=brighter_than_most, plan=plan())(image)
    found = Predictor(network=brighter_than_most, plan=plan(), resample_oblique=True)(image)
    np.testing.assert_array_equal(found.affine, affine)
    assert set(np.unique(found.array)) == {0, 7}
    mask = found.array[0] == 7
    assert np.linalg.norm(centroid(mask, affine) - there) < 0.5
    assert 2 * (mask & inside).sum() / (mask.sum() + inside.sum()) > 0.85


@pytest.mark.parametrize("orientation", ["RA", "LP", "AR", "PL"])
@pytest.mark.parametrize("spacing", [(1.5, 1.5), (0.8, 1.1)])
def test_so_is_a_disc_in_an_image(orientation, spacing):
    turn = reorientation(affine_from(spacing), orientation)
    affine = turn.affine(affine_from(spacing, (-20, 33, 7)), (60, 50))
    spatial_shape = tuple((60, 50)[axis] for axis in turn.axes)
    there = np.array([-2.0, 60.0, 7.0])
    image, _ = ball(affine, spatial_shape, there)
    found = Predictor(network=brighter_than_most, plan=plan(2))(image)
    assert found.array.shape == image.array.shape
    np.testing.assert_array_equal(found.affine, affine)
    assert np.linalg.norm(centroid(found.array[0] == 7, affine) - there) < 0.5


def test_labels_keep_their_files_values_and_the_type_that_holds_them():
    def three_classes(batch):
        x = batch[:, :1]
        return np.concatenate([np.zeros_like(x), x - 0.5, 2 * x - 2], axis=1)

    labels = LabelSet(values={"rim": 300, "core": 5}, background=9)
    image, _ = ball(affine_from((1.5, 1.5, 2.0)), (30, 30, 20), (20, 20, 20))
    found = Predictor(network=three_classes, plan=plan(labels=labels))(image)
    assert set(np.unique(found.array)) <= {5, 9, 300}
    assert {5, 9} <= set(np.unique(found.array))
    assert found.array.dtype == np.uint16


def test_channels_reach_the_network_in_their_order_each_on_its_own_scale():
    seen = []

    def look(batch):
        seen.append(batch.copy())
        return batch

    normalisation = (
        Normalisation(scheme="ct", low=-100, high=300, mean=50, std=100),
        Normalisation(scheme="zscore"),
    )
    array = np.stack([np.full((24, 24, 24), 250.0), np.full((24, 24, 24), 7.0)])
    two = plan(channels=("CT", "PET"), normalisation=normalisation)
    Predictor(network=look, plan=two)(Volume(array, affine_from(two.target_spacing), "two"))
    assert np.unique(seen[0][0, 0]).tolist() == [2.0]
    assert np.unique(seen[0][0, 1]).tolist() == [0.0]


@pytest.mark.parametrize("spacing", [(1.5, 1.5, 2.0), (1.0, 1.0, 1.0)])
def test_broken_voxels_spoil_no_more_than_themselves(spacing, caplog):
    image, _ = ball(affine_from(spacing), (30, 30, 24), np.array(spacing) * (15, 15, 12))
    predictor = Predictor(network=brighter_than_most, plan=plan())
    whole = predictor(image).array
    image.array[0, 2:4, 2:4, 2] = [[np.nan, np.inf], [-np.inf, np.nan]]
    broken = predictor(image).array
    assert "4 voxels are NaN or infinite" in caplog.text
    far = np.ones(whole.shape, bool)
    far[0, :8, :8, :8] = False
    assert (broken[far] != whole[far]).mean() < 1e-3


def test_progress_counts_windows():
    calls = []
    image, _ = ball(affine_from((1.5, 1.5, 2.0)), (40, 24, 24), (30, 18, 24))
    Predictor(network=brighter_than_most, plan=plan())(image, lambda *call: calls.append(call))
    assert calls[-1] == (3, 3)


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ((2, 9, 9, 9), DatasetError, "two.nii: 2 channels, the model takes 1"),
        ((1, 9, 9), GeometryError, "two.nii: has 2 spatial axes, the plan is for 3"),
    ],
)
def test_a_scan_that_does_not_fit_is_refused_by_name(shape, error, message):
    with pytest.raises(error, match=message):
        Predictor(network=brighter_than_most, plan=plan())(
            Volume(np.ones(shape), affine_from((1, 1, 1)), "two.nii")
        )


def test_a_scan_without_one_finite_voxel_is_refused():
    empty = Volume(np.full((1, 9, 9, 9), np.nan), affine_from((1, 1, 1)), "void.nii")
    with pytest.raises(DatasetError, match=r"void\.nii: no voxel holds a finite number"):
        Predictor(network=brighter_than_most, plan=plan())(empty)


def test_a_network_that_returns_no_numbers_finds_nothing_and_that_is_said():
    def broken(batch):
        logits = brighter_than_most(batch)
        logits[:, :, 0] = np.nan
        return logits

    scan, _ = ball(affine_from((1.5, 1.5, 2.0)), (40, 40, 30), (30, 30, 30))
    with pytest.raises(BundleError, match=r"ball: the model finds .* no numbers \(NaN\)"):
        Predictor(network=broken, plan=plan())(scan)

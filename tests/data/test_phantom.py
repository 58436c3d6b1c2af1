"""Phantoms: the same from the same seed, anatomically right, and not trivial to segment."""

from pathlib import Path

import numpy as np
import pytest

from lamina.data.anatomy import draw_anatomy
from lamina.data.phantom import (
    PHANTOM_LABELS,
    make_large_scan,
    make_phantom,
    paint,
    write_phantom_dataset,
)
from lamina.files import read_json, sha256
from lamina.geometry import affine_from, is_sheared
from lamina.io import read_volume
from lamina.volume import Volume

SEEDS = range(6)


@pytest.fixture(scope="module")
def phantoms() -> list[tuple[Volume, Volume]]:
    return [make_phantom(seed) for seed in SEEDS]


def centroid(label: Volume, structure: str) -> np.ndarray:
    """World mm."""
    where = np.argwhere(label.array[0] == PHANTOM_LABELS.values[structure]).mean(axis=0)
    index = np.append(where, np.zeros(3 - len(where)))
    return label.affine[:3, :3] @ index + label.affine[:3, 3]


def best_band_dice(image: np.ndarray, mask: np.ndarray) -> float:
    """Dice of the best of all intensity bands, in steps of 5 HU."""
    edges = np.arange(-200, 405, 5)
    inside = np.append(0, np.histogram(image[mask], edges)[0].cumsum())
    band = np.append(0, np.histogram(image, edges)[0].cumsum())
    hits = inside[None, :] - inside[:, None]
    return float((2 * hits / (mask.sum() + np.abs(band[None, :] - band[:, None]))).max())


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_seed_decides_everything(spatial_dims):
    first, again, other = (make_phantom(seed, spatial_dims=spatial_dims) for seed in (4, 4, 5))
    for volume, same in zip(first, again, strict=True):
        assert volume.array.tobytes() == same.array.tobytes()
        assert volume.affine.tobytes() == same.affine.tobytes()
    assert not np.array_equal(first[0].affine, other[0].affine)
    assert first[0].array.tobytes() != other[0].array.tobytes()


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("lesion", [True, False])
def test_image_and_label_share_a_grid_and_values_are_declared(spatial_dims, lesion):
    image, label = make_phantom(1, spatial_dims=spatial_dims, lesion=lesion)
    assert image.spatial_dims == spatial_dims
    assert image.array.shape == label.array.shape
    assert np.array_equal(image.affine, label.affine)
    assert (image.array.dtype, label.array.dtype) == (np.int16, np.uint8)
    found = {0, *np.unique(label.array).tolist()}
    declared = {0, *PHANTOM_LABELS.values.values()}
    assert found <= declared
    assert (PHANTOM_LABELS.values["lesion"] in found) == lesion


def test_every_structure_is_there_in_a_plausible_size(phantoms):
    plausible_ml = {
        "liver": (500, 1500),
        "spleen": (60, 250),
        "kidneys": (90, 300),
        "aorta": (30, 130),
        "lesion": (8, 90),
    }
    for _, label in phantoms:
        for name, (low, high) in plausible_ml.items():
            voxels = np.count_nonzero(label.array == PHANTOM_LABELS.values[name])
            assert low < voxels * np.prod(label.spacing) / 1000 < high, (label.source, name)


def test_scans_are_oblique_anisotropic_and_differently_oriented(phantoms):
    scans = [image for image, _ in phantoms]
    assert len({scan.orientation for scan in scans}) >= 3
    for scan in scans:
        direction = np.abs(scan.affine[:3, :3] / scan.spacing)
        assert max(scan.spacing) > 1.2 * min(scan.spacing)
        assert not is_sheared(scan.affine)
        assert direction.max(axis=0).min() > np.cos(np.radians(25))
        assert direction.max() < 1 - 1e-6


def test_liver_is_on_the_patients_right_whatever_the_orientation(phantoms):
    for _, label in [*phantoms, *(make_phantom(seed, spatial_dims=2) for seed in SEEDS)]:
        assert centroid(label, "liver")[0] > centroid(label, "spleen")[0] + 60
        assert centroid(label, "liver")[1] > centroid(label, "aorta")[1]


def test_organ_volumes_do_not_depend_on_the_grid():
    anatomy = draw_anatomy(np.random.default_rng(3), lesion=True)
    corner = anatomy.centre_of("fat") - (150, 120, 120)
    plain = affine_from((4, 4, 4), corner)
    oblique = affine_from((3, 3.5, 6))
    tilt = np.radians(12)
    turn = [[np.cos(tilt), -np.sin(tilt), 0], [np.sin(tilt), np.cos(tilt), 0], [0, 0, 1]]
    oblique[:3, :3] = turn @ oblique[:3, :3]
    shape = (120, 90, 45)
    oblique[:3, 3] = anatomy.centre_of("fat") - oblique[:3, :3] @ (np.array(shape) / 2)
    _, coarse = paint(anatomy, plain, (75, 60, 60))
    _, turned = paint(anatomy, oblique, shape)
    for name in ("liver", "spleen", "kidneys", "lesion"):
        value = PHANTOM_LABELS.values[name]
        volumes_ml = [
            np.count_nonzero(coarse == value) * 64,
            np.count_nonzero(turned == value) * 63,
        ]
        assert volumes_ml[0] == pytest.approx(volumes_ml[1], rel=0.04), name


def test_a_large_voxel_shows_the_mean_of_what_it_covers():
    anatomy = draw_anatomy(np.random.default_rng(0), lesion=False)
    corner = anatomy.centre_of("liver") - (80, 40, 20)
    coarse, _ = paint(anatomy, affine_from((4, 4, 4), corner), (24, 20, 10))
    fine, _ = paint(anatomy, affine_from((1, 1, 1), corner - 1.5), (96, 80, 40))
    blocks = fine.reshape(24, 4, 20, 4, 10, 4)
    mean, middle = blocks.mean(axis=(1, 3, 5)), blocks[:, 1, :, 1, :, 1]
    assert np.abs(coarse - mean).mean() < 0.5 * np.abs(middle - mean).mean()


def test_no_organ_can_be_had_by_thresholds(phantoms):
    for image, label in phantoms:
        for name, value in PHANTOM_LABELS.values.items():
            assert best_band_dice(image.array, label.array == value) < 0.8, (image.source, name)


def test_neighbours_overlap_in_intensity_but_differ_on_average(phantoms):
    image, label = phantoms[0]
    hu = {name: image.array[label.array == value] for name, value in PHANTOM_LABELS.values.items()}
    for first, second in (("liver", "lesion"), ("liver", "spleen"), ("spleen", "kidneys")):
        gap = abs(hu[first].mean() - hu[second].mean())
        assert 15 < gap < 70
        assert gap < 4 * hu[first].std()


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_dataset_is_complete_and_written_the_same_twice(tmp_path: Path, spatial_dims):
    for name in ("once", "twice"):
        write_phantom_dataset(tmp_path / name, 2, num_test=1, seed=1, spatial_dims=spatial_dims)
    once = sorted(path for path in (tmp_path / "once").rglob("*") if path.is_file())
    assert len(once) == 2 * 3 + 1
    for path in once:
        assert sha256(path) == sha256(tmp_path / "twice" / path.relative_to(tmp_path / "once"))

    header = read_json(tmp_path / "once" / "dataset.json")
    assert header["labels"] == {
        "0": "background",
        **{str(value): name for name, value in PHANTOM_LABELS.values.items()},
    }
    assert (header["numTraining"], header["numTest"]) == (2, 1)
    pairs = [*header["training"], {"image": header["test"][0]}]
    expected = [make_phantom(100_000 + index, spatial_dims=spatial_dims) for index in range(3)]
    for entry, (image, label) in zip(pairs, expected, strict=True):
        read = read_volume(tmp_path / "once" / entry["image"])
        assert np.array_equal(read.array, image.array)
        assert np.allclose(read.affine, image.affine, atol=1e-4)
        if "label" in entry:
            assert np.array_equal(
                read_volume(tmp_path / "once" / entry["label"]).array, label.array
            )


def test_some_cases_of_a_dataset_have_no_lesion(tmp_path: Path):
    write_phantom_dataset(tmp_path, 8, spatial_dims=2)
    lesion = PHANTOM_LABELS.values["lesion"]
    labels = sorted((tmp_path / "labelsTr").iterdir())
    has_lesion = [bool((read_volume(path).array == lesion).any()) for path in labels]
    assert has_lesion == [True] * 7 + [False]


def test_a_large_scan_shows_a_body_in_air_with_noise():
    scan = make_large_scan(3, (64, 60, 50))
    assert scan.array.shape == (1, 64, 60, 50)
    assert scan.spacing == pytest.approx((6.0, 6.4, 7.5))
    middle, corner = scan.array[0, 28:36, 26:34, 20:30], scan.array[0, :4, :4]
    assert abs(corner.mean() + 1000) < 5
    assert middle.mean() > -200
    assert 5 < corner.std() < 15

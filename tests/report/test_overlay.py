"""Overlay pictures: the right way round, whole files, or none."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from PIL import Image

from lamina.data.case import Case
from lamina.data.phantom import PHANTOM_LABELS, make_phantom
from lamina.data.plan import Normalisation
from lamina.errors import FileError, GeometryError, LabelError
from lamina.geometry import affine_from, reorientation
from lamina.io import read_volume
from lamina.labels import LabelSet
from lamina.report import overlay
from lamina.report.overlay import _Sheet, label_colours, save_overlay
from lamina.report.sections import window_told
from lamina.report.slices import (
    PLANES,
    SOFT_TISSUE_HU,
    is_ct,
    planes_of,
    to_screen,
    view_of,
    window_of,
)
from lamina.volume import Volume
from small_bundles import small_bundle

AXIAL, CORONAL, SAGITTAL = PLANES
ONE = LabelSet(values={"blob": 3})


def blob(orientation: str) -> tuple[Volume, np.ndarray]:
    """A bright spot at the patient's right, front and top, stored in some orientation."""
    array = np.zeros((1, 12, 10, 8), dtype=np.float32)
    array[0, 9:11, 7:9, 6] = 100
    affine = affine_from((1, 2, 3))
    turn = reorientation(affine, orientation)
    image = Volume(turn.apply(array), turn.affine(affine, (12, 10, 8)))
    return image, (image.array > 0).astype(np.uint8)


def slice_of(plane: np.ndarray) -> Volume:
    return Volume(plane[None].astype(np.float64), np.eye(4))


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB")).astype(int)


def count_near(path: Path, colour: tuple[float, float, float]) -> int:
    distance = np.abs(pixels(path) - np.round(255 * np.array(colour))).sum(axis=2)
    return int((distance < 12).sum())


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL", "ILP"])
@pytest.mark.parametrize(
    ("plane", "size_mm"), [(AXIAL, (20, 12)), (CORONAL, (24, 12)), (SAGITTAL, (24, 20))]
)
def test_right_is_left_and_front_or_head_is_up(orientation, plane, size_mm):
    image, indices = blob(orientation)
    view = view_of(image, indices, None, plane)
    row, column = np.argwhere(view.image > 0).mean(axis=0) / view.image.shape
    assert row < 0.5
    assert column < 0.5
    assert view.size_mm == pytest.approx(size_mm)
    assert np.array_equal(view.segmentation > 0, view.image > 0)


def test_sagittal_slices_run_to_the_left():
    image, _ = blob("LPS")
    stack, affine = to_screen(image.array, image.affine, SAGITTAL)
    bright = np.flatnonzero(stack.any(axis=(0, 1)))
    assert bright.max() < stack.shape[2] / 2
    assert affine[0, 2] < 0


def test_2d_image_is_shown_in_its_own_plane():
    right_and_up = np.array([[2.0, 0, 0, 0], [0, 0, 1, 0], [0, 3, 0, 0], [0, 0, 0, 1]])
    image = Volume(np.arange(12.0).reshape(1, 4, 3), right_and_up)
    assert planes_of(image) == (CORONAL,)
    stack, _ = to_screen(image.array, image.affine, CORONAL)
    assert stack[:, :, 0].tolist() == image.array[0, ::-1, ::-1].T.tolist()


def test_slices_show_small_structures_too():
    indices = np.zeros((1, 20, 20, 20), dtype=np.uint8)
    indices[0, :, :, 2:9] = 1
    indices[0, 9:12, 9:12, 8] = 2
    image = Volume(indices.astype(np.float32), np.eye(4))
    assert (view_of(image, indices, None, AXIAL).segmentation == 2).any()
    missed = np.zeros_like(indices)
    reference = view_of(image, missed, indices, AXIAL).reference
    assert reference is not None
    assert (reference == 2).any()


def test_window_fits_the_kind_of_image():
    ct, _ = make_phantom(0)
    assert window_of(ct) == (-160, 240)
    mr = np.append(np.full(3000, np.nan), np.random.default_rng(0).uniform(0, 1.7e6, 5000))
    low, high = window_of(slice_of(mr.reshape(80, 100)))
    assert 0 <= low < 0.1e6
    assert 1.5e6 < high <= 1.7e6
    almost = np.ones((100, 100))
    almost[0, 0] = 0
    for flat in (np.zeros((5, 1)), np.full((5, 1), np.nan), almost):
        low, high = window_of(slice_of(flat))
        assert low < high


def test_single_voxels_do_not_tell_the_kind_of_an_image():
    rng = np.random.default_rng(0)
    mr = slice_of(rng.normal(500, 100, (64, 64)))
    low, high = window_of(mr)
    for odd in (-320, -1000, 1e38):
        mr.array[0, 0, 0] = odd
        assert window_of(mr) == (pytest.approx(low, rel=0.02), pytest.approx(high, rel=0.02))
    ct = slice_of(rng.normal(40, 30, (64, 64)))
    ct.array[0, :20] = -1000
    ct.array[0, 30, 30] = 9000
    assert window_of(ct) == SOFT_TISSUE_HU
    assert window_told(ct) == "-160 to 240 HU, soft tissue"
    assert window_of(ct, ct=False) != SOFT_TISSUE_HU
    inside = slice_of(rng.normal(40, 30, (64, 64)))
    assert "HU" not in window_told(inside)
    assert window_of(inside, ct=True) == SOFT_TISSUE_HU
    difference = slice_of(rng.normal(0, 150, (64, 64)).clip(-500))
    assert "HU" not in window_told(difference)


def test_a_plan_says_what_is_a_ct():
    plan = small_bundle("lightmedseg").plan
    assert is_ct(plan) is None
    hounsfield = Normalisation(scheme="ct", low=-100, high=300, mean=50, std=60)
    assert is_ct(replace(plan, normalisation=(hounsfield,))) is True


def test_colours_are_safe_first_and_never_repeat_early():
    many = LabelSet(values={f"organ_{i}": i for i in range(1, 22)})
    colours = label_colours(many)
    assert list(colours) == list(many.foreground)
    assert len(set(colours.values())) == 21
    assert to_hex(colours["organ_1"]).upper() == "#56B4E9"
    assert all(0 <= part <= 1 for colour in colours.values() for part in colour)


def test_picture_shows_prediction_and_reference(tmp_path):
    image, label = make_phantom(0)
    save_overlay(tmp_path / "two.png", image, label, PHANTOM_LABELS)
    shifted = Volume(np.roll(label.array, 3, axis=2), label.affine)
    save_overlay(
        tmp_path / "new" / "three.png",
        image,
        shifted,
        PHANTOM_LABELS,
        reference=label,
        title="A $x",
    )
    two, three = pixels(tmp_path / "two.png"), pixels(tmp_path / "new" / "three.png")
    assert three.shape[1] > 1.3 * two.shape[1]
    for colour in label_colours(PHANTOM_LABELS).values():
        assert count_near(tmp_path / "two.png", colour) > 100
    white = (1.0, 1.0, 1.0)
    assert count_near(tmp_path / "new" / "three.png", white) > count_near(
        tmp_path / "two.png", white
    )
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"two.png", "three.png"}


def test_2d_and_empty_and_ignored_and_multichannel(tmp_path):
    image, label = make_phantom(2, spatial_dims=2)
    save_overlay(tmp_path / "flat.png", image, label, PHANTOM_LABELS, reference=label)
    height, width, _ = pixels(tmp_path / "flat.png").shape
    assert width > 2 * height

    labels = LabelSet(values={"blob": 3}, ignore=9)
    ignored = Volume(np.full((1, 6, 5, 4), 9), np.eye(4))
    channels = Volume(np.stack([np.full((6, 5, 4), np.nan), np.ones((6, 5, 4))]), np.eye(4))
    save_overlay(tmp_path / "none.png", channels, ignored, labels, reference=ignored)
    assert count_near(tmp_path / "none.png", label_colours(labels)["blob"]) < 1000


@pytest.mark.parametrize(
    ("shape", "unit", "expected"),
    [
        ((6, 5, 4), "mm", ["Volume, ml", "960", "20 mm", "L"]),
        ((6, 5), "mm", ["Area, cm²", "120", "20 mm"]),
        ((6, 5), "px", ["Area, px", "30.0"]),
    ],
)
def test_sizes_and_scale_are_in_units_that_are_known(tmp_path, monkeypatch, shape, unit, expected):
    slanted = affine_from((20,) * 3)
    slanted[0, 2] = 15
    label = Volume(np.full((1, *shape), 3, np.uint8), slanted, unit=unit)
    told = []
    monkeypatch.setattr(_Sheet, "text", lambda sheet, left, down, text, **how: told.append(text))
    monkeypatch.setattr(Axes, "annotate", lambda axes, text, *where, **how: told.append(text))
    monkeypatch.setattr(overlay, "draw_marks", lambda axes, plane: told.append("L"))
    save_overlay(tmp_path / "x.png", label, label, ONE)
    assert all(text in told for text in expected)
    assert ("L" in told) == (len(shape) == 3)
    assert any(text.endswith(" mm") for text in told) == (unit == "mm")


def test_a_large_scan_is_looked_at_in_all_its_slices():
    array = np.zeros((1, 1000, 1000, 30), np.uint16)
    array[0, :, :, 1:] = np.arange(1000)[:, None]
    low, high = window_of(Volume(array, affine_from((1,) * 3)))
    assert low < 10
    assert high > 900


@pytest.mark.parametrize("size", [None, (0.5, 0.5)])
def test_a_photograph_is_shown_in_its_colours_and_lies_nowhere(tmp_path, monkeypatch, size):
    colour = np.array([200, 60, 10], np.uint8)
    picture = np.broadcast_to(colour[:, None, None], (3, 60, 40))
    image = Volume(picture, np.diag([-1.0, -1, 1, 1]), unit="px", in_colour=True)
    image = image if size is None else image.sized(size)
    label = Volume(np.zeros((1, 60, 40), np.uint8), image.affine, unit=image.unit)
    label.array[0, 20:30, 10:20] = 3
    told = []
    monkeypatch.setattr(_Sheet, "text", lambda sheet, left, down, text, **how: told.append(text))
    monkeypatch.setattr(overlay, "draw_marks", lambda axes, plane: told.append("L"))
    save_overlay(tmp_path / "photo.png", image, label, ONE)
    assert count_near(tmp_path / "photo.png", tuple(colour / 255)) > 10_000
    assert not {"L", *(plane.name for plane in PLANES)} & {*told}
    assert window_told(image) == ""


def test_three_grey_pictures_of_a_case_are_no_photograph(tmp_path):
    files = []
    for number, grey in enumerate((200, 60, 10)):
        files.append(tmp_path / f"x_000{number}.png")
        Image.new("L", (60, 40), grey).save(files[-1])
    case = Case(case_id="x", group="x", images=tuple(files))
    image = case.read_image(("before", "during", "after"))
    label = replace(image, array=np.zeros((1, 60, 40), np.uint8))
    save_overlay(tmp_path / "x.png", image, label, ONE)
    assert count_near(tmp_path / "x.png", (200 / 255, 60 / 255, 10 / 255)) == 0
    assert window_told(image) == "200 to 201"


@pytest.mark.parametrize(
    ("segmentation", "error"),
    [
        (Volume(np.zeros((1, 6, 5, 3), dtype=np.uint8), np.eye(4)), GeometryError),
        (Volume(np.zeros((1, 6, 5, 4), dtype=np.uint8), np.diag([1, 1, 2, 1])), GeometryError),
        (Volume(np.full((1, 6, 5, 4), 4), np.eye(4), "mask.nii.gz"), LabelError),
    ],
)
def test_what_does_not_fit_is_refused_and_nothing_stays(tmp_path, segmentation, error):
    image = Volume(np.ones((1, 6, 5, 4)), np.eye(4))
    with pytest.raises(error):
        save_overlay(tmp_path / "out" / "x.png", image, segmentation, ONE)
    assert list(tmp_path.rglob("*.png")) == []


def test_a_picture_that_cannot_be_written_leaves_nothing(tmp_path):
    image, indices = blob("RAS")
    segmentation = Volume(3 * indices, image.affine)
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(FileError, match="cannot be written"):
        save_overlay(blocked / "x.png", image, segmentation, ONE)
    taken = tmp_path / "x.png"
    taken.mkdir()
    (taken / "kept").touch()
    with pytest.raises(FileError, match="cannot be written"):
        save_overlay(taken, image, segmentation, ONE)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept", "x.png"]


def test_real_scans_are_drawn(tmp_path, shared):
    cases = {
        "hippocampus/{}/hippocampus_001.nii.gz": {"anterior": 1, "posterior": 2},
        "sts_multimodal/{}/STS_001.nii.gz": {"GTV": 1},
    }
    for pattern, values in cases.items():
        image = read_volume(shared / "data" / pattern.format("imagesTr"))
        label = read_volume(shared / "data" / pattern.format("labelsTr"))
        labels = LabelSet(values=values)
        save_overlay(tmp_path / "real.png", image, label, labels, reference=label)
        for colour in label_colours(labels).values():
            assert count_near(tmp_path / "real.png", colour) > 100

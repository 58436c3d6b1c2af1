"""Pictures and masks: paired by name or by list, and refused with a reason."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lamina.data.case import Case
from lamina.data.folds import given_fold
from lamina.data.layouts import LAYOUTS, read_cohort
from lamina.data.layouts.nnunet_export import write_nnunet
from lamina.errors import DatasetError
from lamina.io import read_labels


def picture(path: Path, colours: int = 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = (4, 6, colours) if colours > 1 else (4, 6)
    Image.fromarray(np.full(size, 90, np.uint8)).save(path)


def mask(path: Path, value: int = 255) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.zeros((4, 6), np.uint8)
    array[1, :3] = value
    Image.fromarray(array).save(path)


def read(folder: Path):
    return read_cohort(folder, "pictures")


@pytest.mark.parametrize("masks", ["masks", "labels"])
@pytest.mark.parametrize("ending", ["", "_mask", "_segmentation"])
def test_two_folders_pair_up_by_name(tmp_path, masks, ending):
    for name in ("p1_visit1", "p1_visit2"):
        picture(tmp_path / "images" / f"{name}.jpg")
        mask(tmp_path / masks / f"{name}{ending}.png")
    picture(tmp_path / "cover.png")
    (tmp_path / "images" / "Thumbs.db").touch()
    cohort = read(tmp_path)
    assert cohort.channels == ("red", "green", "blue")
    assert dict(cohort.labels.values) == {"label_255": 255}
    assert [(case.case_id, case.group) for case in cohort.cases] == [
        ("p1_visit1", "p1"),
        ("p1_visit2", "p1"),
    ]
    image = cohort.cases[0].read_image(cohort.channels)
    label = cohort.cases[0].read_label(cohort.labels, image)
    assert (image.spatial_shape, image.unit) == ((6, 4), "px")
    assert np.argwhere(label.array[0] == 1).tolist() == [[0, 1], [1, 1], [2, 1]]


def test_pictures_and_masks_may_lie_side_by_side(tmp_path):
    for name in ("benign/benign (1)", "normal/normal (1)", "odd"):
        picture(tmp_path / f"{name}.png", 1)
        mask(tmp_path / f"{name}_mask.png", 0 if "normal" in name else 255)
    cohort = read(tmp_path)
    assert [case.case_id for case in cohort.cases] == ["odd", "benign (1)", "normal (1)"]
    assert cohort.channels == ("grey",)
    assert LAYOUTS.get("pictures").matches(tmp_path)


def test_other_folders_may_be_called_as_they_like(tmp_path):
    picture(tmp_path / "Training_Input" / "ISIC_0000001.jpg")
    mask(tmp_path / "Training_GroundTruth" / "ISIC_0000001_segmentation.png")
    assert [case.case_id for case in read(tmp_path).cases] == ["ISIC_0000001"]
    assert LAYOUTS.get("pictures").matches(tmp_path)


def test_a_list_tells_pairs_and_patients(tmp_path):
    for name in ("a", "b", "spare"):
        picture(tmp_path / "deep" / "er" / f"{name}.jpg")
        mask(tmp_path / "gt" / f"of_{name}.png")
    lines = [f"deep/er/{name}.jpg,gt/of_{name}.png,train,anna" for name in "ab"]
    (tmp_path / "split.csv").write_text("\n".join(["image,mask,split,group", *lines]))
    cohort = read(tmp_path)
    assert [(case.case_id, case.group) for case in cohort.cases] == [("a", "anna"), ("b", "anna")]
    assert LAYOUTS.get("pictures").matches(tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("image,split", "a.jpg,train"), "not every row has mask"),
        (("image,mask", "a.jpg,a.png", "b.jpg,"), "not every row has mask"),
        (("image,mask", "../a.jpg,a.png"), "lies outside the dataset"),
        (("image,mask", "c.jpg,d.png"), r"2 files that it lists do not exist: \['c\.jpg'"),
        (("image,mask", "a.jpg,a.png", "b.jpg,a.png"), r"more than once: \['a\.png'\]"),
    ],
)
def test_a_list_that_cannot_be_followed_is_refused(tmp_path, lines, message):
    for name in "ab":
        picture(tmp_path / f"{name}.jpg")
    mask(tmp_path / "a.png")
    (tmp_path / "split.csv").write_text("\n".join(lines))
    with pytest.raises(DatasetError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    ("image", "label"),
    [("a{}_image", "a{}_mask"), ("img_{}", "mask_{}"), ("img_{}", "img_{}_label")],
)
def test_names_of_pictures_that_do_not_pair_up_are_shown(tmp_path, image, label):
    for number in range(3):
        picture(tmp_path / "images" / f"{image.format(number)}.png")
        mask(tmp_path / "masks" / f"{label.format(number)}.png")
    with pytest.raises(DatasetError, match=rf"{image.format(1)}.*; labels: .*{label.format(1)}"):
        read(tmp_path)


def test_pictures_without_a_partner_are_listed(tmp_path):
    for number in range(9):
        picture(tmp_path / "images" / f"a{number}.png")
    mask(tmp_path / "masks" / "b.png")
    picture(tmp_path / "images" / "c.png")
    mask(tmp_path / "masks" / "c.png")
    with pytest.raises(DatasetError, match=r"10 of 11 cases .* has no label; ") as caught:
        read(tmp_path)
    assert caught.value.message.count("has no label") == 5


def test_two_pictures_of_one_name_are_refused(tmp_path):
    picture(tmp_path / "images" / "a.png")
    picture(tmp_path / "images" / "a.jpg")
    mask(tmp_path / "masks" / "a.png")
    with pytest.raises(DatasetError, match=r"pictures have one name: \['a'\]"):
        read(tmp_path)


def test_folders_without_pictures_or_masks_are_others(tmp_path):
    matches = LAYOUTS.get("pictures").matches
    (tmp_path / "masks").mkdir()
    assert not matches(tmp_path)
    (tmp_path / "masks" / "a.nii.gz").touch()
    assert not matches(tmp_path)
    picture(tmp_path / "a.png")
    assert not matches(tmp_path)
    with pytest.raises(DatasetError, match="holds no scans with a label"):
        read(tmp_path)
    (tmp_path / "a.png").unlink()
    with pytest.raises(DatasetError, match="holds no scans with a label"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("busi_breast_us", 1),
        ("hc18_ultrasound", 1),
        ("isic2017_dermoscopy", 3),
        ("kvasir_seg_256", 3),
    ],
)
def test_real_sets_are_read_as_they_are(shared, name, channels):
    folder = shared / "data" / name
    assert LAYOUTS.get("pictures").matches(folder)
    cohort = read(folder)
    with (folder / "split.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert len(cohort.cases) == len(rows)
    assert {case.group for case in cohort.cases} == {row["group"] for row in rows}
    assert len(cohort.channels) == channels
    assert dict(cohort.labels.values) == {"label_255": 255}
    for case, row in list(zip(cohort.cases, rows, strict=True))[::50]:
        image = case.read_image(cohort.channels)
        label = case.read_label(cohort.labels, image)
        assert label.array.mean() == pytest.approx(float(row["fg_frac"]), abs=1e-4)
        with Image.open(folder / row["image"]) as stored:
            assert image.spatial_shape == stored.size


def test_masks_of_several_objects_are_merged(tmp_path):
    picture(tmp_path / "a.png", 1)
    mask(tmp_path / "a_mask.png")
    other = np.zeros((4, 6), np.uint8)
    other[3, 5] = 255
    Image.fromarray(other).save(tmp_path / "a_mask_1.png")
    cohort = read(tmp_path)
    image = cohort.cases[0].read_image(cohort.channels)
    assert cohort.cases[0].read_label(cohort.labels, image).array.sum() == 4
    assert Case.from_dict(cohort.cases[0].as_dict()) == cohort.cases[0]
    export = write_nnunet(cohort, tmp_path / "Dataset001_Objects")
    assert read_labels(export.cohort.cases[0].label).array.sum() == 4


def test_a_list_tells_the_size_of_pixels_and_the_split(shared):
    cohort = read(shared / "data" / "hc18_ultrasound")
    case = cohort.cases[0]
    image = case.read_image(cohort.channels)
    assert (image.unit, image.spacing) == ("mm", pytest.approx((0.138272, 0.138272)))
    case.read_label(cohort.labels, image)
    fold = given_fold(cohort.cases)
    assert (len(fold.train), len(fold.val)) == (580, 150)
    assert Case.from_dict(case.as_dict()) == case


@pytest.mark.parametrize("name", ["busi_breast_us", "isic2017_dermoscopy", "kvasir_seg_256"])
def test_real_splits_keep_patients_apart(shared, name):
    assert given_fold(read(shared / "data" / name).cases)


@pytest.mark.parametrize(
    ("split", "size", "message"),
    [("third", "1", "split is 'third'"), ("", "wide", "pixel_size_mm"), ("", "0", "pixels of")],
)
def test_sides_and_sizes_must_make_sense(tmp_path, split, size, message):
    picture(tmp_path / "a.jpg")
    mask(tmp_path / "b.png")
    rows = ["image,mask,split,pixel_size_mm", f"a.jpg,b.png,{split},{size}"]
    (tmp_path / "split.csv").write_text("\n".join(rows))
    with pytest.raises(DatasetError, match=message):
        read(tmp_path)

"""Challenges' own ways of naming files, and what is refused."""

import json
import logging
from pathlib import Path

import pytest

from lamina.data.datasets import load_description
from lamina.data.layouts import LAYOUTS, read_cohort
from lamina.data.layouts.patients import _NAMINGS
from lamina.errors import DatasetError


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def brats(number: int) -> list[str]:
    name = f"BraTS2021_{number:05d}"
    return [f"{name}/{name}_{part}.nii.gz" for part in ("flair", "t1", "t1ce", "t2", "seg")]


GLI = "BraTS-GLI-00003-{0}/BraTS-GLI-00003-{0}-{1}.nii.gz"
ACDC = "patient007/patient007_frame{}.nii.gz"
EXAMPLES = [
    (
        "brats2021",
        [*brats(0), "README.txt"],
        [("BraTS2021_00000", "BraTS2021_00000")],
        ["_flair", "_t1ce", "_t1", "_t2"],
        "_seg",
    ),
    (
        "brats2023",
        [
            GLI.format(f"{scan:03d}", part)
            for scan in (0, 1)
            for part in ["t1c", "t1n", "t2f", "t2w", "seg"]
        ],
        [("BraTS-GLI-00003-000", "BraTS-GLI-00003"), ("BraTS-GLI-00003-001", "BraTS-GLI-00003")],
        ["-t2f", "-t1c", "-t1n", "-t2w"],
        "-seg",
    ),
    (
        "acdc",
        [ACDC.format(f) for f in ("01", "01_gt", "12", "12_gt")]
        + ["patient007/patient007_4d.nii.gz"],
        [("patient007_frame01", "patient007"), ("patient007_frame12", "patient007")],
        ["_frame01"],
        "_gt",
    ),
    (
        "kits23",
        ["case_00001/imaging.nii.gz", "case_00001/segmentation.nii.gz"],
        [("case_00001", "case_00001")],
        ["imaging"],
        "segmentation",
    ),
    (
        "lits",
        ["volume-0.nii", "segmentation-0.nii", "volume-10.nii", "segmentation-10.nii"],
        [("volume-0", "volume-0"), ("volume-10", "volume-10")],
        ["volume-0"],
        "segmentation-0",
    ),
    (
        "btcv",
        ["img/img0001.nii.gz", "label/label0001.nii.gz"],
        [("img0001", "img0001")],
        ["img0001"],
        "label0001",
    ),
]


@pytest.mark.parametrize(("dataset", "files", "cases", "images", "label"), EXAMPLES)
def test_each_naming_is_read(tmp_path, dataset, files, cases, images, label):
    cohort = read_cohort(touch(tmp_path / "Set", *files))
    description = load_description(dataset)
    assert (cohort.name, cohort.channels) == ("Set", description.channels)
    assert cohort.labels == description.label_set
    assert [(case.case_id, case.group) for case in cohort.cases] == cases
    assert all(description.names.fits(case.case_id) for case in cohort.cases)
    stems = [path.name.partition(".")[0] for path in cohort.cases[0].images]
    assert all(stem.endswith(end) for stem, end in zip(stems, images, strict=True))
    assert cohort.cases[0].label.name.partition(".")[0].endswith(label)


def test_every_naming_has_a_file_for_each_described_channel():
    for naming in _NAMINGS:
        assert len(naming.images) == len(load_description(naming.dataset).channels)


def test_every_naming_has_an_example():
    assert [naming.dataset for naming in _NAMINGS] == [example[0] for example in EXAMPLES]


def test_scans_without_a_label_are_left_out_and_said_so(tmp_path, caplog):
    names = [f"case_{number:05d}/imaging.nii.gz" for number in range(9)]
    touch(tmp_path, *names, "case_00000/segmentation.nii.gz")
    with caplog.at_level(logging.WARNING):
        cohort = read_cohort(tmp_path)
    assert [case.case_id for case in cohort.cases] == ["case_00000"]
    assert "8 scans without a label" in caplog.text
    assert caplog.text.count("case_") == 5
    (tmp_path / "case_00000" / "segmentation.nii.gz").unlink()
    with pytest.raises(DatasetError, match="holds no scans with a label"):
        read_cohort(tmp_path)


def test_missing_images_are_listed(tmp_path):
    for number in range(7):
        touch(tmp_path, *brats(number)[1:])
    with pytest.raises(
        DatasetError, match="7 of 7 cases lack channels .*00000 lacks flair;"
    ) as caught:
        read_cohort(tmp_path)
    assert caught.value.message.count("BraTS2021_") == 5
    assert caught.value.message.endswith("; and 2 more.")


def test_cases_that_lack_an_image_are_listed_and_the_others_go_on(tmp_path):
    touch(tmp_path, *brats(0), *brats(1)[1:], *brats(2))
    with pytest.raises(DatasetError, match=r"1 of 3 cases .*: BraTS2021_00001 lacks flair\."):
        read_cohort(tmp_path)
    rest = read_cohort(tmp_path, partial=True)
    assert [case.case_id for case in rest.cases] == ["BraTS2021_00000", "BraTS2021_00002"]
    ((_, files),) = rest.unpaired.items()
    assert {path.parent.name for path in files} == {"BraTS2021_00001"}
    assert len(files) == 4


def test_where_half_of_the_cases_lack_an_image_nothing_is_guessed(tmp_path):
    touch(tmp_path, *brats(0), *brats(1)[1:])
    with pytest.raises(DatasetError, match=r"1 of 2 cases lack channels .*00001 lacks flair\."):
        read_cohort(tmp_path, partial=True)


def test_a_label_without_its_image_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"1 of 1 cases .*: volume-3 lacks volume\."):
        read_cohort(touch(tmp_path, "segmentation-3.nii"))


def test_one_file_in_two_formats_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"volume-3\.nii\.gz: volume-3\.nii has the same name"):
        read_cohort(touch(tmp_path, "volume-3.nii", "volume-3.nii.gz"))


def test_two_datasets_in_one_folder_are_refused(tmp_path):
    touch(tmp_path, *brats(0), "volume-3.nii", "segmentation-3.nii")
    with pytest.raises(DatasetError, match="called as in brats2021 and lits"):
        read_cohort(tmp_path)
    other = touch(tmp_path / "other", "x.txt")
    with pytest.raises(DatasetError, match="called as in no known dataset"):
        read_cohort(other, "patients")


def test_the_user_may_declare_other_labels(tmp_path):
    touch(tmp_path, "case_00001/imaging.nii.gz", "case_00001/segmentation.nii.gz")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"kidney": 1, "tumour": 2}}))
    cohort = read_cohort(tmp_path)
    assert dict(cohort.labels.values) == {"kidney": 1, "tumour": 2}
    assert cohort.channels == ("CT",)


def test_other_names_are_not_taken(tmp_path):
    touch(tmp_path, "patient7/patient7_frame01.nii.gz", "a/b/case_00001/imaging.nii.gz", "v-0.nii")
    assert not LAYOUTS.get("patients").matches(tmp_path)

"""Folders tell by themselves which layout they have, and never two."""

import json
from pathlib import Path

import pytest

from lamina.data.layouts import LAYOUTS, read_cohort
from lamina.errors import DatasetError

NNUNET = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "a": 1}, "file_ending": ".png"}
DESCRIPTIONS = {
    "msd": {"dataset.json": json.dumps({"training": []})},
    "nnunet": {"dataset.json": json.dumps(NNUNET)},
    "table": {"cases.csv": "image,label\n"},
    "pictures": {"split.csv": "image,mask\n"},
}
FILES = {
    "bids": [
        "sub-1/anat/sub-1_T1w.nii.gz",
        "derivatives/x/sub-1/anat/sub-1_dseg.nii.gz",
        "participants.tsv",
    ],
    "msd": ["imagesTr/a.nii.gz", "labelsTr/a.nii.gz"],
    "nnunet": ["imagesTr/a_0000.png", "labelsTr/a.png"],
    "patients": ["patient001/patient001_frame01.nii.gz", "patient001/patient001_frame01_gt.nii.gz"],
    "pictures": ["images/a.jpg", "masks/a.png"],
    "table": ["images/a.png", "masks/a.png", "volume-0.nii", "sub-1/x.nii", "derivatives/x.nii"],
}


FALLBACKS = ("dicom", "folders")


def lay_out(folder: Path, name: str) -> Path:
    for path in FILES[name]:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    for path, text in DESCRIPTIONS.get(name, {}).items():
        (folder / path).write_text(text)
    return folder


def matching(folder: Path) -> list[str]:
    """Return the layouts that match, but the one that is taken where no other does."""
    layouts = {name: LAYOUTS.get(name) for name in LAYOUTS}
    return [name for name, one in layouts.items() if one.matches(folder) and not one.fallback]


@pytest.mark.parametrize("name", FILES)
def test_exactly_one_layout_matches(tmp_path, name):
    assert matching(lay_out(tmp_path, name)) == [name]


def test_every_layout_has_an_example():
    assert {*FILES, *FALLBACKS} == {*LAYOUTS}


def test_a_damaged_description_is_for_one_layout_to_report(tmp_path):
    lay_out(tmp_path, "patients")
    lay_out(tmp_path, "pictures")
    (tmp_path / "dataset.json").write_text("{")
    assert matching(tmp_path) == ["msd"]


@pytest.mark.parametrize("name", ["acdc", "hippocampus", "ct_multiorgan", "ms_multimodal"])
def test_real_decathlon_sets_have_one_layout(shared, name):
    assert matching(shared / "data" / name) == ["msd"]


def test_folders_of_scans_without_a_description_are_none_of_these(tmp_path):
    for path in ("images/a.nii.gz", "labels/a.nii.gz", "images/sub/a.nii.gz", "notes.csv"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    assert matching(tmp_path) == []


def test_a_folder_that_two_layouts_claim_is_not_guessed(tmp_path):
    lay_out(tmp_path, "patients")
    lay_out(tmp_path, "bids")
    with pytest.raises(DatasetError, match="as bids or as patients") as caught:
        read_cohort(tmp_path)
    assert "--layout bids" in caught.value.remedy


def test_what_is_no_dataset_folder_is_told_apart(tmp_path):
    with pytest.raises(DatasetError, match="is empty"):
        read_cohort(tmp_path)
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(DatasetError, match="layout not recognised") as caught:
        read_cohort(tmp_path)
    assert {line.partition(":")[0].strip() for line in caught.value.remedy.splitlines()[1:]} == set(
        LAYOUTS
    )
    with pytest.raises(DatasetError, match=r"notes.txt: is a file"):
        read_cohort(tmp_path / "notes.txt")

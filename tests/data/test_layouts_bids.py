"""BIDS: a session's contrasts and its segmentation, and doubt refused with a reason."""

import json
from pathlib import Path

import numpy as np
import pytest

from lamina.data.layouts import LAYOUTS, read_cohort
from lamina.errors import DatasetError, LaminaError
from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.volume import Volume

LABELS = "derivatives/manual"


def scan(folder: Path, *names: str) -> Path:
    array = np.zeros((1, 2, 3, 2), np.uint8)
    array[0, 0] = 3
    for name in names:
        write_volume(Volume(array, affine_from((1, 1, 1))), folder / f"{name}.nii.gz")
    return folder


def dataset(folder: Path) -> Path:
    """Lay out two sessions of one subject and one of another."""
    for subject, session in (("01", "ses-a"), ("01", "ses-b"), ("02", "ses-a")):
        home, name = f"sub-{subject}/{session}/anat", f"sub-{subject}_{session}"
        scan(folder, f"{home}/{name}_FLAIR", f"{home}/{name}_T1w", f"{home}/{name}_angio")
        scan(folder, f"sub-{subject}/{session}/func/{name}_task-rest_bold")
        scan(folder, f"{LABELS}/{home}/{name}_desc-manual_dseg")
    return folder


def test_a_case_is_a_session_and_a_patient_a_subject(tmp_path):
    folder = dataset(tmp_path / "Brains")
    cohort = read_cohort(folder)
    assert (cohort.name, cohort.channels) == ("Brains", ("T1w", "FLAIR"))
    assert [(case.case_id, case.group) for case in cohort.cases] == [
        ("sub-01_ses-a", "sub-01"),
        ("sub-01_ses-b", "sub-01"),
        ("sub-02_ses-a", "sub-02"),
    ]
    case = cohort.cases[1]
    assert [path.name for path in case.images] == [
        "sub-01_ses-b_T1w.nii.gz",
        "sub-01_ses-b_FLAIR.nii.gz",
    ]
    assert case.label.name == "sub-01_ses-b_desc-manual_dseg.nii.gz"
    assert dict(cohort.labels.values) == {"label_3": 3}


def test_tables_name_the_labels_and_the_description_the_dataset(tmp_path):
    dataset(tmp_path)
    (tmp_path / LABELS / "desc-manual_dseg.tsv").write_text(
        "index\tname\tcolor\n0\tUnknown\t#000\n3\tlesion core\t#f00\n7\toedema\t#0f0\n"
    )
    about = {"Name": "MS", "License": "CC0", "BIDSVersion": "1.9.0"}
    (tmp_path / "dataset_description.json").write_text(json.dumps(about))
    cohort = read_cohort(tmp_path)
    assert (cohort.name, cohort.licence) == ("MS", "CC0")
    assert dict(cohort.labels.values) == {"lesion core": 3, "oedema": 7}
    assert cohort.labels.background == 0


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("index\tlabel\n3\tlesion\n", "is no label"),
        ("index\tname\nthree\tlesion\n", "is no label"),
        ("index\tname\n3\tlesion\n3\ttumour\n", "calls 3 'tumour'; another .* 'lesion'"),
        ("index\tname\n3\tlesion\n4\tlesion\n", "one name stands for several"),
        ("index\tname\n", "has no rows"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(tmp_path, table, message):
    dataset(tmp_path)
    (tmp_path / LABELS / "dseg.tsv").write_text(table)
    with pytest.raises(LaminaError, match=message):
        read_cohort(tmp_path)


def test_subjects_need_neither_sessions_nor_a_segmentation(tmp_path):
    scan(tmp_path, "sub-1/anat/sub-1_T2w", "sub-2/anat/sub-2_T2w")
    scan(tmp_path, f"{LABELS}/sub-2/anat/sub-2_dseg")
    cohort = read_cohort(tmp_path)
    assert cohort.channels == ("T2w",)
    assert [case.case_id for case in cohort.cases] == ["sub-2"]


def test_a_contrast_agent_makes_a_channel_of_its_own(tmp_path):
    home = "sub-1/anat/sub-1"
    scan(tmp_path, f"{home}_T1w", f"{home}_ce-gadolinium_T1w", f"{home}_T2w")
    scan(tmp_path, f"{LABELS}/sub-1/anat/sub-1_dseg")
    assert read_cohort(tmp_path).channels == ("T1w", "T1w gadolinium", "T2w")


def test_the_segmentation_tells_the_run(tmp_path):
    runs = [f"sub-1/anat/sub-1_run-{run}_T1w" for run in (1, 2)]
    scan(tmp_path, *runs, f"{LABELS}/sub-1/anat/sub-1_run-2_desc-manual_dseg")
    assert read_cohort(tmp_path).cases[0].images[0].name == "sub-1_run-2_T1w.nii.gz"


def test_a_scan_without_a_mark_is_preferred(tmp_path):
    home = "sub-1/anat/sub-1"
    scan(tmp_path, f"{home}_T1w", f"{home}_acq-fast_T1w", f"{LABELS}/sub-1/anat/sub-1_dseg")
    assert read_cohort(tmp_path).cases[0].images[0].name == "sub-1_T1w.nii.gz"


def test_doubt_is_not_guessed_away(tmp_path):
    home = "sub-1/anat/sub-1"
    scan(tmp_path, f"{home}_run-1_T1w", f"{home}_run-2_T1w")
    scan(tmp_path, f"{LABELS}/sub-1/anat/sub-1_dseg")
    with pytest.raises(DatasetError, match="does not tell which scan it is of") as caught:
        read_cohort(tmp_path)
    assert "sub-1_run-1_T1w.nii.gz" in caught.value.message
    scan(tmp_path, "derivatives/automatic/sub-1/anat/sub-1_dseg")
    with pytest.raises(DatasetError, match="sub-1 has 2 segmentations: .*automatic") as caught:
        read_cohort(tmp_path)
    assert "cases.csv" in caught.value.remedy


def test_cases_that_lack_a_contrast_are_listed(tmp_path):
    dataset(tmp_path)
    (tmp_path / "sub-02/ses-a/anat/sub-02_ses-a_FLAIR.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"1 of 3 cases .*: sub-02_ses-a lacks FLAIR\."):
        read_cohort(tmp_path)
    rest = read_cohort(tmp_path, partial=True)
    assert [case.case_id for case in rest.cases] == ["sub-01_ses-a", "sub-01_ses-b"]
    ((reason, files),) = rest.unpaired.items()
    assert reason == "sub-02_ses-a lacks FLAIR"
    assert [path.name for path in files] == [
        "sub-02_ses-a_T1w.nii.gz",
        "sub-02_ses-a_desc-manual_dseg.nii.gz",
    ]


def test_a_contrast_that_few_sessions_have_is_not_asked_of_all(tmp_path):
    scan(dataset(tmp_path), "sub-02/ses-a/anat/sub-02_ses-a_T2w")
    with pytest.raises(DatasetError, match=r"2 of 3 cases .*: sub-01_ses-a lacks T2w; sub-01"):
        read_cohort(tmp_path, partial=True)


def test_segmentations_without_scans_are_refused(tmp_path):
    (tmp_path / "sub-1").mkdir()
    scan(tmp_path, f"{LABELS}/sub-1/anat/sub-1_dseg")
    with pytest.raises(DatasetError, match="no segmentation belongs to an anatomical scan"):
        read_cohort(tmp_path)


def test_it_is_told_by_subjects_and_derivatives(tmp_path):
    matches = LAYOUTS.get("bids").matches
    (tmp_path / "derivatives").mkdir()
    assert not matches(tmp_path)
    (tmp_path / "sub-1").mkdir()
    assert matches(tmp_path)
    (tmp_path / "cases.csv").touch()
    assert not matches(tmp_path)


@pytest.mark.parametrize("index", ["²", "9" * 5000])
def test_values_that_are_no_numbers_are_refused(tmp_path, index):
    folder = dataset(tmp_path / "Brains")
    (folder / LABELS / "dseg.tsv").write_text(f"index\tname\n{index}\tbright\n", "utf-8")
    with pytest.raises(DatasetError, match="is no label"):
        read_cohort(folder)

"""Cases read what belongs together and refuse what does not."""

import json

import numpy as np
import pytest

from lamina.data.case import Case, patient_of
from lamina.data.cohort import Cohort
from lamina.errors import DatasetError, FileError, GeometryError, LabelError
from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.labels import IGNORE_INDEX, LabelSet
from lamina.volume import Volume

LABELS = LabelSet(values={"core": 2, "shell": 5}, ignore=9)
SHAPE = (5, 4, 3)


def one(case_id: str = "a", **changes) -> Case:
    return Case(**({"case_id": case_id, "group": case_id, "images": ()} | changes))


def volume(array, spacing=(1, 1, 2), origin=(0, 0, 0)) -> Volume:
    return Volume(np.asarray(array), affine_from(spacing, origin))


@pytest.mark.parametrize(
    ("case_id", "patient"),
    [
        ("patient002_frame01", "patient002"),
        ("patient002_frame12", "patient002"),
        ("sub-01_ses-02_T1w", "sub-01"),
        ("sub-01_ses-03_run-2_T1w", "sub-01"),
        ("P7-visit_baseline", "P7"),
        ("kid_3_Session4", "kid_3"),
        ("LIDC-0001_scan", "LIDC-0001"),
        ("042_tp2", "042"),
        # The names of data sets and of sequences are no patients.
        ("hippocampus_001", "hippocampus_001"),
        ("ct_scan_017", "ct_scan_017"),
        ("frame_03", "frame_03"),
        ("case1_tprime", "case1_tprime"),
        ("p1_sesame", "p1_sesame"),
    ],
)
def test_patients_are_told_from_case_ids(case_id, patient):
    assert patient_of(case_id) == patient


def test_channels_come_in_the_order_of_their_files(tmp_path):
    rng = np.random.default_rng(0)
    pair, single = rng.integers(0, 99, (2, *SHAPE), np.uint8), rng.random((1, *SHAPE), np.float32)
    for name, array in (("z.nii", pair), ("a.nrrd", single)):
        write_volume(volume(array), tmp_path / name)
    case = one(images=(tmp_path / "z.nii", tmp_path / "a.nrrd"))
    image = case.read_image(("FLAIR", "T1", "T2"))
    np.testing.assert_array_equal(image.array, np.concatenate([pair, single]))
    assert image.spacing == pytest.approx((1, 1, 2))


@pytest.mark.parametrize("channels", [("T1",), ("T1", "T2", "FLAIR")])
def test_other_channels_than_declared_are_refused(tmp_path, channels):
    write_volume(volume(np.zeros((2, *SHAPE))), tmp_path / "a.nii")
    named = rf"a\.nii: 2 channels, {len(channels)} are declared \({', '.join(channels)}\)"
    with pytest.raises(DatasetError, match=named):
        one(images=(tmp_path / "a.nii",)).read_image(channels)


def test_a_picture_whose_colours_are_all_the_same_is_grey(tmp_path):
    grey = np.random.default_rng(0).integers(0, 256, (1, 6, 5), np.uint8)
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    write_volume(Volume(np.repeat(grey, 3, axis=0), affine, unit="px"), tmp_path / "a.png")
    case = one(images=(tmp_path / "a.png",))
    np.testing.assert_array_equal(case.read_image(("grey",)).array, grey)
    assert case.read_image(("red", "green", "blue")).num_channels == 3
    grey[0, 0, 0] ^= 1
    array = np.concatenate([np.repeat(case.read_image(("grey",)).array, 2, axis=0), grey])
    write_volume(Volume(array, affine, unit="px"), tmp_path / "a.png")
    with pytest.raises(
        DatasetError, match=r"3 channels, 1 are declared \(grey\)\. Save it in grey"
    ):
        case.read_image(("grey",))


@pytest.mark.parametrize(
    "other", [volume(np.zeros((1, 5, 4, 4))), volume(np.zeros((1, *SHAPE)), origin=(0, 0, 0.5))]
)
def test_files_on_different_grids_are_refused_by_name(tmp_path, other):
    write_volume(volume(np.zeros((1, *SHAPE))), tmp_path / "a.nii")
    write_volume(other, tmp_path / "b.nii")
    case = one(images=(tmp_path / "a.nii", tmp_path / "b.nii"))
    with pytest.raises(GeometryError, match=r"a\.nii and .*b\.nii"):
        case.read_image(("T1", "T2"))
    case = one(images=(tmp_path / "a.nii",), label=tmp_path / "b.nii")
    with pytest.raises(GeometryError, match=r"a\.nii and .*b\.nii"):
        case.read_label(LABELS, case.read_image(("T1",)))


def test_labels_become_class_indices(tmp_path):
    array = np.zeros((1, *SHAPE), np.float32)
    array.flat[:4] = (2, 5, 9, 5)
    write_volume(volume(array), tmp_path / "b.nii")
    label = one(label=tmp_path / "b.nii").read_label(LABELS, volume(array))
    assert label.array.dtype == np.uint8
    assert label.array.flat[:5].tolist() == [1, 2, IGNORE_INDEX, 2, 0]


@pytest.mark.parametrize(
    ("value", "message"), [(3, r"b\.nii: label values \[3\] are not declared"), (0.5, r"b\.nii: ")]
)
def test_values_that_are_not_declared_are_refused(tmp_path, value, message):
    array = np.full((1, *SHAPE), value)
    write_volume(volume(array), tmp_path / "b.nii")
    with pytest.raises(LabelError, match=message):
        one(label=tmp_path / "b.nii").read_label(LABELS, volume(array))


def test_a_missing_file_and_a_missing_label_are_named(tmp_path):
    with pytest.raises(FileError, match=r"gone\.nii: does not exist"):
        one(images=(tmp_path / "gone.nii",)).read_image(("T1",))
    with pytest.raises(LabelError, match="P7: has no label file"):
        one("P7").read_label(LABELS, volume(np.zeros((1, *SHAPE))))


def test_a_cohort_holds_each_case_once_and_at_least_one():
    fields = {"name": "Task", "channels": ("CT",), "labels": LABELS}
    with pytest.raises(DatasetError, match="Task: no cases"):
        Cohort(cases=(), **fields)
    with pytest.raises(DatasetError, match=r"more than one scan: \['b'\]"):
        Cohort(cases=(one("b"), one("a"), one("b")), **fields)


def test_a_cohort_comes_back_from_json_as_it_went(tmp_path):
    cohort = Cohort(
        name="Größe",
        channels=("CT", "PET"),
        labels=LabelSet(values={"b": 7, "a": 1}, regions={"both": ("a", "b")}, ignore=3),
        cases=(
            one("x", group="p", images=(tmp_path / "1.nii", tmp_path / "2.nii"), label=tmp_path),
            one("y"),
        ),
        licence="CC0",
    )
    back = Cohort.from_dict(json.loads(json.dumps(cohort.as_dict())))
    assert back == cohort
    assert back.labels.foreground == ("b", "a")


@pytest.mark.parametrize("case_id", ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a\0b"])
def test_ids_that_lead_elsewhere_are_refused(case_id):
    with pytest.raises(DatasetError, match="case id"):
        Case(case_id=case_id, group="a", images=())


@pytest.mark.parametrize("case_id", ["x" * 300, "\ud800"])
def test_ids_that_no_file_can_have_are_refused(case_id):
    with pytest.raises(DatasetError, match="no file system"):
        one(case_id)


def test_files_whose_names_no_file_can_have_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="no file system"):
        one(images=(tmp_path / ("x" * 300) / "a.nii.gz",))

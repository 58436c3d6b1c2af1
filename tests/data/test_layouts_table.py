"""A table of paths: read as it says, and refused with a reason."""

import json
from pathlib import Path

import numpy as np
import pytest

from lamina.data.layouts import LAYOUTS, read_cohort
from lamina.errors import DatasetError, FileError, LaminaError
from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.volume import Volume


def scans(folder: Path, *names: str) -> Path:
    """Write volumes of one channel with a bright corner of value 2."""
    array = np.zeros((1, 3, 4, 2), np.uint8)
    array[0, 0, 0] = 2
    for name in names:
        write_volume(Volume(array, affine_from((1, 1, 1))), folder / f"{name}.nii.gz")
    return folder


def table(folder: Path, *lines: str, name="cases.csv") -> Path:
    (folder / name).write_text("\n".join(lines), encoding="utf-8")
    return folder


def test_a_table_needs_images_and_labels_only(tmp_path):
    folder = scans(tmp_path / "Livers", "deep/er/p1_visit1", "p1_visit1_label")
    cohort = read_cohort(
        table(folder, "image,label", "deep/er/p1_visit1.nii.gz,p1_visit1_label.nii.gz")
    )
    assert (cohort.name, cohort.channels) == ("Livers", ("channel_0",))
    assert dict(cohort.labels.values) == {"label_2": 2}
    case = cohort.cases[0]
    assert (case.case_id, case.group) == ("p1_visit1", "p1")
    assert case.images == (folder / "deep" / "er" / "p1_visit1.nii.gz",)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_channels_patients_and_ids_have_columns(tmp_path, separator):
    scans(tmp_path, "a", "b", "c")
    rows = (
        "case_id,patient,image_T1,remark,image_FLAIR,label",
        "one, anna ,a.nii.gz,,b.nii.gz,c.nii.gz",
        ",,,,,",
    )
    lines = [row.replace(",", separator) for row in rows]
    (tmp_path / "cases.csv").write_text("\r\n".join(lines), encoding="utf-8-sig")
    cohort = read_cohort(tmp_path)
    assert cohort.channels == ("T1", "FLAIR")
    assert [(case.case_id, case.group) for case in cohort.cases] == [("one", "anna")]
    assert [path.name for path in cohort.cases[0].images] == ["a.nii.gz", "b.nii.gz"]
    assert cohort.cases[0].read_image(cohort.channels).num_channels == 2


def test_json_says_the_same(tmp_path):
    scans(tmp_path, "a", "b")
    rows = [{"case_id": 7, "group": None, "image": "a.nii.gz", "label": "b.nii.gz"}]
    table(tmp_path, json.dumps(rows), name="cases.json")
    assert [(case.case_id, case.group) for case in read_cohort(tmp_path).cases] == [("7", "7")]


def test_names_may_be_declared_beside_it(tmp_path):
    scans(tmp_path, "a", "b")
    declared = {"name": "Livers", "channel_names": {"0": "CT"}, "labels": {"liver": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps(declared))
    cohort = read_cohort(table(tmp_path, "image,label", "a.nii.gz,b.nii.gz"))
    assert (cohort.name, cohort.channels) == ("Livers", ("CT",))
    assert dict(cohort.labels.values) == {"liver": 2}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("picture,label", "a.nii.gz,b.nii.gz"), "has the columns picture, label"),
        (("image", "a.nii.gz"), "has the columns image"),
        (("image,image_T1,label", "a.nii.gz,a.nii.gz,b.nii.gz"), "has the columns"),
        (("image,label,image", "a.nii.gz,b.nii.gz,c"), "columns are named twice"),
        (("image,label", "a.nii.gz,b.nii.gz,c,d"), r"more cells than .*\[2\]"),
        (("image,label",), "has no rows"),
        ((), "has no rows"),
        (("image,label", "a.nii.gz,"), "row 1 has no label"),
        (("image,label", "a.nii.gz"), "row 1 has no label"),
        (("image,label", "../a.nii.gz,b.nii.gz"), r"\.\./a\.nii\.gz lies outside"),
        (("image,label", "a.nii.gz,/etc/b.nii.gz"), "/etc/b.nii.gz lies outside"),
        (("image,label", "a.nii.gz,a.nii.gz"), r"listed more than once: \['a\.nii\.gz'\]"),
        (("image,label", "a.txt,b.nii.gz"), "no known scan format"),
        (("image,label,case_id", "a.nii.gz,b.nii.gz,x/y"), "leads to another folder"),
        (("image,label", '"a.nii.gz,b.nii.gz'), "not a table"),
    ],
)
def test_a_table_that_cannot_be_followed_is_one_clear_error(tmp_path, lines, message):
    scans(tmp_path, "a", "b")
    with pytest.raises(LaminaError, match=message):
        read_cohort(table(tmp_path, *lines))


def test_at_most_five_missing_files_are_named(tmp_path):
    lines = [f"a{number}.nii,b{number}.nii" for number in range(9)]
    with pytest.raises(DatasetError, match="18 files that it lists do not exist") as caught:
        read_cohort(table(tmp_path, "image,label", *lines))
    assert caught.value.message.count(".nii'") == 5


def test_one_id_for_two_cases_is_refused(tmp_path):
    scans(tmp_path, "a", "b", "c", "d")
    lines = ("case_id,image,label", "x,a.nii.gz,b.nii.gz", "x,c.nii.gz,d.nii.gz")
    with pytest.raises(DatasetError, match=r"more than one scan: \['x'\]"):
        read_cohort(table(tmp_path, *lines))


@pytest.mark.parametrize(
    "content", ["[]", "5", '{"cases": []}', '["a"]', '[{"image": ["a", "b"], "label": "c"}]']
)
def test_json_of_another_form_is_one_clear_error(tmp_path, content):
    with pytest.raises(DatasetError, match=r"cases\.json: "):
        read_cohort(table(tmp_path, content, name="cases.json"))


def test_files_that_are_no_tables_are_refused(tmp_path):
    (tmp_path / "cases.csv").write_bytes(b"\xff\xfe\x00image")
    with pytest.raises(FileError, match="not a table"):
        read_cohort(tmp_path)
    table(tmp_path, "[]", name="cases.json")
    with pytest.raises(DatasetError, match="has 2 of the tables"):
        read_cohort(tmp_path)


def test_it_is_told_by_the_name_of_the_table(tmp_path):
    assert not LAYOUTS.get("table").matches(table(tmp_path, name="split.csv"))
    assert LAYOUTS.get("table").matches(table(tmp_path))


@pytest.mark.parametrize("value", ["1.5", "Infinity", "2.0"])
def test_values_of_labels_are_whole_numbers(tmp_path, value):
    folder = table(scans(tmp_path, "a", "b"), "image,label", "a.nii.gz,b.nii.gz")
    (folder / "dataset.json").write_text(f'{{"labels": {{"background": 0, "x": {value}}}}}')
    with pytest.raises(LaminaError, match="dataset.json"):
        read_cohort(folder)

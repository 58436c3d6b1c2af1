"""Dataset folders: recognised, read as they say, and refused with a reason."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from lamina.data.layouts import LAYOUTS, read_cohort
from lamina.errors import DatasetError, FileError, LabelError, LaminaError, UnknownNameError
from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.volume import Volume


def description(**changes):
    names = ("patient002_frame12", "patient002_frame01", "patient003_frame01")
    return {
        "name": "Task",
        "licence": "CC0",
        "modality": {"0": "CT"},
        "labels": {"0": "background", "1": "liver", "2": "lesion"},
        "training": [
            {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
            for name in names
        ],
    } | changes


def msd(folder: Path, **changes) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "dataset.json").write_text(json.dumps(description(**changes)))
    return folder


def plain(folder: Path, values: dict[str, int], channels: int = 1) -> Path:
    """Write one scan per name, its label filled with its value but for one voxel."""
    for name, value in values.items():
        label = np.full((1, 3, 4, 2), value, np.int16)
        label[0, 0, 0, 0] = 0
        image = Volume(np.zeros((channels, 3, 4, 2), np.int16), affine_from((1, 1, 1)))
        write_volume(image, folder / "images" / f"{name}.nii.gz")
        write_volume(Volume(label, image.affine), folder / "labels" / f"{name}.mha")
    return folder


def test_a_decathlon_description_is_taken_at_its_word(tmp_path):
    for kind in ("imagesTr", "labelsTr"):
        (tmp_path / kind).mkdir()
    (tmp_path / "imagesTr" / "not_listed.nii.gz").touch()
    cohort = read_cohort(msd(tmp_path))
    assert (cohort.name, cohort.licence, cohort.channels) == ("Task", "CC0", ("CT",))
    assert [case.case_id for case in cohort.cases] == [
        "patient002_frame12",
        "patient002_frame01",
        "patient003_frame01",
    ]
    assert [case.group for case in cohort.cases] == ["patient002", "patient002", "patient003"]
    assert cohort.cases[0].images == (tmp_path / "imagesTr" / "patient002_frame12.nii.gz",)
    assert cohort.cases[0].label == tmp_path / "labelsTr" / "patient002_frame12.nii.gz"
    with pytest.raises(FileError, match=r"patient002_frame12\.nii\.gz: does not exist"):
        cohort.cases[0].read_image(cohort.channels)


@pytest.mark.parametrize(
    ("written", "values", "background", "ignore"),
    [
        ({"0": "background", "3": "liver", "1": "lesion"}, {"liver": 3, "lesion": 1}, 0, None),
        ({"background": 0, "liver": 3, "lesion": 1}, {"liver": 3, "lesion": 1}, 0, None),
        ({"0": "Background", "1": "liver"}, {"liver": 1}, 0, None),
        ({"liver": 0, "background": 4, "ignore": 255}, {"liver": 0}, 4, 255),
        ({"-1": "ignore", "1": "liver"}, {"liver": 1}, 0, -1),
    ],
)
def test_labels_are_read_in_both_styles(tmp_path, written, values, background, ignore):
    labels = read_cohort(msd(tmp_path, labels=written)).labels
    assert list(labels.values.items()) == list(values.items())
    assert (labels.background, labels.ignore) == (background, ignore)


@pytest.mark.parametrize("labels", [{"1": "liver", "2": "liver"}, {"0": "background"}, {}])
def test_labels_that_contradict_themselves_are_refused(tmp_path, labels):
    with pytest.raises(LabelError, match="labels: "):
        read_cohort(msd(tmp_path, labels=labels))


def test_channels_follow_their_numbers(tmp_path):
    modality = {"10": "T2", "9": "T1", "0": "FLAIR"}
    assert read_cohort(msd(tmp_path, modality=modality)).channels == ("FLAIR", "T1", "T2")
    renamed = msd(tmp_path, modality=None, channel_names={"0": "PET"})
    assert read_cohort(renamed).channels == ("PET",)


@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize(
    "name", ["../secret.nii", "/etc/secret.nii", "imagesTr/../../secret.nii", "a/../../secret.nii"]
)
def test_a_description_cannot_point_outside_its_folder(tmp_path, kind, name):
    entry = {"image": "imagesTr/a.nii", "label": "labelsTr/a.nii", kind: name}
    with pytest.raises(DatasetError, match=r"dataset\.json: .*secret\.nii lies outside") as caught:
        read_cohort(msd(tmp_path / "task", training=[entry]))
    assert "relative path" in caught.value.remedy


def test_scans_may_be_links_to_where_they_are_kept(tmp_path):
    store, folder = tmp_path / "store", msd(tmp_path / "task")
    store.mkdir()
    (folder / "imagesTr").mkdir()
    entry = description()["training"][0]
    (store / "MD5E-s7.nii.gz").touch()
    (folder / entry["image"]).symlink_to(store / "MD5E-s7.nii.gz")
    case = read_cohort(folder).cases[0]
    assert case.case_id == "patient002_frame12"
    assert case.images[0].resolve() == store / "MD5E-s7.nii.gz"


def test_a_case_listed_twice_is_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"more than one scan: \['patient003_frame01'\]"):
        read_cohort(msd(tmp_path, training=[description()["training"][-1]] * 2))


@pytest.mark.parametrize(
    "content",
    [
        [],
        None,
        5,
        "training",
        description(training=5),
        description(training=["imagesTr/a.nii"]),
        description(training=[{"image": "imagesTr/a.nii"}]),
        description(training=[{"image": ["a.nii", "b.nii"], "label": "c.nii"}]),
        description(modality=["CT"]),
        description(modality=None),
        description(labels=["liver"]),
        description(labels={"whole": [1, 2]}),
        {"training": description()["training"]},
    ],
)
def test_a_description_of_another_form_is_one_clear_error(tmp_path, content):
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"dataset\.json: "):
        read_cohort(tmp_path)


def test_a_damaged_description_is_named_whatever_else_is_there(tmp_path):
    (plain(tmp_path, {"a": 1}) / "dataset.json").write_text('{"training": [')
    with pytest.raises(FileError, match=r"dataset\.json: not valid JSON"):
        read_cohort(tmp_path)


def test_plain_folders_pair_up_by_name_whatever_the_format(tmp_path):
    folder = plain(tmp_path / "Livers", {"p1_visit1": 7, "p1_visit2": 3, "p2_visit1": 7}, 2)
    (folder / "images" / "._p1_visit1.nii.gz").touch()
    (folder / "images" / "notes.txt").touch()
    cohort = read_cohort(folder)
    assert (cohort.name, cohort.channels) == ("Livers", ("channel_0", "channel_1"))
    assert [case.case_id for case in cohort.cases] == ["p1_visit1", "p1_visit2", "p2_visit1"]
    assert {case.group for case in cohort.cases} == {"p1", "p2"}
    assert dict(cohort.labels.values) == {"label_3": 3, "label_7": 7}
    image = cohort.cases[1].read_image(cohort.channels)
    assert np.count_nonzero(cohort.cases[1].read_label(cohort.labels, image).array == 1) == 23


def test_plain_folders_may_declare_names(tmp_path):
    folder = plain(tmp_path, {"a": 7})
    declared = {"name": "Livers", "channel_names": {"0": "CT"}, "labels": {"liver": 7, "cyst": 8}}
    (folder / "dataset.json").write_text(json.dumps(declared))
    cohort = read_cohort(folder)
    assert (cohort.name, cohort.channels) == ("Livers", ("CT",))
    assert dict(cohort.labels.values) == {"liver": 7, "cyst": 8}
    (folder / "dataset.json").write_text(json.dumps({"labels": {"whole": [1, 2]}}))
    with pytest.raises(DatasetError, match=r"dataset\.json: "):
        read_cohort(folder)


def test_scans_without_a_partner_are_listed(tmp_path):
    folder = plain(tmp_path, {"a": 1, "b": 1, "c": 1})
    (folder / "images" / "a.nii.gz").unlink()
    (folder / "labels" / "c.mha").unlink()
    with pytest.raises(DatasetError, match=r"2 of 3 cases .*: a has no image; c has no label\."):
        read_cohort(folder)


def test_folders_without_scans_are_refused(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "notes.txt").touch()
    with pytest.raises(
        DatasetError, match=r"holds no scans .*scans: none; labels: none\."
    ) as caught:
        read_cohort(tmp_path)
    assert "Folders within" in caught.value.remedy


def test_names_that_do_not_pair_up_are_shown(tmp_path):
    folder = plain(tmp_path, {f"c0{n}": 1 for n in range(5)})
    for path in (folder / "labels").iterdir():
        path.rename(path.with_stem(f"{path.stem}_seg"))
    with pytest.raises(DatasetError, match="no scans with a label of the same name") as caught:
        read_cohort(folder)
    assert "scans: c00.nii.gz, c01.nii.gz, c02.nii.gz and 2 more" in caught.value.message
    assert "labels: c00_seg.mha, c01_seg.mha" in caught.value.message
    assert "same name" in caught.value.remedy
    assert "cases.csv" in caught.value.remedy
    assert "_0000" not in caught.value.remedy
    for path in (folder / "images").iterdir():
        path.rename(path.with_name(path.name.replace(".", "_0000.", 1)))
    with pytest.raises(DatasetError, match=r"c00_0000\.nii\.gz") as caught:
        read_cohort(folder)
    assert "dataset.json" in caught.value.remedy


def test_two_scans_of_one_name_are_refused(tmp_path):
    folder = plain(tmp_path, {"a": 1})
    (folder / "images" / "a.nrrd").touch()
    with pytest.raises(DatasetError, match=r"a\.nii\.gz and a\.nrrd"):
        read_cohort(folder)


def test_one_damaged_file_does_not_stop_the_others(tmp_path):
    folder = plain(tmp_path, {"a": 1, "b": 2, "c": 3})
    (folder / "images" / "a.nii.gz").write_bytes(b"damaged")
    (folder / "labels" / "b.mha").write_bytes(b"damaged")
    cohort = read_cohort(folder)
    assert len(cohort.cases) == 3
    assert cohort.channels == ("channel_0",)
    assert dict(cohort.labels.values) == {"label_1": 1, "label_3": 3}
    for path in (folder / "images").iterdir():
        path.write_bytes(b"damaged")
    with pytest.raises(DatasetError, match="none of 3 scans can be read"):
        read_cohort(folder)


def test_paths_hold_from_any_working_folder(tmp_path, monkeypatch):
    plain(tmp_path / "Livers", {"a": 1})
    monkeypatch.chdir(tmp_path / "Livers")
    cohort = read_cohort(Path(os.curdir))
    assert cohort.name == "Livers"
    assert cohort.cases[0].images[0].is_absolute()


def test_folders_that_nobody_understands_get_the_known_layouts(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(DatasetError, match="layout not recognised") as caught:
        read_cohort(tmp_path)
    for name in LAYOUTS:
        assert f"{name}: {LAYOUTS.get(name).description}" in caught.value.remedy
    with pytest.raises(UnknownNameError, match=r"Unknown layout 'mds'.* Did you mean msd"):
        read_cohort(tmp_path, "mds")
    with pytest.raises(DatasetError, match="no such folder"):
        read_cohort(tmp_path / "gone")


@pytest.mark.parametrize("layout", ["msd", "folders"])
def test_a_layout_asked_for_by_name_is_the_one_used(tmp_path, layout):
    with pytest.raises(LaminaError, match="dataset.json|none of the folders images"):
        read_cohort(tmp_path, layout)
    cohort = read_cohort(msd(plain(tmp_path, {"a": 1})), layout)
    assert len(cohort.cases) == {"msd": 3, "folders": 1}[layout]


def test_regions_are_read_and_must_name_structures(tmp_path):
    regions = {"liver_with_lesion": ["liver", "lesion"]}
    cohort = read_cohort(msd(tmp_path / "a", regions=regions))
    assert cohort.labels.regions == {"liver_with_lesion": ("liver", "lesion")}
    with pytest.raises(LabelError, match="kidney"):
        read_cohort(msd(tmp_path / "b", regions={"wrong": ["kidney"]}))

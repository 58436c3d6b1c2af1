"""nnU-Net's raw layout: read as it says, refused with a reason, and written so that it is taken."""

import json
from pathlib import Path

import numpy as np
import pytest

from lamina.data.case import Case
from lamina.data.cohort import Cohort
from lamina.data.layouts import LAYOUTS, read_cohort
from lamina.data.layouts.nnunet_export import write_nnunet
from lamina.errors import DatasetError, FileError, LabelError
from lamina.geometry import affine_from
from lamina.io import is_scan, read_labels, read_volume, write_volume
from lamina.labels import LabelSet
from lamina.volume import Volume

BRATS = {"whole": [1, 2, 3], "core": [2, 3], "enhancing": 3}


def description(**changes):
    fields = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "liver": 1, "lesion": 2},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    return {key: value for key, value in (fields | changes).items() if value is not None}


def raw(folder: Path, **changes) -> Path:
    """Lay out two cases of two channels in empty files."""
    for kind, number in (("imagesTr", "_0000"), ("imagesTr", "_0001"), ("labelsTr", "")):
        (folder / kind).mkdir(parents=True, exist_ok=True)
        for case in ("p1_visit1", "p1_visit2"):
            (folder / kind / f"{case}{number}.nii.gz").touch()
    (folder / "dataset.json").write_text(json.dumps(description(**changes)))
    return folder


def add_case(folder: Path, case: str) -> Path:
    for name in (f"imagesTr/{case}_0000", f"imagesTr/{case}_0001", f"labelsTr/{case}"):
        (folder / f"{name}.nii.gz").touch()
    return folder


def read(folder: Path) -> Cohort:
    return read_cohort(folder, "nnunet")


def test_cases_are_found_by_their_names(tmp_path):
    folder = raw(tmp_path / "Dataset001_Liver", licence="CC0")
    (folder / "imagesTr" / "._p1_visit1_0000.nii.gz").touch()
    cohort = read(folder)
    assert (cohort.name, cohort.licence) == ("Dataset001_Liver", "CC0")
    assert cohort.channels == ("T1", "T2")
    assert dict(cohort.labels.values) == {"liver": 1, "lesion": 2}
    assert [(case.case_id, case.group) for case in cohort.cases] == [
        ("p1_visit1", "p1"),
        ("p1_visit2", "p1"),
    ]
    assert [path.name for path in cohort.cases[0].images] == [
        "p1_visit1_0000.nii.gz",
        "p1_visit1_0001.nii.gz",
    ]
    assert cohort.cases[1].label == folder / "labelsTr" / "p1_visit2.nii.gz"


def test_regions_that_no_map_can_be_drawn_from_are_scored_only(tmp_path, caplog):
    labels = {"background": 0, "left": [1, 2], "right": [2, 3]}
    cohort = read(raw(tmp_path, labels=labels, regions_class_order=[1, 3]))
    assert not cohort.region_based
    assert "structures are trained on in place of regions. labels: region" in caplog.text
    assert cohort.labels.regions.keys() == {"left", "right"}


def test_lists_of_values_are_regions(tmp_path):
    labels = {"background": 0, **BRATS, "ignore": 4}
    cohort = read(raw(tmp_path, labels=labels, regions_class_order=[1, 2, 3]))
    assert cohort.region_based
    read_set = cohort.labels
    assert dict(read_set.values) == {"label_1": 1, "label_2": 2, "label_3": 3}
    assert read_set.regions == {
        "whole": ("label_1", "label_2", "label_3"),
        "core": ("label_2", "label_3"),
        "enhancing": ("label_3",),
    }
    assert read_set.ignore == 4
    assert [read_set.foreground[c - 1] for _, c in read_set.region_drawing] == [
        "label_1",
        "label_2",
        "label_3",
    ]


def test_a_dataset_entry_is_taken_at_its_word(tmp_path):
    entry = {"images": ["imagesTr/p1_visit1_0000.nii.gz", "imagesTr/p1_visit1_0001.nii.gz"]}
    entry["label"] = "labelsTr/p1_visit1.nii.gz"
    cohort = read(raw(tmp_path, dataset={"anna": entry}, numTraining=1))
    assert [case.case_id for case in cohort.cases] == ["anna"]
    assert cohort.cases[0].images[1] == tmp_path / "imagesTr" / "p1_visit1_0001.nii.gz"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file_ending": ".nii.bz2"}, "no known scan format"),
        ({"file_ending": ".mha"}, r"holds no files that end in \.mha"),
        ({"numTraining": 5}, "numTraining is 5, 2 cases"),
        (
            {"channel_names": {"0": "T1"}},
            r"2 of 2 cases .*: p1_visit1 has channels 0, 1; 1 are declared;",
        ),
        ({"channel_names": {"1": "T1", "2": "T2"}}, "channel_names has the keys"),
        ({"channel_names": ["T1", "T2"]}, "dataset.json: "),
        ({"channel_names": None}, "not an nnU-Net description"),
        ({"labels": {"background": 0, "liver": "x"}}, "cannot be understood"),
        ({"labels": {"background": 0, "liver": 1.5}}, "cannot be understood"),
        (
            {"labels": {"background": 0, **BRATS}, "regions_class_order": [1, 2]},
            "does not fit the regions",
        ),
        (
            {"labels": {"background": 0, **BRATS}, "regions_class_order": [1, 1, 3]},
            "does not fit the regions",
        ),
        ({"labels": {"background": 0, **BRATS}, "regions_class_order": 3}, "cannot be understood"),
        ({"dataset": ["a", "b"]}, "dataset cannot be understood"),
        ({"dataset": {"a": {"images": ["../a.nii.gz"], "label": "b"}}}, "outside the dataset"),
        ({"dataset": {"a": {"images": ["/a.nii.gz"], "label": "b"}}}, "outside the dataset"),
        (
            {"dataset": {"a": {"images": ["a.nii.gz"], "label": "b.nii.gz"}}},
            r"2 files that it lists do not exist: \['a\.nii\.gz', 'b\.nii\.gz'\]",
        ),
    ],
)
def test_a_description_that_contradicts_itself_or_the_files_is_refused(tmp_path, changes, message):
    with pytest.raises(DatasetError, match=message):
        read(raw(tmp_path, **changes))


@pytest.mark.parametrize(
    "labels",
    [
        {"liver": 1},
        {"background": 1, "liver": 0},
        {"background": 0, "liver": 1, "lesion": 1},
        {"background": 0, "all": [0, 1]},
        {"background": 0},
    ],
)
def test_labels_that_contradict_themselves_are_refused(tmp_path, labels):
    with pytest.raises(LabelError, match=r"dataset\.json: .*(labels: )"):
        read(raw(tmp_path, labels=labels))


def test_files_without_partners_are_listed(tmp_path):
    folder = raw(tmp_path)
    (folder / "labelsTr" / "p1_visit1.nii.gz").unlink()
    for number in range(8):
        (folder / "labelsTr" / f"lonely{number}.nii.gz").touch()
    with pytest.raises(DatasetError, match=r"9 of 10 cases .*lonely0 has no image; ") as caught:
        read(folder)
    assert caught.value.message.count("lonely") == 5
    assert caught.value.message.endswith("; and 4 more.")
    assert caught.value.remedy


def test_a_missing_channel_or_number_is_named(tmp_path):
    folder = raw(tmp_path)
    add_case(folder, "p2")
    (folder / "imagesTr" / "p1_visit2_0001.nii.gz").unlink()
    with pytest.raises(DatasetError, match=r"1 of 3 cases .*: p1_visit2 lacks T2 \(_0001\)\."):
        read(folder)
    rest = read_cohort(folder, "nnunet", partial=True)
    assert [case.case_id for case in rest.cases] == ["p1_visit1", "p2"]
    ((_, files),) = rest.unpaired.items()
    assert [path.name for path in files] == ["p1_visit2_0000.nii.gz", "p1_visit2.nii.gz"]
    (folder / "imagesTr" / "p1_visit2.nii.gz").touch()
    with pytest.raises(DatasetError, match=r"p1_visit2\.nii\.gz: does not tell which channel"):
        read(folder)
    for path in (folder / "labelsTr").iterdir():
        path.unlink()
    (folder / "labelsTr").rmdir()
    with pytest.raises(DatasetError, match="labelsTr: no such folder"):
        read(folder)


def test_a_channel_too_many_is_told_as_such(tmp_path):
    folder = add_case(raw(tmp_path), "p2")
    (folder / "imagesTr" / "p2_0002.nii.gz").touch()
    with pytest.raises(DatasetError, match=r": p2 has channels 0, 1, 2; 2 are declared\."):
        read(folder)
    (folder / "imagesTr" / "p1_visit1_0002.nii.gz").touch()
    with pytest.raises(DatasetError, match=r"imagesTr: 2 of 3 cases .*: p1_visit1 has channels"):
        read_cohort(folder, "nnunet", partial=True)


def test_it_is_told_from_the_decathlon_by_its_file_ending(tmp_path):
    assert LAYOUTS.get("nnunet").matches(raw(tmp_path / "a"))
    assert not LAYOUTS.get("nnunet").matches(raw(tmp_path / "b", training=[]))
    assert not LAYOUTS.get("nnunet").matches(raw(tmp_path / "c", file_ending=None))
    assert not LAYOUTS.get("nnunet").matches(tmp_path / "nothing")


def cohort_of(folder: Path, labels: LabelSet, channels=("CT",), suffix=".nii.gz", dims=3) -> Cohort:
    """Write two scans whose labels hold every declared value; channels share one file."""
    rng, cases = np.random.default_rng(0), []
    values = [labels.background, *labels.values.values()]
    values += [] if labels.ignore is None else [labels.ignore]
    for case_id in ("a", "b"):
        size = (4, 5, 6)[:dims]
        label = rng.permutation(np.resize(values, np.prod(size))).reshape(1, *size)
        image = rng.integers(-99, 99, (len(channels), *size)).astype(np.int16)
        paths = [folder / kind / f"{case_id}{suffix}" for kind in ("images", "labels")]
        for path, array in zip(paths, (image, label.astype(np.int16)), strict=True):
            write_volume(Volume(array, affine_from((1, 2, 3))), path)
        cases.append(Case(case_id=case_id, group=case_id, images=(paths[0],), label=paths[1]))
    return Cohort(name="Set", channels=channels, labels=labels, cases=tuple(cases), licence="CC0")


def indices(cohort: Cohort, number: int) -> np.ndarray:
    case = cohort.cases[number]
    return case.read_label(cohort.labels, case.read_image(cohort.channels)).array


@pytest.mark.parametrize("copy", [False, True])
def test_files_that_fit_are_linked_or_copied(tmp_path, copy):
    cohort = cohort_of(tmp_path / "set", LabelSet(values={"lesion": 2, "liver": 1}))
    export = write_nnunet(cohort, tmp_path / "Dataset007_Set", copy=copy)
    assert (export.revalued, export.num_rewritten) == ({}, 0)
    image = tmp_path / "Dataset007_Set" / "imagesTr" / "a_0000.nii.gz"
    assert image.is_symlink() is not copy
    assert image.read_bytes() == cohort.cases[0].images[0].read_bytes()
    written = json.loads((tmp_path / "Dataset007_Set" / "dataset.json").read_text())
    assert written["labels"] == {"background": 0, "lesion": 2, "liver": 1}
    assert (written["numTraining"], written["file_ending"]) == (2, ".nii.gz")
    assert written["channel_names"] == {"0": "CT"}
    assert (export.cohort.name, export.cohort.licence) == ("Set", "CC0")


def test_values_with_gaps_become_consecutive_and_it_is_said(tmp_path):
    labels = LabelSet(values={"spleen": 7, "liver": 3}, background=-1, ignore=5)
    cohort = cohort_of(tmp_path / "set", labels)
    export = write_nnunet(cohort, tmp_path / "Dataset001_Set")
    assert export.revalued == {-1: 0, 7: 2, 3: 1, 5: 3}
    assert export.num_rewritten == 2
    new = export.cohort.labels
    assert (dict(new.values), new.background, new.ignore) == ({"spleen": 2, "liver": 1}, 0, 3)
    for number in range(2):
        np.testing.assert_array_equal(indices(export.cohort, number), indices(cohort, number))
    stored = read_labels(export.cohort.cases[0].label)
    assert set(np.unique(stored.array)) == {0, 1, 2, 3}


def test_channels_get_files_of_their_own_and_one_ending(tmp_path):
    labels = LabelSet(values={"liver": 1})
    cohort = cohort_of(tmp_path / "set", labels, ("T1", "T2"), ".mha")
    export = write_nnunet(cohort, tmp_path / "Dataset001_Set")
    before, after = (c.cases[0].read_image(c.channels) for c in (cohort, export.cohort))
    assert [path.name for path in export.cohort.cases[0].images] == ["a_0000.mha", "a_0001.mha"]
    np.testing.assert_array_equal(before.array, after.array)
    np.testing.assert_allclose(before.affine, after.affine)
    plain = cohort_of(tmp_path / "plain", labels, suffix=".nii")
    again = write_nnunet(plain, tmp_path / "Dataset002_Set")
    assert again.cohort.cases[0].images[0].name == "a_0000.nii.gz"
    assert again.num_rewritten == 4


def test_regions_are_written_in_the_order_in_which_they_are_drawn(tmp_path):
    labels = LabelSet(
        values={"necrosis": 1, "oedema": 2, "enhancing": 4, "vessel": 6},
        regions={
            "core": ("necrosis", "enhancing"),
            "whole": ("necrosis", "oedema", "enhancing"),
            "enhancing core": ("enhancing",),
        },
    )
    export = write_nnunet(cohort_of(tmp_path / "set", labels), tmp_path / "Dataset001_Set")
    written = json.loads((tmp_path / "Dataset001_Set" / "dataset.json").read_text())
    assert list(written["labels"].items()) == [
        ("background", 0),
        ("whole", [1, 2, 3]),
        ("core", [1, 3]),
        ("enhancing core", 3),
        ("vessel", 4),
    ]
    assert written["regions_class_order"] == [2, 1, 3, 4]
    assert export.cohort.labels.regions["core"] == ("label_1", "label_3")
    assert export.revalued == {4: 3, 6: 4}


def test_nothing_is_left_of_an_export_that_fails(tmp_path):
    cohort = cohort_of(tmp_path / "set", LabelSet(values={"liver": 3}))
    cohort.cases[1].label.write_bytes(b"damaged")
    with pytest.raises(FileError):
        write_nnunet(cohort, tmp_path / "Dataset001_Set")
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_export_needs_a_new_folder_of_the_right_name_and_all_files(tmp_path):
    cohort = cohort_of(tmp_path / "set", LabelSet(values={"liver": 1}))
    with pytest.raises(DatasetError, match="Call it such as Dataset101_Liver"):
        write_nnunet(cohort, tmp_path / "Liver")
    (tmp_path / "Dataset001_Set").mkdir()
    (tmp_path / "Dataset001_Set" / "notes.txt").touch()
    with pytest.raises(DatasetError, match="is there already"):
        write_nnunet(cohort, tmp_path / "Dataset001_Set")
    cohort.cases[0].images[0].unlink()
    with pytest.raises(DatasetError, match=r"1 cases lack an image or the label: \['a'\]"):
        write_nnunet(cohort, tmp_path / "Dataset002_Set")
    two = cohort_of(tmp_path / "two", LabelSet(values={"liver": 1}))
    wrong = Cohort(name="x", channels=("a", "b"), labels=two.labels, cases=two.cases)
    with pytest.raises(DatasetError, match="does not hold the 2 channels"):
        write_nnunet(wrong, tmp_path / "Dataset002_Set")


@pytest.mark.skipif(not is_scan("a.png"), reason="pictures cannot be read")
def test_pictures_stay_pictures(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    Image.fromarray(rng.integers(0, 255, (5, 7, 3), np.uint8)).save(tmp_path / "images" / "a.jpg")
    mask = rng.integers(0, 2, (5, 7), np.uint8) * np.uint8(255)
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    case = Case(
        case_id="a",
        group="a",
        images=(tmp_path / "images" / "a.jpg",),
        label=tmp_path / "masks" / "a.png",
    )
    cohort = Cohort(
        name="Polyps",
        channels=("red", "green", "blue"),
        labels=LabelSet(values={"polyp": 255}),
        cases=(case,),
    )
    export = write_nnunet(cohort, tmp_path / "Dataset001_Polyps")
    assert export.revalued == {255: 1}
    written = export.cohort.cases[0]
    assert [path.name for path in written.images] == ["a_0000.png"]
    np.testing.assert_array_equal(
        read_volume(written.images[0]).array, read_volume(case.images[0]).array
    )
    np.testing.assert_array_equal(np.asarray(Image.open(written.label)), mask // 255)


def test_a_real_set_goes_there_and_back(shared, tmp_path):
    cohort = read_cohort(shared / "data" / "acdc")
    few = Cohort(
        name=cohort.name, channels=cohort.channels, labels=cohort.labels, cases=cohort.cases[:2]
    )
    export = write_nnunet(few, tmp_path / "Dataset027_ACDC")
    assert (export.num_rewritten, export.revalued) == (0, {})
    np.testing.assert_array_equal(indices(export.cohort, 1), indices(few, 1))


def test_the_program_writes_what_nnunet_takes(tiny_dataset, tmp_path, cli):
    out = tmp_path / "Dataset101_Balls"
    done = cli("to-nnunet", tiny_dataset, out)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "3 is 1, 7 is 2" in done.stdout
    assert len(read_cohort(out).cases) == 6
    assert cli("to-nnunet", tiny_dataset, tmp_path / "balls").exit_code == 2

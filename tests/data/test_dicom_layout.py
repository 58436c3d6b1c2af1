"""Folders of DICOM, however they were exported, become cases with their labels."""

import json
import logging

import numpy as np
import pytest

from dicom_scans import OBLIQUE, ball, middle, rings, save, write_rtstruct, write_seg, write_series
from lamina.data.cache import prepare_case
from lamina.data.case import Case
from lamina.data.layouts import read_cohort
from lamina.errors import DatasetError, FileError, LabelError
from lamina.io import read_volume, write_volume
from lamina.volume import Volume

pytest.importorskip("highdicom")


def labelled(folder, kind="seg", names=("liver",), label=None, **tags):
    """Write a series and a label of balls side by side along the columns."""
    slices = write_series(folder, **tags)
    centres = [middle(slices) + [14 * number - 8, 0, 0] for number in range(len(names))]
    label = label or folder / "label"
    if kind == "seg":
        write_seg(
            label, slices, {n: ball(slices, c, 6) for n, c in zip(names, centres, strict=True)}
        )
    elif kind == "rtstruct":
        drawn = {n: rings(slices, c, 6) for n, c in zip(names, centres, strict=True)}
        write_rtstruct(label, slices, drawn)
    return slices


def found_in(cohort):
    """Return the voxels of each structure of each case, but where there are none."""
    counts = {}
    for case in cohort.cases:
        image = case.read_image(cohort.channels)
        indices = case.read_label(cohort.labels, image).array
        masks = cohort.labels.masks(indices)
        counts[case.case_id] = {name: int(m.sum()) for name, m in masks.items() if m.any()}
    return counts


@pytest.mark.parametrize("kind", ["seg", "rtstruct"])
def test_studies_as_archives_export_them(tmp_path, kind):
    for patient in ("P1", "P2"):
        home = tmp_path / patient / "20200101" / "CT"
        labelled(
            home, kind, ("spleen", "liver"), home.parent / "label" / "1.dcm", PatientID=patient
        )
    cohort = read_cohort(tmp_path)
    assert cohort.channels == ("CT",)
    assert dict(cohort.labels.values) == {"liver": 1, "spleen": 2}
    assert [case.case_id for case in cohort.cases] == ["P1", "P2"]
    counts = found_in(cohort)
    assert counts["P1"] == counts["P2"]
    assert counts["P1"].keys() == {"liver", "spleen"}


def test_a_label_belongs_to_the_series_it_refers_to(tmp_path):
    study = {"StudyInstanceUID": "2.25.1", "FrameOfReferenceUID": "2.25.2"}
    home = tmp_path / "P1"
    first = write_series(home / "mixed", **study)
    second = write_series(tmp_path / "elsewhere", orientation=OBLIQUE, **study)
    for path in (tmp_path / "elsewhere").iterdir():
        path.rename(home / "mixed" / f"second {path.name}")
    (tmp_path / "elsewhere").rmdir()
    planes = ball(second, middle(second), 6)
    write_seg(home / "mixed" / "label", second, {"liver": planes})
    cohort = read_cohort(tmp_path)
    (case,) = cohort.cases
    assert case.series == second[0].SeriesInstanceUID != first[0].SeriesInstanceUID
    assert found_in(cohort) == {"P1": {"liver": int(planes.sum())}}
    assert Case.from_dict(case.as_dict()) == case


def test_without_a_reference_the_frame_of_reference_tells(tmp_path, caplog):
    slices = write_series(tmp_path / "P1" / "ct")
    write_rtstruct(
        tmp_path / "P1" / "rt", slices, {"liver": rings(slices, middle(slices), 6)}, series=False
    )
    (case,) = read_cohort(tmp_path).cases
    assert case.label == tmp_path / "P1" / "rt"
    write_series(tmp_path / "P1" / "pet", FrameOfReferenceUID=slices[0].FrameOfReferenceUID)
    with pytest.raises(DatasetError, match="no scans with a label"):
        read_cohort(tmp_path)
    assert "rt: left out; 2 series of" in caplog.text


def test_several_labelled_series_of_a_patient_are_cases_of_one_group(tmp_path):
    for name in ("CT1", "CT2"):
        labelled(tmp_path / "P1" / name, PatientID="A")
    labelled(tmp_path / "P2" / "CT1", PatientID="B")
    cohort = read_cohort(tmp_path)
    groups = {case.case_id: case.group for case in cohort.cases}
    assert groups.keys() == {"P1_CT1", "P1_CT2", "P2"}
    assert groups["P1_CT1"] == groups["P1_CT2"] != groups["P2"]


def test_one_patient_in_several_folders_is_one_group(tmp_path):
    for name, patient in (("a", "X1"), ("b", "X1"), ("c", "X2")):
        labelled(tmp_path / name, PatientID=patient)
    one, same, other = [case.group for case in read_cohort(tmp_path).cases]
    assert one == same != other


@pytest.mark.parametrize("patient", ["", "ANONYMOUS"])
def test_a_placeholder_is_no_patient(tmp_path, patient, caplog):
    for name in ("a", "b"):
        labelled(tmp_path / name, PatientID=patient)
    assert [case.group for case in read_cohort(tmp_path).cases] == ["a", "b"]
    assert ("all files have one PatientID" in caplog.text) == bool(patient)


def test_nothing_tells_who_the_patient_is(tmp_path, caplog):
    caplog.set_level(logging.DEBUG, "lamina")
    labelled(tmp_path / "P1", PatientID="ID-4711")
    labelled(tmp_path / "P2", PatientID="ID-4712")
    (tmp_path / "P2" / "IM0000").write_bytes((tmp_path / "P2" / "IM0000").read_bytes()[:-30])
    cohort = read_cohort(tmp_path)
    with pytest.raises(FileError) as caught:
        found_in(cohort)
    text = json.dumps(cohort.as_dict()) + caplog.text + str(caught.value)
    for secret in ("ID-4711", "ID-4712", "Nobody", "Known"):
        assert secret not in text


def test_series_without_folders_are_called_after_their_uid(tmp_path):
    labelled(tmp_path, SeriesInstanceUID="2.25.123456789012345")
    other = write_series(tmp_path / "P2")
    write_seg(tmp_path / "P2" / "label", other, {"liver": ball(other, middle(other), 6)})
    ids = {case.case_id for case in read_cohort(tmp_path).cases}
    assert ids == {"series-456789012345", "P2"}


@pytest.mark.parametrize("label", ["P1/ct.nii.gz", "P1/ct/ct.nrrd"])
def test_a_label_file_of_the_same_name_belongs_to_the_folder(tmp_path, label):
    write_series(tmp_path / "P1" / "ct")
    write_series(tmp_path / "P1" / "unlabelled")
    image = read_volume(tmp_path / "P1" / "ct")
    values = np.zeros((1, 24, 20, 12), np.uint8)
    values[0, 3:9, 4:9, 5:8] = 4
    write_volume(Volume(values, image.affine), tmp_path / label)
    cohort = read_cohort(tmp_path)
    assert dict(cohort.labels.values) == {"label_4": 4}
    assert found_in(cohort) == {"P1": {"label_4": 90}}


def test_named_and_numbered_labels_need_a_declaration(tmp_path):
    labelled(tmp_path / "P1")
    write_series(tmp_path / "P2")
    image = read_volume(tmp_path / "P2")
    write_volume(Volume(np.ones((1, 24, 20, 12), np.uint8), image.affine), tmp_path / "P2.nii.gz")
    with pytest.raises(DatasetError, match="some labels name their structures"):
        read_cohort(tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "liver": 1}}')
    counts = found_in(read_cohort(tmp_path))
    assert counts["P2"] == {"liver": 24 * 20 * 12}
    assert 0 < counts["P1"]["liver"] < 200


def test_several_segmentations_of_a_series_are_taken_together(tmp_path):
    slices = labelled(tmp_path / "P1")
    spleen = ball(slices, middle(slices) + [10, 0, 0], 4)
    write_seg(tmp_path / "P1" / "more", slices, {"spleen": spleen})
    cohort = read_cohort(tmp_path)
    assert found_in(cohort)["P1"].keys() == {"liver", "spleen"}
    write_seg(tmp_path / "P1" / "again", slices, {"spleen": spleen})
    with pytest.raises(DatasetError, match="marks 'spleen' in one series, as does") as caught:
        read_cohort(tmp_path)
    assert caught.value.remedy


def test_voxels_are_taken_before_contours_of_the_same_series(tmp_path, caplog):
    slices = labelled(tmp_path / "P1")
    write_rtstruct(tmp_path / "P1" / "rt", slices, {"other": rings(slices, middle(slices), 3)})
    cohort = read_cohort(tmp_path)
    assert list(cohort.labels.values) == ["liver"]
    assert "rt: left out, as " in caplog.text


def overlapping(folder):
    slices = write_series(folder / "P1")
    whole, core = (ball(slices, middle(slices), radius) for radius in (8, 4))
    write_seg(folder / "P1" / "seg", slices, {"whole": whole, "core": core})
    return int(whole.sum()), int(core.sum())


def test_structures_that_overlap_are_refused(tmp_path):
    _, core = overlapping(tmp_path)
    with pytest.raises(
        LabelError, match=f"seg: 'core' and 'whole' overlap in {core} vox"
    ) as caught:
        found_in(read_cohort(tmp_path))
    assert "dataset.json" in caught.value.remedy


def test_regions_express_structures_that_overlap(tmp_path):
    whole, core = overlapping(tmp_path)
    regions = {"whole": ["rim", "middle"], "core": ["middle"]}
    declared = {"labels": {"background": 0, "rim": 1, "middle": 2}, "regions": regions}
    (tmp_path / "dataset.json").write_text(json.dumps(declared))
    expected = {"rim": whole - core, "middle": core, "whole": whole, "core": core}
    assert found_in(read_cohort(tmp_path)) == {"P1": expected}


def test_undeclared_structures_are_background_and_told(tmp_path, caplog):
    whole, _ = overlapping(tmp_path)
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "whole": 1}}')
    assert found_in(read_cohort(tmp_path)) == {"P1": {"whole": whole}}
    assert "1 structures are not declared and count as background: ['core']" in caplog.text
    (tmp_path / "dataset.json").write_text('{"labels": {"background": 0, "Whole": 1}}')
    with pytest.raises(
        DatasetError, match=r"called as dataset.json declares: \['Whole'\]"
    ) as caught:
        read_cohort(tmp_path)
    assert "['core', 'whole']" in caught.value.remedy


def test_files_may_lack_the_mark_of_dicom(tmp_path):
    labelled(tmp_path / "P1", label=tmp_path / "P1" / "label.dcm")
    marked = found_in(read_cohort(tmp_path))
    for path in list((tmp_path / "P1").iterdir()):
        path.write_bytes(path.read_bytes()[132:])
        path.rename(path.with_suffix(".dcm"))
    assert found_in(read_cohort(tmp_path)) == marked


def test_a_series_in_two_folders_is_refused(tmp_path):
    labelled(tmp_path / "P1")
    (tmp_path / "P2").mkdir()
    (tmp_path / "P1" / "IM0000").rename(tmp_path / "P2" / "IM0000")
    with pytest.raises(DatasetError, match="hold files of one series"):
        read_cohort(tmp_path)


def test_other_files_and_damaged_ones_do_not_matter(tmp_path, caplog):
    labelled(tmp_path / "P1")
    (tmp_path / "P1" / "DICOMDIR.txt").write_text("x")
    (tmp_path / "P1" / ".hidden.dcm").write_text("x")
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    (tmp_path / "broken").write_bytes((tmp_path / "P1" / "IM0000").read_bytes()[:300])
    assert len(read_cohort(tmp_path).cases) == 1
    assert caplog.messages == [f"{tmp_path / 'broken'}: is DICOM that says nothing; is it damaged?"]


def test_folders_without_labels_are_one_error(tmp_path):
    write_series(tmp_path / "P1")
    with pytest.raises(DatasetError, match="no scans with a label"):
        read_cohort(tmp_path)


def test_a_prepared_case_follows_its_slices_and_its_label(tmp_path, plan_with):
    slices = labelled(tmp_path / "data" / "P1")
    cohort = read_cohort(tmp_path / "data")
    plan = plan_with(channels=("CT",), labels=cohort.labels, target_spacing=(2.0, 1.5, 2.5))

    def prepared():
        found = prepare_case(cohort.cases[0], plan, tmp_path / "cache")
        return np.array(found.image), int(found.label.sum())

    image, label = prepared()
    assert image.shape[1:] == (24, 20, 12)
    planes = ball(slices, middle(slices), 4)
    write_seg(tmp_path / "data" / "P1" / "label", slices, {"liver": planes})
    assert prepared()[1] == planes.sum() != label
    slices[3].PixelData = bytes(len(slices[3].PixelData))
    save(slices[3], tmp_path / "data" / "P1" / f"IM{7 * 3 % 12:04d}")
    assert (prepared()[0] != image).any()

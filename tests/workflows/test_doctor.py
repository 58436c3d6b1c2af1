"""The doctor examines a folder, changes nothing in it, and writes a copy without its faults."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from lamina.data.layouts import read_cohort
from lamina.errors import DatasetError
from lamina.files import read_json, write_json
from lamina.io import read_labels, read_volume, write_volume
from lamina.volume import Volume
from lamina.workflows.doctor import doctor


@pytest.fixture
def sick(tiny_dataset, tmp_path):
    """A copy of the six tiny scans with a fault in each of the first five."""
    folder = tmp_path / "sick"
    shutil.copytree(tiny_dataset, folder)
    images = [folder / "imagesTr" / f"ball_{n:03d}.nii.gz" for n in range(6)]
    labels = [folder / "labelsTr" / image.name for image in images]

    scan = read_volume(images[0])
    array = scan.array.copy()
    array[0, 0, 0, 0] = np.nan
    write_volume(replace(scan, array=array), images[0])

    label = read_volume(labels[1])
    affine = label.affine.copy()
    affine[0, 3] += 0.3
    write_volume(replace(label, affine=affine, array=label.array * np.float32(0.99)), labels[1])

    label = read_volume(labels[2])
    write_volume(replace(label, array=np.where(label.array == 7, 9, label.array)), labels[2])

    images[3].write_bytes(images[3].read_bytes()[:500])

    shutil.copyfile(images[5], images[4])
    shutil.copyfile(labels[5], labels[4])
    return folder


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_sound_dataset_is_called_sound(tiny_dataset):
    result = doctor(tiny_dataset, workers=0)
    assert result.counts["error"] == 0
    assert {f.check for f in result.findings} == {"values"}  # their values leave gaps on purpose
    assert result.changes == ()
    assert (result.mended, result.report) == (None, None)
    json.dumps(result.as_dict(), allow_nan=False)


def test_every_fault_is_found_and_planned_for(sick):
    before = contents(sick)
    result = doctor(sick, workers=0)
    assert [(c.case, c.repair) for c in result.changes] == [
        ("ball_000", "replace_nan"),
        ("ball_001", "take_grid"),
        ("ball_001", "round"),
        ("ball_002", "leave_out"),
        ("ball_003", "leave_out"),
        ("ball_005", "leave_out"),
    ]
    assert contents(sick) == before


def test_the_mended_copy_has_no_errors_and_keeps_what_was_right(sick, tmp_path):
    before, out = contents(sick), tmp_path / "out"
    doctor(sick, fix=out, workers=0)
    assert contents(sick) == before
    cohort, original = read_cohort(out), read_cohort(sick)
    assert [case.case_id for case in cohort.cases] == ["ball_000", "ball_001", "ball_004"]
    assert (cohort.name, cohort.licence) == (original.name, original.licence)
    assert (cohort.channels, cohort.labels) == (original.channels, original.labels)
    assert doctor(out, workers=0).counts["error"] == 0

    nan, off, untouched = cohort.cases
    scan = read_volume(nan.images[0]).array
    assert np.isfinite(scan).all()
    assert scan[0, 0, 0, 0] == np.nanmin(read_volume(sick / "imagesTr/ball_000.nii.gz").array)
    label = read_labels(off.label)
    assert set(np.unique(label.array)) == {0, 3, 7}
    np.testing.assert_array_equal(label.affine, read_volume(off.images[0]).affine)
    source = sick / "imagesTr/ball_004.nii.gz"
    assert untouched.images[0].read_bytes() == source.read_bytes()

    listed = read_json(out / "changes.json")
    assert [(c["case"], c["repair"]) for c in listed][-1] == ("ball_005", "leave_out")
    assert all(change["why"] for change in listed)


def test_masks_of_255_are_renumbered_where_nobody_declared_them(tiny_dataset, tmp_path):
    folder, out = tmp_path / "masks", tmp_path / "out"
    for path in sorted((tiny_dataset / "imagesTr").iterdir())[:3]:
        write_volume(read_volume(path), folder / "images" / path.name)
        label = read_volume(tiny_dataset / "labelsTr" / path.name)
        mask = np.where(label.array > 0, 255, 0).astype(np.uint8)
        write_volume(replace(label, array=mask), folder / "masks" / path.name)
    result = doctor(folder, fix=out, workers=0)
    assert [(c.case, c.repair) for c in result.changes] == [("", "renumber")]
    cohort = read_cohort(out)
    assert cohort.labels.values == {"label_1": 1}
    assert set(np.unique(read_labels(cohort.cases[0].label).array)) == {0, 1}


def test_channels_in_files_of_their_own_are_joined(tiny_dataset, tmp_path):
    from lamina.data.doctor.mend import mend

    cohort = read_cohort(tiny_dataset)
    (image,) = cohort.cases[0].images
    two = replace(cohort.cases[0], images=(image, image))
    cohort = replace(cohort, channels=("T1", "T2"), cases=(two,))
    written = mend(cohort, [], tmp_path / "out")
    assert written == read_cohort(tmp_path / "out")
    assert read_volume(written.cases[0].images[0]).num_channels == 2


def test_scans_in_the_test_folder_are_compared(sick):
    scan = read_volume(sick / "imagesTr/ball_002.nii.gz")
    write_volume(scan, sick / "imagesTs/other.nii.gz")
    write_volume(replace(scan, array=scan.array[:, :-1]), sick / "imagesTs/ball_001.nii.gz")
    result = doctor(sick, workers=0)
    found = [(f.case, f.severity) for f in result.findings if f.check == "train_test"]
    assert found == [("ball_001", "warning"), ("ball_002", "error")]
    assert result.num_tested == 2


def test_scans_that_no_case_uses_are_noted(tiny_dataset, tmp_path):
    folder = tmp_path / "more"
    shutil.copytree(tiny_dataset, folder)
    shutil.copyfile(folder / "imagesTr/ball_000.nii.gz", folder / "imagesTr/stray.nii.gz")
    (finding,) = (f for f in doctor(folder, workers=0).findings if f.check == "unlisted")
    assert "stray.nii.gz" in finding.message


def test_nothing_is_mended_in_place_or_over_other_files(sick, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine")
    for out in (sick, sick / "mended", tmp_path, tmp_path / "full"):
        with pytest.raises(DatasetError, match=r"lies in|there already"):
            doctor(sick, fix=out, workers=0)


def test_no_report_is_written_into_the_dataset(sick):
    before = sorted(sick.rglob("*"))
    for out in (sick, sick / "imagesTr" / "report"):
        with pytest.raises(DatasetError, match=r"lies in the dataset.*for --report"):
            doctor(sick, report=out, workers=0)
    assert sorted(sick.rglob("*")) == before


def test_a_copy_without_any_case_is_not_written(tiny_dataset, tmp_path):
    folder = tmp_path / "hopeless"
    shutil.copytree(tiny_dataset, folder)
    task = read_json(folder / "dataset.json")
    write_json(folder / "dataset.json", task | {"labels": {"0": "background", "1": "other"}})
    with pytest.raises(DatasetError, match="no case would remain of 6"):
        doctor(folder, fix=tmp_path / "out", workers=0)
    assert not (tmp_path / "out").exists()


def test_worker_processes_find_the_same(sick):
    alone, together = (doctor(sick, workers=workers) for workers in (0, 2))
    assert alone.findings == together.findings


def test_real_scans_have_the_oddities_that_are_known(shared):
    cohort = shared / "data" / "misc_3d"
    found = {(f.case, f.check): f for f in doctor(cohort, workers=0).findings}
    assert found["ts_mr_abdomen", "values"].severity == "error"
    assert found["ts_mr_abdomen", "spacing"].severity == "warning"
    assert ("ibsi_lung_ct", "intensity") in found
    assert found["", "orientation"].severity == "note"


def test_a_dry_run_lists_the_changes_and_writes_nothing(sick, tmp_path):
    planned = doctor(sick, fix=tmp_path / "out", dry_run=True, workers=0)
    assert planned.mended is None
    assert not (tmp_path / "out").exists()
    done = doctor(sick, fix=tmp_path / "out", workers=0)
    assert planned.changes == done.changes
    with pytest.raises(DatasetError, match="lies in"):
        doctor(sick, fix=sick, dry_run=True, workers=0)


def test_mended_pictures_keep_their_patients_sides_sizes_and_objects(tmp_path):
    folder, out = tmp_path / "pictures", tmp_path / "out"
    rows = ["image,mask,group,split,pixel_size_mm"]
    for number in range(4):
        rng = np.random.default_rng(number)
        image = rng.integers(0, 255, (1, 20, 16)).astype(np.uint8)
        mask = np.zeros((1, 20, 16), np.uint8)
        mask[0, 4 : 8 + number, 4:8] = 255
        for array, kind in ((image, "images"), (mask, "masks")):
            at = Volume(array, np.diag([-1.0, -1, 1, 1]), unit="px")
            write_volume(at, folder / kind / f"{number}.png")
        side = "train" if number < 2 else "test"
        rows.append(f"images/{number}.png,masks/{number}.png,p{number // 2},{side},0.25")
    (folder / "split.csv").write_text("\n".join(rows))
    doctor(folder, fix=out, workers=0)
    before, after = read_cohort(folder), read_cohort(out)
    for old, new in zip(before.cases, after.cases, strict=True):
        assert (old.group, old.side, old.spacing) == (new.group, new.side, new.spacing)
        assert new.images[0].read_bytes() == old.images[0].read_bytes()
        assert set(np.unique(read_labels(new.label).array)) == {0, 1}
    assert after.channels == before.channels
    assert doctor(out, workers=0).counts["error"] == 0


def test_objects_are_merged_in_the_copy(tmp_path):
    folder, out = tmp_path / "objects", tmp_path / "out"
    for number in range(3):
        arrays = {"": np.random.default_rng(number).integers(0, 255, (1, 20, 16)).astype(np.uint8)}
        for object_, start in (("_mask", 2), ("_mask_1", 10)):
            arrays[object_] = np.zeros((1, 20, 16), np.uint8)
            arrays[object_][0, start : start + 4 + number, 3:6] = 255
        for ending, array in arrays.items():
            at = Volume(array, np.diag([-1.0, -1, 1, 1]), unit="px")
            write_volume(at, folder / f"benign_{number}{ending}.png")
    doctor(folder, fix=out, workers=0)
    for number, case in enumerate(read_cohort(out).cases):
        assert case.objects == ()
        assert np.count_nonzero(read_labels(case.label).array) == 2 * 3 * (4 + number)


@pytest.mark.parametrize("kind", ["seg", "rtstruct", "nifti"])
def test_series_are_volumes_in_the_copy(tmp_path, kind):
    pytest.importorskip("highdicom")
    from dicom_scans import ball, middle, rings, write_rtstruct, write_seg, write_series

    folder, out = tmp_path / "dicom", tmp_path / "out"
    for number in range(3):
        home = folder / f"P{number}" / "ct"
        size = (24, 20 + 2 * number, 12)
        slices = write_series(home, size=size, PatientID=f"ID-{number}")
        found = {"liver": ball(slices, middle(slices), 5 + number)}
        if kind != "nifti":  # which cannot say that it is not of another series in the folder
            write_series(tmp_path / "other", size=(24, 20, 3))
            for path in sorted((tmp_path / "other").iterdir()):
                path.rename(home / f"other {path.name}")
        if kind == "seg":
            write_seg(home / "label.dcm", slices, found)
        elif kind == "rtstruct":
            drawn = {"liver": rings(slices, middle(slices), 5 + number)}
            write_rtstruct(home / "label.dcm", slices, drawn)
        else:
            label = found["liver"].T[None].astype(np.uint8)
            write_volume(replace(read_volume(home), array=label), home.parent / "ct.nii.gz")
    result = doctor(folder, fix=out, workers=0)
    assert result.counts["error"] == 0
    before, after = read_cohort(folder), read_cohort(out)
    assert before.labels.values == after.labels.values
    for old, new in zip(before.cases, after.cases, strict=True):
        assert (old.case_id, old.group) == (new.case_id, new.group)
        image, copied = old.read_image(before.channels), new.read_image(after.channels)
        np.testing.assert_array_equal(copied.array, image.array)
        np.testing.assert_allclose(copied.affine, image.affine, atol=1e-4)
        expected = old.read_label(before.labels, image).array
        found = new.read_label(after.labels, copied).array
        assert expected.any()
        np.testing.assert_array_equal(found, expected)
    assert doctor(out, workers=0).counts["error"] == 0


@pytest.mark.parametrize("kinds", [("images", "masks"), ("imagesTr", "labelsTr")])
def test_files_without_a_partner_are_findings_and_the_others_are_examined(
    tiny_dataset, tmp_path, kinds
):
    folder = tmp_path / "lonely"
    for source, kind in zip(("imagesTr", "labelsTr"), kinds, strict=True):
        shutil.copytree(tiny_dataset / source, folder / kind)
    (folder / kinds[0] / "ball_001.nii.gz").unlink()
    (folder / kinds[1] / "ball_002.nii.gz").unlink()
    with pytest.raises(
        DatasetError, match=r"2 of 6 cases .*: ball_001 has no image; ball_002 has no label\."
    ):
        read_cohort(folder)
    result = doctor(folder, workers=0)
    assert len(result.cohort.cases) == 4
    left_out = [f for f in result.findings if f.check == "unpaired"]
    assert [(f.file.rpartition("lonely/")[2], f.message) for f in left_out] == [
        (f"{kinds[1]}/ball_001.nii.gz", "ball_001 has no image."),
        (f"{kinds[0]}/ball_002.nii.gz", "ball_002 has no label."),
    ]
    assert not any(f.check == "unlisted" for f in result.findings)

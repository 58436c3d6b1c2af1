"""Which scans a file or a folder is taken for, before one of them is read."""

import shutil

import numpy as np
import pytest

from dicom_scans import (
    ball,
    middle,
    rings,
    save,
    write_enhanced,
    write_rtstruct,
    write_seg,
    write_series,
)
from lamina.data.scans import scan_of, scans_in
from lamina.errors import DatasetError
from lamina.io import read_volume, write_volume
from lamina.volume import Volume

pydicom = pytest.importorskip("pydicom")
from pydicom.dataset import Dataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    BasicTextSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    UltrasoundImageStorage,
    generate_uid,
)


def ids(folder, num_channels=1):
    return [case.case_id for case in scans_in(folder, num_channels)]


def write_object(path, slices, sop_class):
    """Write an object of a study that holds no image."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = sop_class, generate_uid()
    header.StudyInstanceUID, header.SeriesInstanceUID = slices[0].StudyInstanceUID, generate_uid()
    save(header, path)


def write_stills(folder, names):
    """Write pictures of one exam: they share a series, and claim no place in the body."""
    made = write_series(
        folder, size=(24, 20, len(names)), Modality="US", SOPClassUID=UltrasoundImageStorage
    )
    for old, name, header in zip(sorted(folder.iterdir()), names, made, strict=True):
        old.unlink()
        del header.ImagePositionPatient, header.ImageOrientationPatient, header.PixelSpacing
        save(header, folder / name)


@pytest.fixture
def study(tmp_path):
    """A folder for each series, as public archives and PACS export them."""
    folder = tmp_path / "study"
    slices = write_series(folder / "ct")
    centre = middle(slices)
    write_seg(folder / "seg" / "1-1.dcm", slices, {"liver": ball(slices, centre, 8)})
    write_rtstruct(folder / "rt" / "1-1.dcm", slices, {"liver": rings(slices, centre, 8)})
    for name, sop_class in (
        ("pr", GrayscaleSoftcopyPresentationStateStorage),
        ("sr", BasicTextSRStorage),
    ):
        write_object(folder / name / "IM0001", slices, sop_class)
    (folder / "rt" / "LICENSE").write_text("as it is")
    return folder, slices


def test_folders_of_objects_about_a_series_are_no_scans(study):
    folder, _ = study
    assert ids(folder) == ["ct"]


def test_folders_that_hold_nothing_readable_are_still_told_of(study):
    folder, _ = study
    (folder / "empty").mkdir()
    (folder / "garbage").mkdir()
    (folder / "garbage" / "IM1.dcm").write_bytes(b"nothing")
    whole = (folder / "ct" / "IM0000").read_bytes()
    for end in (140, 600):
        cut = folder / f"cut_{end}" / "IM0000"
        cut.parent.mkdir()
        cut.write_bytes(whole[:end])
    shutil.copy(folder / "rt" / "1-1.dcm", folder / "cut_600")
    assert ids(folder) == ["ct", "cut_140", "cut_600", "empty", "garbage"]


def test_a_segmentation_is_read_where_there_is_nothing_else(study):
    folder, _ = study
    assert ids(folder / "seg") == ["1-1"]


def test_files_about_a_scan_beside_it_are_no_scans(study, tmp_path):
    folder, slices = study
    flat = tmp_path / "flat"
    write_enhanced(flat / "ct.dcm", slices)
    for name in ("seg", "rt"):
        shutil.copy(folder / name / "1-1.dcm", flat / f"{name}.dcm")
    assert ids(flat) == ["ct"]
    (flat / "cut.dcm").write_bytes((flat / "ct.dcm").read_bytes()[:600])
    assert ids(flat) == ["ct", "cut"]


def test_the_number_of_the_only_channel_is_not_of_the_name(tmp_path):
    names = "a_0000", "frame_0000", "frame_0001", "twice", "twice_0000", "year_2024"
    for name in names:
        write_volume(Volume(np.zeros((1, 2, 2, 2)), np.eye(4)), tmp_path / f"{name}.nii.gz")
    whole = ["a", "frame_0000", "frame_0001", "twice", "twice_0000", "year_2024"]
    assert ids(tmp_path) == whole
    assert ids(tmp_path / "a_0000.nii.gz") == ["a"]
    assert ids(tmp_path / "frame_0000.nii.gz") == ["frame_0000"]
    write_volume(Volume(np.zeros((1, 2, 2, 2)), np.eye(4)), tmp_path / "a_0000.mha")
    twice = [case.images[0].name for case in scans_in(tmp_path, 1)][:2]
    assert twice == ["a_0000.mha", "a_0000.nii.gz"]


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_pictures_of_one_exam_are_a_case_each(tmp_path, suffix):
    names = [f"IM{number}{suffix}" for number in range(3)]
    write_stills(tmp_path / "exam", names)
    cases = scans_in(tmp_path / "exam", 1)
    assert [case.case_id for case in cases] == ["IM0", "IM1", "IM2"]
    for case, name in zip(cases, names, strict=True):
        assert case.images == (tmp_path / "exam" / name,)
        assert read_volume(case.images[0]).spatial_shape == (24, 20)


@pytest.mark.parametrize("hidden", [".y.dcm", ".y.dcm.Ab12Cd"])
def test_hidden_files_beside_scans_are_none(tmp_path, hidden):
    write_stills(tmp_path, ["x.dcm", "y.dcm"])
    shutil.copy(tmp_path / "y.dcm", tmp_path / hidden)
    assert ids(tmp_path) == ["x", "y"]


def test_pictures_without_preamble_and_suffix_are_named_and_read(tmp_path):
    write_stills(tmp_path, ["IM0", "IM1"])
    for path in tmp_path.iterdir():
        header = pydicom.dcmread(path)
        del header.file_meta
        header.preamble = None
        header.save_as(path, implicit_vr=False, little_endian=True)
    cases = scans_in(tmp_path, 1)
    assert [case.case_id for case in cases] == ["IM0", "IM1"]
    for case in cases:
        assert read_volume(case.images[0]).spatial_shape == (24, 20)


@pytest.mark.parametrize("suffix", [".dcm", ""])
def test_headers_of_a_folder_are_parsed_once(tmp_path, monkeypatch, suffix):
    names = [f"IM{number}{suffix}" for number in range(4)]
    write_stills(tmp_path, names)
    parsed, dcmread = [], pydicom.dcmread
    monkeypatch.setattr(
        pydicom,
        "dcmread",
        lambda path, **options: (parsed.append(path), dcmread(path, **options))[1],
    )
    assert len(scans_in(tmp_path, 1)) == 4
    assert sorted(path.name for path in parsed) == names


@pytest.mark.parametrize("name", ["p_000{}.nii.gz", "p_000{}.mha", "p_000{}.nrrd"])
@pytest.mark.parametrize("stored", [1, 2])
def test_numbered_files_are_joined_unless_each_holds_all_channels(tmp_path, name, stored):
    files = [tmp_path / name.format(number) for number in range(2)]
    for file in files:
        write_volume(Volume(np.zeros((stored, 4, 5, 6), np.float32), np.eye(4)), file)
    expected = [tuple(files)] if stored == 1 else [(file,) for file in files]
    assert [case.images for case in scans_in(tmp_path, 2)] == expected
    assert [case.images for case in scans_in(files[0], 2)] == expected[:1]
    assert scan_of(files[:1], 2).images == expected[0]


def test_slices_that_claim_a_place_stay_one_scan(tmp_path):
    write_series(tmp_path / "ct")
    (one,) = scans_in(tmp_path / "ct", 1)
    assert (one.case_id, one.images) == ("ct", (tmp_path / "ct",))


def test_a_file_of_dicom_media_is_a_scan(tmp_path):
    write_enhanced(tmp_path / "IM1", write_series(tmp_path / "slices"))
    assert ids(tmp_path / "IM1") == ["IM1"]


def test_a_folder_that_is_one_level_too_high_names_the_one_to_give(tmp_path):
    patient = tmp_path / "patient"
    for name in ("ct", "mr"):
        write_series(patient / "study" / name)
    assert ids(patient / "study") == ["ct", "mr"]
    for folder in (patient, tmp_path):
        with pytest.raises(DatasetError, match="holds no scans itself") as raised:
            scans_in(folder, 1)
        assert f"Give {patient / 'study'}," in raised.value.remedy
    (tmp_path / "none" / "below").mkdir(parents=True)
    with pytest.raises(DatasetError, match="holds no scans\\."):
        scans_in(tmp_path / "none", 1)

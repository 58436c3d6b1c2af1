"""Series that are written here, and what scanners wrote: each value at its place, or one error."""

import csv
import logging
import os
import sys
import tracemalloc
from copy import deepcopy
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from lamina.errors import FileError, GeometryError, LaminaError
from lamina.geometry import check_same_grid, is_sheared
from lamina.io import claim_of, read_volume, write_volume
from lamina.io.dicom import read_series
from lamina.io.dicom_headers import parse
from lamina.io.dicom_series import list_series
from lamina.volume import Volume

pydicom = pytest.importorskip("pydicom")

from pydicom import uid as syntaxes  # noqa: E402
from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402

ROBUSTNESS = Path(__file__).resolve().parents[3] / "shared" / "data" / "robustness"
CT = "1.2.840.10008.5.1.4.1.1.2"
UID = "2.25.1234567890123456"
AXIAL = np.eye(3)[:2]
SHAPE = (12, 10)  # rows, columns
LPS_TO_RAS = np.diag([-1, -1, 1, 1])
SECRETS = ("Nobody^Known", "ID-4711", "19520311", "Doctor^Who", "ACC-99")
SYNTAXES = (
    syntaxes.ImplicitVRLittleEndian,
    syntaxes.ExplicitVRLittleEndian,
    syntaxes.ExplicitVRBigEndian,
    syntaxes.RLELossless,
    syntaxes.JPEGLSLossless,
)

many = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def _values(number=0, shape=SHAPE, dtype=np.int16):
    return np.random.default_rng(number).integers(0, 32, shape).astype(dtype)


def _header(**changes):
    """A slice of a scan, complete but for its pixels; None leaves a tag out."""
    header = Dataset()
    name, patient, born, doctor, accession = SECRETS
    tags = {
        "SOPClassUID": CT,
        "SOPInstanceUID": pydicom.uid.generate_uid(),
        "Modality": "CT",
        "SeriesInstanceUID": UID,
        "SeriesDescription": "Abdomen",
        "PatientName": name,
        "PatientID": patient,
        "PatientBirthDate": born,
        "ReferringPhysicianName": doctor,
        "AccessionNumber": accession,
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "ImagePositionPatient": [0, 0, 0],
        "PixelSpacing": [0.5, 0.75],
        "SliceThickness": 7,
        "PhotometricInterpretation": "MONOCHROME2",
    }
    for tag, value in (tags | changes).items():
        if value is not None:
            setattr(header, tag, value)
    return header


def _write(path, header, values=None, syntax=syntaxes.ExplicitVRLittleEndian, samples=1):
    """Write a header and values ``(..., rows, columns[, samples])`` in any encoding."""
    values = _values() if values is None else values
    whole, header = values.dtype, deepcopy(header)
    header.Rows, header.Columns = values.shape[values.ndim - 2 - (samples > 1) :][:2]
    header.SamplesPerPixel = samples
    if samples > 1:
        header.PlanarConfiguration = 0
    if whole.kind == "f":
        header.BitsAllocated, header.FloatPixelData = 32, values.astype("<f4").tobytes()
    else:
        header.BitsAllocated = header.BitsStored = 8 * whole.itemsize
        header.HighBit = header.BitsStored - 1
        header.PixelRepresentation = int(whole.kind == "i")
        order = ">" if syntax == syntaxes.ExplicitVRBigEndian else "<"
        header.PixelData = values.astype(whole.newbyteorder(order)).tobytes()
        header["PixelData"].VR = "OW" if whole.itemsize > 1 else "OB"
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = syntaxes.ExplicitVRLittleEndian
    if syntax.is_encapsulated:
        header.compress(syntax, generate_instance_uid=False)
    header.file_meta.TransferSyntaxUID = syntax
    header.save_as(path, enforce_file_format=True)
    return path


def _series(
    folder, heights=(0, 2, 4, 6), orientation=AXIAL, step=None, origin=(3, 4, 5), **changes
):
    """Write slices at multiples of a step, the normal unless told, under shuffled names."""
    folder.mkdir(exist_ok=True)
    step = np.cross(*orientation) if step is None else np.asarray(step)
    names = np.random.default_rng(1).permutation(len(heights))
    stack = []
    for number, height in enumerate(heights):
        stack.append(_values(number))
        position = np.asarray(origin) + height * step
        placed = {
            "ImagePositionPatient": [f"{value:.9f}" for value in position],
            "ImageOrientationPatient": [f"{value:.9f}" for value in np.ravel(orientation)],
            "InstanceNumber": len(heights) - number,
        }
        _write(folder / f"IM{names[number]:04d}", _header(**placed | changes), stack[-1])
    return np.stack(stack).T[None]


def _multiframe(path, frames, values, **shared):
    """Write an enhanced object: one dict of tags for each frame."""
    header = _header(ImagePositionPatient=None, ImageOrientationPatient=None, PixelSpacing=None)
    header.NumberOfFrames = len(frames)
    header.SharedFunctionalGroupsSequence = [
        _groups({"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [0.5, 0.75]})
    ]
    header.PerFrameFunctionalGroupsSequence = [_groups(frame) for frame in frames]
    for tag, value in shared.items():
        setattr(header, tag, value)
    return _write(path, header, values)


def _groups(tags):
    homes = {
        "ImagePositionPatient": "PlanePositionSequence",
        "ImageOrientationPatient": "PlaneOrientationSequence",
        "PixelSpacing": "PixelMeasuresSequence",
        "RescaleSlope": "PixelValueTransformationSequence",
        "RescaleIntercept": "PixelValueTransformationSequence",
        "DiffusionBValue": "MRDiffusionSequence",
        "TemporalPositionIndex": "FrameContentSequence",
    }
    item = Dataset()
    for tag, value in tags.items():
        home = homes[tag]
        if home not in item:
            setattr(item, home, [Dataset()])
        setattr(getattr(item, home)[0], tag, value)
    return item


orientations = st.tuples(*[st.floats(-180, 180)] * 3).map(
    lambda angles: Rotation.from_euler("xyz", angles, degrees=True).as_matrix()[:2]
)


@many
@given(
    orientation=orientations | st.sampled_from([AXIAL, -AXIAL, AXIAL[::-1]]),
    gap=st.floats(0.3, 8),
    count=st.integers(2, 5),
    spacing=st.tuples(*[st.floats(0.3, 5)] * 2),
    backwards=st.booleans(),
)
def test_each_value_lies_where_its_header_says(
    tmp_path_factory, orientation, gap, count, spacing, backwards
):
    folder = tmp_path_factory.mktemp("series")
    heights = gap * np.arange(count)[:: -1 if backwards else 1]
    array = _series(folder, heights, orientation, PixelSpacing=[f"{size:.9f}" for size in spacing])
    volume = read_series(folder)
    np.testing.assert_array_equal(volume.array, array[..., ::-1] if backwards else array)
    across, down = orientation
    steps = [across * spacing[1], down * spacing[0], np.cross(across, down) * gap]
    expected = np.eye(4)
    expected[:3] = np.column_stack([*steps, (3, 4, 5)])
    np.testing.assert_allclose(volume.affine, LPS_TO_RAS @ expected, atol=1e-6)
    _assert_as_simpleitk_reads(folder, volume)


def _assert_as_simpleitk_reads(folder, volume):
    image = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    np.testing.assert_array_equal(volume.array[0], sitk.GetArrayFromImage(image).T)
    for corner in np.ndindex(2, 2, 2):
        index = [int(end * (size - 1)) for end, size in zip(corner, image.GetSize(), strict=True)]
        there = LPS_TO_RAS @ volume.affine @ [*index, 1]
        np.testing.assert_allclose(there[:3], image.TransformIndexToPhysicalPoint(index), atol=1e-4)


def test_a_tilted_gantry_is_kept_as_a_sheared_affine(tmp_path):
    array = _series(tmp_path, step=[0, 0.3, 1])
    volume = read_series(tmp_path)
    assert is_sheared(volume.affine)
    np.testing.assert_allclose(volume.affine[:3, 2], [0, -0.6, 2])
    np.testing.assert_array_equal(volume.array, array)


def test_thickness_does_not_matter_between_slices(tmp_path, caplog):
    _series(tmp_path, SpacingBetweenSlices=3)
    assert read_series(tmp_path).spacing == (0.75, 0.5, 2)
    assert not caplog.messages


def test_every_second_slice_missing_is_at_least_doubted(tmp_path, caplog):
    _series(tmp_path, SpacingBetweenSlices=1)
    assert read_series(tmp_path).spacing == (0.75, 0.5, 2)
    assert "2 mm apart and SpacingBetweenSlices says 1 mm" in caplog.text


@pytest.mark.parametrize(
    ("heights", "fault"),
    [
        ((0, 2, 4, 8, 10), r"gap of 4 mm between slices 3 and 4 of 5 \(4 mm from the first\); 2"),
        ((0, 4, 6), r"gap of 4 mm between slices 1 and 2 of 3 \(0 mm from the first\); 2 mm"),
        ((0, 2, 4, 6, 8, 8.7), r"gap of 0.7 mm between slices 5 and 6 of 6"),
        ((0, 1, 3, 6, 10), "gap of 4 mm"),
    ],
)
def test_missing_and_uneven_slices_are_refused(tmp_path, heights, fault):
    _series(tmp_path, heights)
    with pytest.raises(GeometryError, match=fault) as caught:
        read_series(tmp_path)
    assert str(tmp_path) in caught.value.message
    assert caught.value.remedy


def test_rounded_positions_are_taken_and_larger_errors_are_told(tmp_path, caplog):
    _series(tmp_path / "rounded", (0, 2.01, 4, 6))
    assert read_series(tmp_path / "rounded").spacing[2] == 2
    assert not caplog.messages
    _series(tmp_path / "uneven", (0, 2.15, 4, 6))
    read_series(tmp_path / "uneven")
    assert "slices lie up to 0.15 mm beside an even grid" in caplog.text


def test_slices_that_lie_sideways_are_refused(tmp_path):
    _series(tmp_path, (0, 2, 6))
    _write(tmp_path / "moved", _header(ImagePositionPatient=[3, 9, 9]))
    with pytest.raises(GeometryError, match="mm beside a straight line"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("changes", "values", "fault"),
    [
        ({"PixelSpacing": [1, 1]}, None, r"PixelSpacing: 0.5 x 0.75 and 1 x 1"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, None, "differ in ImageOrientation"),
        ({}, _values(shape=(9, 10)), "Columns and Rows: 10 x 12 and 10 x 9"),
    ],
)
def test_slices_that_do_not_fit_each_other_are_refused(tmp_path, changes, values, fault):
    _series(tmp_path)
    _write(tmp_path / "odd", _header(ImagePositionPatient=[3, 4, 13], **changes), values)
    with pytest.raises(GeometryError, match=fault):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"ImagePositionPatient": None}, "4 of 4 slices have no ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "4 of 4 slices have no ImageOrientationPatient"),
        ({"PixelSpacing": None}, "4 of 4 slices have no PixelSpacing"),
        ({"PixelSpacing": [0.5, 0]}, "PixelSpacing 0.5 x 0 mm is not positive"),
        ({"PixelSpacing": [0.5]}, "PixelSpacing is not 2 numbers"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "not two directions at a right angle"),
        ({"ImageOrientationPatient": [0] * 6}, "not two directions at a right angle"),
        ({"ImageType": ["ORIGINAL", "MOSAIC"]}, "mosaic"),
    ],
)
def test_without_geometry_there_is_no_volume(tmp_path, changes, fault):
    _series(tmp_path, **changes)
    with pytest.raises(GeometryError, match=fault) as caught:
        read_series(tmp_path)
    assert caught.value.remedy


def test_one_slice_is_as_thick_as_it_says(tmp_path, caplog):
    path = _write(tmp_path / "slice.dcm", _header())
    volume = read_volume(path)
    assert (volume.array.shape, volume.spacing) == ((1, 10, 12, 1), (0.75, 0.5, 7))
    assert "nominal thickness of 7 mm" in caplog.text
    _write(path, _header(SpacingBetweenSlices=6))
    assert read_volume(path).spacing[2] == 6
    _write(path, _header(SliceThickness=None))
    with pytest.raises(GeometryError, match="does not say how thick"):
        read_volume(path)


def test_repeated_slices_are_left_out(tmp_path, caplog):
    array = _series(tmp_path)
    again = tmp_path / "again"
    again.write_bytes((tmp_path / "IM0001").read_bytes())
    np.testing.assert_array_equal(read_series(tmp_path).array, array)
    assert "1 of 5 slices are repeated" in caplog.text
    again.write_bytes(again.read_bytes()[:-9])
    np.testing.assert_array_equal(read_series(tmp_path).array, array)
    assert "again: its DICOM data are wrong: it claims 240 bytes of values, 231" in caplog.text


@pytest.mark.parametrize(
    ("tag", "values", "fault"),
    [
        ("DiffusionBValue", (0.0, 800.0), r"DiffusionBValue 0.0, 800.0"),
        ("EchoTime", (4.6, 9.2), r"EchoTime 4.6, 9.2"),
        ("TemporalPositionIdentifier", (1, 2), "TemporalPositionIdentifier 1, 2"),
        ("AcquisitionNumber", (1, 2), "AcquisitionNumber 1, 2"),
        ("InstanceNumber", (1, 2), "what they show"),
    ],
)
def test_several_volumes_in_one_series_are_refused(tmp_path, tag, values, fault):
    for number, value in enumerate(values):
        _series(tmp_path, **{tag: value})
        for path in tmp_path.glob("IM*"):
            path.rename(tmp_path / f"{number}-{path.name}")
    for path in tmp_path.glob("1-*"):
        header = pydicom.dcmread(path)
        _write(path, header, header.pixel_array + np.int16(1))
    with pytest.raises(GeometryError, match=f"2 slices lie at one place and differ in {fault}"):
        read_series(tmp_path)


@pytest.fixture
def two_series(tmp_path):
    """A series of four slices and a scout of another orientation, in one folder."""
    array = _series(tmp_path)
    scout = _header(
        SeriesInstanceUID="2.25.777",
        SeriesDescription="Scout\nview",
        ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
    )
    _write(tmp_path / "scout", scout)
    return tmp_path, array


def test_one_of_several_series_has_to_be_named(two_series):
    folder, array = two_series
    with pytest.raises(FileError, match="holds 2 series") as caught:
        read_series(folder)
    assert f"...{UID[-12:]} (CT 'Abdomen', 4 slices)" in caught.value.message
    assert "...2.25.777 (CT 'Scout?view', 1 slices)" in caught.value.message
    for way in ("a folder of its own", "in Python, name one as series_uid"):
        assert way in caught.value.remedy
    for uid in (UID, UID[-6:]):
        np.testing.assert_array_equal(read_series(folder, uid).array, array)
    with pytest.raises(FileError, match="'999' names 0 of 2 series"):
        read_series(folder, "999")
    by_file = [path for path in folder.iterdir() if path.name != "scout"]
    np.testing.assert_array_equal(read_series(by_file).array, array)


def test_series_are_listed_without_reading_pixels(two_series):
    folder, _ = two_series
    (folder / "report.txt").write_text("nothing to see")
    largest, scout = list_series(folder)
    assert (largest.uid, largest.modality, largest.description) == (UID, "CT", "Abdomen")
    assert (largest.num_slices, scout.num_slices) == (4, 1)
    assert scout.files == (folder / "scout",)


def test_other_files_are_ignored_and_folders_below_not_searched(tmp_path, caplog):
    array = _series(tmp_path / "series")
    _series(tmp_path / "series" / "below", SeriesInstanceUID="2.25.9")
    (tmp_path / "series" / "notes.txt").write_text("DICM")
    (tmp_path / "series" / "empty").write_bytes(b"")
    (tmp_path / "series" / "odd").write_bytes(b"\x08\x00" + b"\xff" * 300)
    report = _header(Modality="SR")
    report.file_meta = FileMetaDataset()
    report.file_meta.TransferSyntaxUID = syntaxes.ExplicitVRLittleEndian
    report.SOPClassUID = syntaxes.BasicTextSRStorage
    report.save_as(tmp_path / "series" / "report.dcm", enforce_file_format=True)
    with caplog.at_level(logging.DEBUG, logger="lamina"):
        np.testing.assert_array_equal(read_series(tmp_path / "series").array, array)
    for name in ("notes.txt", "empty", "odd", "report.dcm"):
        assert f"{name}: is no DICOM image and ignored" in caplog.text
    with pytest.raises(FileError, match="is a folder without DICOM images") as caught:
        read_series(tmp_path)
    assert caught.value.remedy
    with pytest.raises(FileError, match=r"notes\.txt: is no DICOM image"):
        read_series([tmp_path / "series" / "notes.txt"])
    with pytest.raises(FileError, match="absent: does not exist"):
        read_series(tmp_path / "absent")


@pytest.mark.parametrize(
    ("slope", "intercept", "dtype", "expected"),
    [
        (None, None, np.int16, np.int16),
        (None, None, np.uint8, np.uint8),
        (1, -1024, np.uint16, np.int16),
        (1, -1024, np.int16, np.int16),
        (2000, 0, np.uint16, np.int32),
        (2.5, 0, np.int16, np.float32),
        (1, 0.5, np.uint16, np.float32),
        (0, 0, np.int16, np.int16),
    ],
)
def test_values_are_rescaled_and_stay_integers_where_exact(
    tmp_path, slope, intercept, dtype, expected
):
    stored = _values(dtype=dtype)
    path = tmp_path / "slice.dcm"
    _write(path, _header(RescaleSlope=slope, RescaleIntercept=intercept), stored)
    found = read_volume(path).array
    assert found.dtype == expected
    np.testing.assert_allclose(found[0, ..., 0].T, stored * (slope or 1.0) + float(intercept or 0))


@pytest.mark.parametrize("is_signed", [True, False])
def test_a_table_of_values_stands_in_place_of_a_scale(tmp_path, is_signed):
    table = Dataset()
    table.ModalityLUTType, table.LUTDescriptor = "HU", [3, 1, 16]
    table.add_new("LUTData", "OW", np.array([100, 250, 70], "<u2").tobytes())
    header = _header(ModalityLUTSequence=[table], RescaleSlope=3, RescaleIntercept=7)
    stored = _values(dtype=np.int16 if is_signed else np.uint16) % 5
    found = read_volume(_write(tmp_path / "slice.dcm", header, stored)).array[0, ..., 0].T
    np.testing.assert_array_equal(found, np.array([100, 100, 250, 70, 70])[stored])


@pytest.mark.parametrize("tag", ["StudyInstanceUID", "PatientID", "FrameOfReferenceUID"])
def test_slices_of_two_scans_are_no_series(tmp_path, tag):
    _series(tmp_path, heights=(0, 2))
    _series(tmp_path / "other", heights=(4, 6), **{tag: "2.25.4"})
    for path in (tmp_path / "other").iterdir():
        header = pydicom.dcmread(path)
        header.save_as(tmp_path / f"second-{path.name}")
    first = next(path for path in tmp_path.iterdir() if path.name.startswith("IM"))
    header = pydicom.dcmread(first)
    setattr(header, tag, "2.25.3")
    header.save_as(first)
    with pytest.raises(GeometryError, match=f"slices of one series differ in {tag}") as caught:
        read_series(tmp_path)
    assert "2.25" not in str(caught.value)


@pytest.mark.parametrize("preamble", [True, False])
def test_deflated_files_are_refused_unopened(tmp_path, preamble):
    syntax = syntaxes.DeflatedExplicitVRLittleEndian
    path = _write(tmp_path / "slice.dcm", _header(), syntax=syntax)
    path.write_bytes(path.read_bytes()[0 if preamble else 132 :])
    with pytest.raises(FileError, match="is a deflated DICOM file"):
        parse(path, ("Rows",), pixels=False)


def test_each_slice_has_its_own_scale(tmp_path):
    for number, slope in enumerate((0.5, 0.25, 3)):
        header = _header(ImagePositionPatient=[0, 0, number], RescaleSlope=slope)
        header.RescaleIntercept = number
        _write(tmp_path / str(number), header)
    found = read_series(tmp_path).array
    assert found.dtype == np.float32
    for number, slope in enumerate((0.5, 0.25, 3)):
        np.testing.assert_array_equal(found[0, ..., number].T, _values() * slope + number)


@pytest.mark.parametrize("slope", [1, 2, 0.5])
@pytest.mark.parametrize("dtype", [np.int16, np.uint16])
def test_the_claim_of_a_series_covers_what_reading_holds(tmp_path, dtype, slope):
    stored = _values(dtype=dtype)
    for number in range(3):
        header = _header(ImagePositionPatient=[0, 0, number], RescaleSlope=slope)
        _write(tmp_path / str(number), header, stored)
    found, claim = read_series(tmp_path).array, claim_of(tmp_path)
    assert claim.values == found.size
    assert claim.reading_bytes >= 3 * stored.nbytes + found.nbytes


def test_the_claim_of_a_palette_counts_its_colours(tmp_path):
    header = _header(PhotometricInterpretation="PALETTE COLOR")
    for colour in ("Red", "Green", "Blue"):
        setattr(header, f"{colour}PaletteColorLookupTableDescriptor", [32, 0, 16])
        table = np.arange(0, 64_000, 2_000, dtype=np.uint16).tobytes()
        setattr(header, f"{colour}PaletteColorLookupTableData", table)
    path = _write(tmp_path / "a.dcm", header, _values(dtype=np.uint8))
    found, claim = read_volume(path).array, claim_of(path)
    assert found.shape[0] == 3
    assert claim.values == found.size
    assert claim.reading_bytes >= 2 * found.nbytes


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_every_encoding_gives_the_same_values(tmp_path, syntax, dtype):
    stored = _values(dtype=dtype)
    for photometric in ("MONOCHROME2", "MONOCHROME1"):
        header = _header(PhotometricInterpretation=photometric, RescaleSlope=1, RescaleIntercept=-5)
        found = read_volume(_write(tmp_path / "slice.dcm", header, stored, syntax)).array
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found[0, ..., 0].T, stored.astype(int) - 5)


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_preamble_are_read(tmp_path, implicit):
    header = pydicom.dcmread(_write(tmp_path / "slice.dcm", _header()))
    del header.file_meta
    header.preamble = None
    header.save_as(tmp_path / "slice.dcm", implicit_vr=implicit, little_endian=True)
    assert b"DICM" not in (tmp_path / "slice.dcm").read_bytes()
    np.testing.assert_array_equal(read_volume(tmp_path / "slice.dcm").array[0, ..., 0].T, _values())


def test_real_numbers_are_kept(tmp_path):
    stored = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    found = read_volume(_write(tmp_path / "map.dcm", _header(), stored)).array
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[0, ..., 0].T, stored)


@pytest.mark.parametrize("syntax", [syntaxes.ExplicitVRLittleEndian, syntaxes.JPEGLSLossless])
@pytest.mark.parametrize(("spacing", "unit", "size"), [(None, "px", 1), ([0.5, 0.75], "mm", 0.75)])
def test_pictures_have_two_axes_and_keep_their_colours(tmp_path, syntax, spacing, unit, size):
    nowhere = {"ImagePositionPatient": None, "ImageOrientationPatient": None}
    header = _header(PhotometricInterpretation="RGB", PixelSpacing=spacing, **nowhere)
    stored = _values(shape=(*SHAPE, 3), dtype=np.uint8)
    volume = read_volume(_write(tmp_path / "us.dcm", header, stored, syntax, samples=3))
    np.testing.assert_array_equal(volume.array, stored.T)
    assert (volume.unit, volume.orientation, volume.spacing[0]) == (unit, "LP", size)
    assert volume.in_colour


def test_colours_of_16_bits_are_decoded_in_runs(tmp_path):
    """SimpleITK swaps their bytes."""
    stored = _values(shape=(*SHAPE, 3), dtype=np.uint16)
    header = _header(PhotometricInterpretation="RGB")
    path = _write(tmp_path / "a.dcm", header, stored, syntaxes.RLELossless, samples=3)
    np.testing.assert_array_equal(read_volume(path).array[..., 0], stored.T)


def test_colour_slices_make_a_volume_of_three_channels(tmp_path):
    stored = [_values(number, (*SHAPE, 3), np.uint8) for number in range(3)]
    for number, values in enumerate(stored):
        header = _header(PhotometricInterpretation="RGB", ImagePositionPatient=[0, 0, number])
        _write(tmp_path / str(number), header, values, samples=3)
    np.testing.assert_array_equal(read_series(tmp_path).array, np.stack(stored).T)


def test_frames_are_sorted_by_position_and_scaled_each(tmp_path):
    heights, slopes = (4, 0, 2), (1, 0.5, 2)
    frames = [
        {"ImagePositionPatient": [3, 4, z], "RescaleSlope": slope, "RescaleIntercept": -10}
        for z, slope in zip(heights, slopes, strict=True)
    ]
    stored = _values(shape=(3, *SHAPE))
    volume = read_volume(_multiframe(tmp_path / "enhanced.dcm", frames, stored))
    expected = [stored[index] * slopes[index] - 10 for index in (1, 2, 0)]
    np.testing.assert_array_equal(volume.array, np.stack(expected).T[None])
    assert volume.spacing == (0.75, 0.5, 2)
    np.testing.assert_array_equal(volume.affine[:3, 3], [-3, -4, 0])


@pytest.mark.parametrize(
    ("tag", "values"), [("TemporalPositionIndex", (1, 2)), ("DiffusionBValue", (0.0, 50.0))]
)
def test_frames_of_several_volumes_are_refused(tmp_path, tag, values):
    frames = [{"ImagePositionPatient": [0, 0, z], tag: v} for v in values for z in range(3)]
    path = _multiframe(tmp_path / "enhanced.dcm", frames, _values(shape=(6, *SHAPE)))
    with pytest.raises(GeometryError, match=f"{tag} {values[0]}, {values[1]}"):
        read_volume(path)


def test_frames_without_places_are_refused(tmp_path):
    film = _write(tmp_path / "film.dcm", _header(NumberOfFrames=2), _values(shape=(2, *SHAPE)))
    with pytest.raises(GeometryError, match="does not say where its 2 frames lie"):
        read_volume(film)
    assert list_series(tmp_path)[0].num_slices == 2
    path = _multiframe(
        tmp_path / "film.dcm",
        [{"ImagePositionPatient": [0, 0, z]} for z in range(3)],
        _values(shape=(3, *SHAPE)),
        NumberOfFrames=4,
    )
    with pytest.raises(FileError, match="claims 4 frames and describes 3"):
        read_volume(path)


@pytest.mark.parametrize("syntax", [syntaxes.ExplicitVRLittleEndian, syntaxes.JPEGLSLossless])
@pytest.mark.parametrize(
    ("claim", "fault"),
    [
        ({"Rows": 60000, "Columns": 60000}, "it claims 7200000000 bytes of values"),
        ({"NumberOfFrames": 2**30}, "does not say where its 1073741824 frames lie"),
    ],
)
def test_a_huge_claim_takes_no_memory(tmp_path, syntax, claim, fault):
    path = _write(tmp_path / "huge.dcm", _header(), syntax=syntax)
    header = pydicom.dcmread(path)
    for tag, value in claim.items():
        setattr(header, tag, value)
    header.save_as(path)
    tracemalloc.start()
    with pytest.raises(LaminaError, match=fault):
        read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6


@pytest.mark.parametrize(
    "syntax", [SYNTAXES[1], syntaxes.RLELossless, syntaxes.JPEGLSLossless], ids=str
)
def test_files_cut_at_any_byte_are_refused(tmp_path, syntax):
    path = _write(tmp_path / "slice.dcm", _header(), syntax=syntax)
    content = path.read_bytes()
    whole = read_volume(path).array
    for end in range(0, len(content), 5):
        found = _read_damaged(path, content[:end])
        assert found is None or np.array_equal(found.array, whole)


def _read_damaged(path, content):
    path.write_bytes(content)
    return _volume_or_error(path)


def _volume_or_error(path):
    """Return the volume, or None after checking that the error is one of ours and clear."""
    try:
        return read_series(path)
    except LaminaError as caught:
        error = caught
    assert str(path) in error.message
    assert error.remedy
    assert "\n" not in str(error)
    assert len(str(error)) < len(str(path)) + 500
    return None


@pytest.mark.parametrize(
    "syntax", [SYNTAXES[1], syntaxes.RLELossless, syntaxes.JPEGLSLossless], ids=str
)
@many
@given(
    damages=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=4)),
        min_size=1,
        max_size=4,
    )
)
def test_random_damage_gives_one_error_or_a_volume(tmp_path, syntax, damages):
    path = _write(tmp_path / "slice.dcm", _header(SOPInstanceUID="2.25.1"), syntax=syntax)
    content = bytearray(path.read_bytes())
    for where, data in damages:
        start = 128 + int(where * (len(content) - 128))
        content[start : start + len(data)] = data
    _read_damaged(path, bytes(content))


def test_nothing_about_the_patient_is_told(tmp_path, caplog):
    caplog.set_level(logging.DEBUG)
    text = []
    faults = (
        {},
        {"PixelSpacing": None},
        {"PatientBirthDate": "x19520311x"},
        {"SeriesInstanceUID": "2.25.8"},
        {"Rows": 9},
    )
    for number, fault in enumerate(faults):
        folder = tmp_path / str(number)
        _series(folder)
        header = pydicom.dcmread(_write(folder / "odd", _header(ImagePositionPatient=[3, 4, 9])))
        for tag, value in fault.items():
            with pydicom.config.disable_value_validation():
                setattr(header, tag, value)
        header.save_as(folder / "odd")
        with pytest.raises(LaminaError) as caught:
            read_series(folder)
        text += [str(caught.value), str(caught.value.__cause__)]
    text += [str(series) for series in list_series(tmp_path / "3")]
    for secret in SECRETS:
        assert secret not in "\n".join(text) + caplog.text


def test_a_pipe_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.dcm")
    with pytest.raises(FileError, match="is a folder or device"):
        read_series(tmp_path / "pipe.dcm")


def test_without_pydicom_the_extra_is_named(tmp_path, monkeypatch):
    path = _write(tmp_path / "slice.dcm", _header())
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(FileError, match=r"pip install 'lamina\[dicom\]'"):
        read_volume(path)


def test_scans_are_not_written_as_dicom(tmp_path):
    volume = Volume(np.zeros((1, 2, 2, 2), np.uint8), np.eye(4))
    with pytest.raises(FileError, match=r"scan\.dcm: \.dcm files are read, not .* Write \.nii\.gz"):
        write_volume(volume, tmp_path / "scan.dcm")
    assert not list(tmp_path.iterdir())


def _manifest():
    if not ROBUSTNESS.is_dir():
        return [pytest.param("", "", marks=pytest.mark.skip(reason=f"no {ROBUSTNESS}"))]
    with (ROBUSTNESS / "manifest.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"] == "dicom series"]
    return [pytest.param(row["file"], row["expected"], id=Path(row["file"]).name) for row in rows]


@pytest.mark.parametrize(("folder", "expected"), _manifest())
def test_behaves_as_its_manifest_says(shared, caplog, folder, expected):
    path = shared / "data" / "robustness" / folder
    volume = _volume_or_error(path)
    if volume is None:
        assert not expected.startswith("load")
        return
    assert expected.startswith("load") or ("warn" in expected and caplog.messages)
    sound = read_series(path.with_name("00_ok"))
    np.testing.assert_array_equal(volume.affine, sound.affine)
    if "no_rescale" not in folder:
        np.testing.assert_array_equal(volume.array, sound.array)


def _foreign():
    """Single images that other projects wrote; without them, one name that skips."""
    homes = ("pydicom", "highdicom", "nibabel/nicom/tests/data", "dcmqi/ct-3slice")
    found = [path for home in homes for path in (ROBUSTNESS / home).glob("*.dcm")]
    return sorted(path.relative_to(ROBUSTNESS).as_posix() for path in found) or ["absent.dcm"]


@pytest.mark.parametrize("file", _foreign())
@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_foreign_files_give_what_simpleitk_gives_or_one_error(shared, file):
    path = shared / "data" / "robustness" / file
    volume = _volume_or_error(path)
    if volume is None:
        return
    header = pydicom.dcmread(path, stop_before_pixels=True)
    if "segmentation" in header.get("SOPClassUID", syntaxes.UID("")).name.lower():
        return  # ITK turns 0 and 1 into 0 and 255
    if header.PhotometricInterpretation == "MONOCHROME1" or "rle_" in file:
        return  # ITK turns the former round and misreads the latter
    image = sitk.ReadImage(path, imageIO="GDCMImageIO")
    values = sitk.GetArrayFromImage(image)[0].T
    np.testing.assert_allclose(volume.array.reshape(values.shape), values, rtol=1e-6)
    if volume.spatial_dims == 3:
        there = LPS_TO_RAS @ volume.affine @ [*(size - 1 for size in volume.spatial_shape), 1]
        last = image.TransformIndexToPhysicalPoint([size - 1 for size in image.GetSize()])
        np.testing.assert_allclose(there[:3], last, atol=1e-3)


@pytest.mark.parametrize(
    ("file", "fault"),
    [
        ("pydicom/MR_truncated.dcm", "claims 8192 bytes of values, 8130 are there"),
        ("pydicom/badVR.dcm", "invalid literal"),
        ("pydicom/examples_ybr_color.dcm", "where its 30 frames lie"),
        ("pydicom/rtplan.dcm", "is no DICOM image"),
        ("highdicom/sr_document.dcm", "is no DICOM image"),
        ("highdicom/seg_image_ct_binary_overlap.dcm", "ReferencedSegmentNumber 1, 2"),
        ("dcm_qa/nih/In/20180918Si/mr_0003", "mosaic"),
        ("dcm_qa/nih/In/20180918GE/mr_0004", "2 slices lie at one place"),
        ("dcm_qa/enh/In/Philips", "EffectiveEchoTime 1.52, 0.0; FrameType"),
        ("dcm_qa/enh/In/Siemens/XA10", "TemporalPositionIndex 1, 2, 3, 4"),
    ],
)
def test_what_scanners_wrote_and_no_volume_can_hold_is_refused(shared, file, fault):
    path = shared / "data" / "robustness" / file
    with pytest.raises(LaminaError, match=fault):
        read_series(path)


def test_a_missing_slice_of_a_real_scan_is_named(shared):
    (folder,) = (shared / "data/robustness/picai_prep").glob("*/*/*/*")
    with pytest.raises(GeometryError, match="gap of 6 mm between slices 13 and 14 of 18"):
        read_series(folder)


def test_a_real_series_lies_where_its_labels_lie(shared):
    folder = shared / "data" / "robustness" / "dicom_ct_series"
    volume = read_series(folder / "example_ct_dicom")
    _assert_as_simpleitk_reads(folder / "example_ct_dicom", volume)
    labels = nibabel.load(folder / "example_seg_dicom.nii.gz")
    turned = nibabel.as_closest_canonical(nibabel.Nifti1Image(volume.array[0], volume.affine))
    expected = nibabel.as_closest_canonical(labels)
    check_same_grid(turned.affine, turned.shape, expected.affine, expected.shape, "CT and labels")


@pytest.mark.parametrize("time", [1, 2, 3, 4])
def test_enhanced_frames_match_the_reference_nifti(shared, time):
    folder = shared / "data" / "robustness" / "dcm_qa" / "enh"
    volume = read_volume(folder / f"In/Siemens/XA10/6_{time}.dcm")
    reference = nibabel.load(folder / "Ref/Siemens_REST1_w_SMS_PF7-8_6.nii")
    values = np.asarray(reference.dataobj)[..., time - 1]
    upside_down = np.array([[1, 0, 0, 0], [0, -1, 0, 63], [0, 0, 1, 0], [0, 0, 0, 1]])
    np.testing.assert_array_equal(volume.array[0], values[:, ::-1])
    np.testing.assert_allclose(volume.affine, reference.affine @ upside_down, atol=1e-3)


@pytest.mark.parametrize("name", ["23x38x3", "24x38x3"])
def test_classic_and_enhanced_files_of_one_scan_are_the_same(shared, name):
    folder = shared / "data" / "robustness" / "dcmqi" / name
    classic, enhanced = read_series(folder / "image"), read_series(folder / "multiframe")
    np.testing.assert_array_equal(classic.array, enhanced.array)
    np.testing.assert_allclose(classic.affine, enhanced.affine, atol=1e-6)

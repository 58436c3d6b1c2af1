"""What is written lies in the patient where it was segmented, whatever the series is like."""

import logging
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dicom_scans import (
    AXIAL,
    OBLIQUE,
    STEP,
    ball,
    middle,
    places,
    save,
    write_enhanced,
    write_series,
)
from lamina.errors import FileError, GeometryError, LabelError
from lamina.io import derived, read_volume
from lamina.io.derived import Producer, Pseudonyms, write_structures
from lamina.io.derived.source import read_source
from lamina.io.structures import describe, read_structures
from lamina.labels import LabelSet
from lamina.volume import Volume

pydicom = pytest.importorskip("pydicom")
hd = pytest.importorskip("highdicom")

from pydicom.uid import EnhancedMRImageStorage  # noqa: E402

KINDS = ("seg", "labelmap", "rtstruct")
LABELS = LabelSet(
    values={"liver": 3, "left kidney": 5, "lesion": 9},
    regions={"liver with lesion": ("liver", "lesion")},
)
ALIKE = LabelSet(values=LABELS.values)
PRODUCER = Producer(name="Lamina", version="0.1.0", model="f" * 64)
SECRETS = {
    "PatientName": "Nobody^Known",
    "PatientID": "ID-4711",
    "PatientBirthDate": "19520311",
    "AccessionNumber": "ACC-99",
    "ReferringPhysicianName": "Doctor^Who",
    "StudyID": "ST-77",
    "StudyDate": "20190723",
    "StudyTime": "134501",
    "StudyDescription": "Tibia after accident",
    "SeriesDescription": "Protocol of Dr Who",
    "InstitutionName": "General Hospital",
}


def drawn(slices):
    """A ball with a smaller one in it, beside the middle; nothing of the kidney."""
    centre = middle(slices) + np.array([1.5, -1, 2])
    label = np.zeros((len(slices), slices[0].Rows, slices[0].Columns), np.uint8)
    label[ball(slices, centre, 7)] = 3
    label[ball(slices, centre + np.array([0, 3, 1]), 3)] = 9
    return label


def volume(image, label):
    return Volume(label.T[None], image.affine, "segmentation")


def write(folder, kind, label, labels=LABELS, scan="ct", **options):
    image = read_volume(folder / scan)
    path = folder / f"{kind}.dcm"
    write_structures(
        volume(image, label),
        labels,
        path,
        kind=kind,
        scan=folder / scan,
        producer=PRODUCER,
        **options,
    )
    return path, image


def masks_of(label, labels=LABELS):
    values = {name: (value,) for name, value in labels.values.items()}
    unions = {name: [labels.values[one] for one in own] for name, own in labels.regions.items()}
    return {name: np.isin(label, own) for name, own in {**values, **unions}.items()}


def assert_holds(path, image, slices, label, kind, atol=1e-3):
    """Compare masks on the grid, and centres in LPS mm by the headers of the slices alone."""
    found = dict(read_structures(path, image))
    expected = masks_of(label, ALIKE if kind == "labelmap" else LABELS)
    assert [name for name, mask in expected.items() if mask.any() or kind != "rtstruct"] == list(
        found
    )
    where = np.stack([places(one) for one in slices])
    for name, mask in found.items():
        np.testing.assert_array_equal(mask.T, expected[name])
        if mask.any():
            lps = (np.argwhere(mask) @ image.affine[:3, :3].T + image.affine[:3, 3]) * [-1, -1, 1]
            np.testing.assert_allclose(
                lps.mean(axis=0), where[expected[name]].mean(axis=0), atol=atol
            )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "orientation",
    [AXIAL, -AXIAL, AXIAL[::-1], OBLIQUE, -OBLIQUE[::-1]],
    ids=["axial", "upside down", "feet up", "oblique", "oblique back"],
)
def test_structures_lie_where_they_were_segmented(tmp_path, kind, orientation):
    slices = write_series(tmp_path / "ct", orientation)
    label = drawn(slices)
    path, image = write(tmp_path, kind, label)
    assert_holds(path, image, slices, label, kind)


@pytest.mark.parametrize("kind", ["seg", "labelmap"])
def test_highdicom_reads_the_same(tmp_path, kind):
    slices = write_series(tmp_path / "ct", OBLIQUE)
    label = drawn(slices)
    path, _ = write(tmp_path, kind, label, ALIKE)
    read = hd.seg.segread(path)
    grid = hd.get_volume_from_series(slices)
    found = read.get_volume(combine_segments=True).match_geometry(grid)
    np.testing.assert_array_equal(found.array, hd_order(label, slices, grid))


def hd_order(label, slices, grid):
    """Number segments from 1, in highdicom's own order of slices."""
    numbers = np.select([label == 3, label == 5, label == 9], [1, 2, 3])
    first = np.array(slices[0].ImagePositionPatient, float)
    return numbers if np.allclose(grid.position, first, atol=1e-3) else numbers[::-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sop_class", [None, EnhancedMRImageStorage], ids=["CT", "MR"])
def test_frames_of_an_enhanced_object_are_referred_to_by_number(tmp_path, kind, sop_class):
    slices = write_series(tmp_path / "parts", OBLIQUE)
    order = np.random.default_rng(0).permutation(len(slices)).tolist()
    enhanced = write_enhanced(tmp_path / "ct" / "one", slices, order, sop_class)
    label = drawn(slices)
    path, image = write(tmp_path, kind, label)
    assert_holds(path, image, slices, label, kind)
    found = pydicom.dcmread(path)
    if kind == "rtstruct":
        contour = found.ROIContourSequence[0].ContourSequence[0]
        image_of, where = contour.ContourImageSequence[0], contour.ContourData[:3]
    else:
        group = found.PerFrameFunctionalGroupsSequence[0]
        image_of = group.DerivationImageSequence[0].SourceImageSequence[0]
        where = group.PlanePositionSequence[0].ImagePositionPatient
    assert image_of.ReferencedSOPInstanceUID == enhanced.SOPInstanceUID
    assert image_of.ReferencedSOPClassUID == enhanced.SOPClassUID
    frame = enhanced.PerFrameFunctionalGroupsSequence[image_of.ReferencedFrameNumber - 1]
    normal = np.cross(*OBLIQUE)
    apart = np.subtract(where, frame.PlanePositionSequence[0].ImagePositionPatient) @ normal
    assert abs(apart) < 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_objects_say_what_they_were_made_from(tmp_path, kind):
    slices = write_series(tmp_path / "ct", **SECRETS)
    found = pydicom.dcmread(write(tmp_path, kind, drawn(slices))[0])
    for tag in (*SECRETS, "StudyInstanceUID", "FrameOfReferenceUID"):
        if tag not in ("SeriesDescription", "InstitutionName"):
            assert found[tag].value == slices[0][tag].value
    assert found.SeriesInstanceUID != slices[0].SeriesInstanceUID
    described = describe(found, tmp_path / f"{kind}.dcm")
    assert described.series == (slices[0].SeriesInstanceUID,)
    if kind == "rtstruct":
        study = found.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
        images = study.RTReferencedSeriesSequence[0].ContourImageSequence
    else:
        images = found.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert len(found.SourceImageSequence) == len(slices)
    named = {one.ReferencedSOPInstanceUID for one in images}
    assert named == {one.SOPInstanceUID for one in slices}


@pytest.mark.parametrize("kind", ["seg", "labelmap"])
def test_segments_have_codes_colours_and_tracking(tmp_path, kind):
    slices = write_series(tmp_path / "ct")
    found = pydicom.dcmread(write(tmp_path, kind, drawn(slices))[0])
    segments = [one for one in found.SegmentSequence if one.SegmentNumber]
    liver, kidney, lesion = segments[:3]
    assert liver.SegmentedPropertyTypeCodeSequence[0].CodeValue == "10200004"
    assert kidney.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Kidney"
    side = kidney.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
    assert side[0].CodeMeaning == "Left"
    assert lesion.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert liver.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = liver.SegmentationAlgorithmIdentificationSequence[0]
    assert "f" * 64 in algorithm.AlgorithmParameters
    assert [one.TrackingID for one in segments[:2]] == ["liver", "left kidney"]
    assert len({one.TrackingUID for one in segments}) == len(segments)
    colours = {tuple(one.RecommendedDisplayCIELabValue) for one in segments}
    assert len(colours) == len(segments)


def test_declared_codes_and_colours_are_written(tmp_path):
    slices = write_series(tmp_path / "ct")
    terms = {"liver": {"type": ["L-1", "My liver", "99LOCAL"], "colour": [255, 0, 0]}}
    labels = LabelSet.from_dict({"values": ALIKE.values, "terms": terms})
    found = pydicom.dcmread(write(tmp_path, "rtstruct", drawn(slices), labels)[0])
    assert list(found.ROIContourSequence[0].ROIDisplayColor) == [255, 0, 0]
    code = found.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0]
    assert (code.CodeValue, code.CodingSchemeDesignator) == ("L-1", "99LOCAL")
    found = pydicom.dcmread(write(tmp_path, "seg", drawn(slices), labels)[0])
    lab = found.SegmentSequence[0].RecommendedDisplayCIELabValue
    assert hd.color.CIELabColor.from_dicom_value(lab).to_rgb() == (255, 0, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_segmentation_is_small_and_names_its_structures(tmp_path, kind):
    slices = write_series(tmp_path / "ct")
    label = np.zeros((12, 20, 24), np.uint8)
    path, image = write(tmp_path, kind, label)
    assert not any(mask.any() for _, mask in read_structures(path, image))
    found = pydicom.dcmread(path)
    if kind == "rtstruct":
        assert [roi.ROIName for roi in found.StructureSetROISequence] == list(LABELS.names)
    else:
        names = [one.SegmentLabel for one in found.SegmentSequence if one.SegmentNumber]
        assert names == list(LABELS.names if kind == "seg" else LABELS.values)
        assert found.NumberOfFrames <= len(LABELS.names)
        images = found.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert len(images) == len(slices)


@pytest.mark.parametrize("kind", KINDS)
def test_one_slice_is_as_thick_as_it_says(tmp_path, kind):
    slices = write_series(tmp_path / "ct", OBLIQUE, size=(24, 20, 1))
    label = drawn(slices)
    assert (label == 3).any()
    path, image = write(tmp_path, kind, label)
    assert_holds(path, image, slices, label, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_slices_that_are_not_quite_even_are_followed(tmp_path, kind):
    slices = write_series(tmp_path / "ct")
    for number, one in enumerate(slices):
        one.ImagePositionPatient[2] += 0.1 * (number == 4)
        save(one, tmp_path / "ct" / f"IM{(7 * number) % 12:04d}")
    label = drawn(slices)
    path, image = write(tmp_path, kind, label)
    assert_holds(path, image, slices, label, kind, atol=0.1)
    found = pydicom.dcmread(path)
    if kind != "rtstruct":
        heights = {
            float(group.PlanePositionSequence[0].ImagePositionPatient[2])
            for group in found.PerFrameFunctionalGroupsSequence
        }
        assert 30 + 4 * STEP + 0.1 in heights


@pytest.mark.parametrize("kind", KINDS)
def test_a_tilted_gantry_keeps_its_slices(tmp_path, kind):
    slices = write_series(tmp_path / "ct")
    for number, one in enumerate(slices):
        one.ImagePositionPatient[1] += 0.6 * number
        save(one, tmp_path / "ct" / f"IM{(7 * number) % 12:04d}")
    label = drawn(slices)
    path, image = write(tmp_path, kind, label)
    assert_holds(path, image, slices, label, kind)


def test_a_missing_slice_is_refused(tmp_path):
    slices = write_series(tmp_path / "ct")
    image = read_volume(tmp_path / "ct")
    (tmp_path / "ct" / "IM0011").unlink()
    with pytest.raises(GeometryError, match=r"has .* voxels, .*ct"):
        write_structures(
            volume(image, drawn(slices)),
            LABELS,
            tmp_path / "seg.dcm",
            kind="seg",
            scan=tmp_path / "ct",
            producer=PRODUCER,
        )
    assert not (tmp_path / "seg.dcm").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda affine: affine + np.diag([1.0], 3),
        lambda affine: affine @ np.diag([-1, 1, 1, 1]),
        lambda affine: affine @ np.diag([1, 1, -1, 1]),
        lambda affine: affine @ np.diag([1.2, 1, 1, 1]),
    ],
    ids=["moved", "mirrored", "slices reversed", "stretched"],
)
def test_a_segmentation_that_lies_elsewhere_is_refused(tmp_path, change):
    slices = write_series(tmp_path / "ct")
    image = read_volume(tmp_path / "ct")
    wrong = Volume(drawn(slices).T[None], change(image.affine), "segmentation")
    with pytest.raises(GeometryError, match=r"lies up to .* mm beside the slices"):
        write_structures(
            wrong,
            LABELS,
            tmp_path / "seg.dcm",
            kind="seg",
            scan=tmp_path / "ct",
            producer=PRODUCER,
        )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fault", ["mirrored", "moved", "shrunk", "gone"])
def test_a_file_that_does_not_hold_what_was_segmented_is_not_kept(
    tmp_path, monkeypatch, kind, fault
):
    slices = write_series(tmp_path / "ct")
    (tmp_path / f"{kind}.dcm").write_text("an earlier file")
    monkeypatch.setattr(derived, "_save", _spoiling(fault))
    with pytest.raises(FileError, match=r"'li\w+' is not as it was segmented when read back"):
        write(tmp_path, kind, drawn(slices))
    assert (tmp_path / f"{kind}.dcm").read_text() == "an earlier file"
    assert {path.name for path in tmp_path.iterdir()} == {"ct", f"{kind}.dcm"}


def _spoiling(fault):
    """Return a way of saving that writes something else."""

    def save_spoilt(written, part, path):
        if written.Modality == "RTSTRUCT":
            for contour in written.ROIContourSequence[0].ContourSequence:
                points = np.array(contour.ContourData, float).reshape(-1, 3)
                scale, shift = {
                    "mirrored": ([-1, 1, 1], 0),
                    "moved": (1, [0.05, 0, 0]),
                    "shrunk": ([0.99, 1, 1], 0),
                    "gone": (0, points[0]),
                }[fault]
                moved = points * scale + shift
                contour.ContourData = [f"{value:.4f}" for value in moved.ravel()]
        elif fault == "moved":
            for group in written.PerFrameFunctionalGroupsSequence:
                where = group.PlanePositionSequence[0]
                where.ImagePositionPatient = [
                    float(where.ImagePositionPatient[0]) + 0.05,
                    *where.ImagePositionPatient[1:],
                ]
        elif fault == "mirrored":
            plane = written.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
            plane.ImageOrientationPatient = [-float(v) for v in plane.ImageOrientationPatient]
        elif fault == "shrunk":
            measures = written.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
            measures.SpacingBetweenSlices = STEP * 0.99
        else:
            del written.PixelData
            syntax = pydicom.uid.ExplicitVRLittleEndian
            written.file_meta.TransferSyntaxUID = syntax
            bits = written.NumberOfFrames * written.Rows * written.Columns * written.BitsAllocated
            written.PixelData = bytes(bits // 8)
        written.save_as(part, enforce_file_format=True)

    return save_spoilt


@pytest.mark.parametrize("kind", KINDS)
def test_anonymised_objects_say_nothing_of_patient_and_visit(tmp_path, kind):
    slices = write_series(tmp_path / "ct", **SECRETS)
    path, image = write(tmp_path, kind, drawn(slices), pseudonyms=Pseudonyms())
    content = path.read_bytes()
    uids = [slices[0][tag].value for tag in ("StudyInstanceUID", "SeriesInstanceUID")]
    uids += [slices[0].FrameOfReferenceUID, *(one.SOPInstanceUID for one in slices)]
    for secret in (*SECRETS.values(), *uids):
        assert secret.encode() not in content, secret
    found = pydicom.dcmread(path)
    assert found.PatientIdentityRemoved == "YES"
    assert found.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert found.PatientID.startswith("anonymous-")
    times = [one for one in found.iterall() if one.VR in ("DA", "TM", "DT")]
    assert {str(one.value or "") for one in times} <= {"", "19000101", "000000"}
    assert_holds(path, image, slices, drawn(slices), kind)


def test_pseudonyms_are_the_same_within_a_run_and_others_in_the_next(tmp_path):
    slices = write_series(tmp_path / "ct")
    label, run = drawn(slices), Pseudonyms()
    tags = ("PatientID", "StudyInstanceUID", "FrameOfReferenceUID")
    seg = pydicom.dcmread(write(tmp_path, "seg", label, pseudonyms=run)[0])
    contours = pydicom.dcmread(write(tmp_path, "rtstruct", label, pseudonyms=run)[0])
    later = pydicom.dcmread(write(tmp_path, "seg", label, pseudonyms=Pseudonyms())[0])
    assert [seg[tag].value for tag in tags] == [contours[tag].value for tag in tags]
    assert not {seg[tag].value for tag in tags} & {later[tag].value for tag in tags}


def test_copies_of_pseudonyms_agree_and_others_know_nothing_of_them():
    known, original = Pseudonyms(), "1.2.840.113619.2"
    copy = pickle.loads(pickle.dumps(known))
    assert copy.uid(original) == known.uid(original) != Pseudonyms().uid(original)
    assert copy.patient("A") == known.patient("A") != Pseudonyms().patient("A")
    assert known.uid(original) != known.uid(f"{original}.1")
    assert str(known.key) not in repr(known)
    for number in range(100):
        found = pydicom.uid.UID(known.uid(f"1.2.{number}"))
        assert found.is_valid
        assert found.startswith("2.25.")
        assert len(found) <= 64


@pytest.mark.parametrize("name", ["", "^^"])
def test_patients_without_number_and_name_are_told_apart_by_their_studies(tmp_path, name):
    run, nobody = Pseudonyms(), {"PatientID": "", "PatientName": name}
    found = []
    for number, study in enumerate(("2.25.1", "2.25.2", "2.25.1")):
        folder = tmp_path / str(number)
        write_series(folder, size=(4, 4, 2), StudyInstanceUID=study, **nobody)
        found.append(run.source(read_source(folder)).patient.PatientID)
    assert found[0] == found[2] != found[1]


ODD = {
    "PatientName": "Ünal^Jürgen=山田^太郎",
    "PatientSex": "Male",
    "PatientBirthDate": "11.03.1952",
    "StudyDate": "yesterday",
    "StudyTime": "25:99",
    "StudyID": "a study id of many more than sixteen letters",
    "PatientID": "",
    "SeriesNumber": None,
    "AccessionNumber": None,
    "SpecificCharacterSet": "ISO_IR 192",
}


@pytest.mark.filterwarnings("ignore:Invalid value", "ignore:A value of type", "ignore:The value")
@pytest.mark.parametrize("kind", KINDS)
def test_odd_values_of_a_patient_are_copied_and_never_told(tmp_path, kind, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    slices = write_series(tmp_path / "ct", **ODD)
    recwarn.clear()
    caplog.clear()
    label = drawn(slices)
    path, image = write(tmp_path, kind, label)
    told = caplog.text + "".join(str(one.message) for one in recwarn)
    for secret in ("nal^J", "Male", "11.03.1952", "yesterday", "25:99", "many more"):
        assert secret not in told
    found = pydicom.dcmread(path)
    assert str(found.PatientName) == ODD["PatientName"]
    assert found.get_item("PatientBirthDate").value in (b"11.03.1952", "11.03.1952")
    assert found.SeriesNumber == 1000
    assert_holds(path, image, slices, label, kind)


@pytest.mark.parametrize("tag", ["FrameOfReferenceUID", "SOPInstanceUID", "StudyInstanceUID"])
def test_a_series_that_cannot_be_referred_to_is_refused(tmp_path, tag):
    write_series(tmp_path / "ct")
    for path in (tmp_path / "ct").iterdir():
        found = pydicom.dcmread(path)
        delattr(found, tag)
        found.save_as(path)
    with pytest.raises(FileError, match=rf"IM0000: has no {tag}"):
        derived.check_series(tmp_path / "ct", LABELS)


def test_what_is_no_series_is_refused(tmp_path):
    (tmp_path / "scan.nii").write_bytes(b"no DICOM")
    with pytest.raises(FileError, match="is no DICOM image"):
        derived.check_series(tmp_path / "scan.nii", LABELS)
    picture = write_series(tmp_path / "us", size=(24, 20, 1))[0]
    del picture.ImagePositionPatient, picture.ImageOrientationPatient
    save(picture, tmp_path / "us" / "IM0000")
    with pytest.raises(GeometryError, match="does not say where it lies in the body"):
        derived.check_series(tmp_path / "us", LABELS)


@pytest.mark.parametrize("name", ["x" * 65, "liver\\lesion", " liver", "li\nver"])
def test_names_that_dicom_cannot_hold_are_refused(tmp_path, name):
    write_series(tmp_path / "ct")
    with pytest.raises(LabelError, match="cannot be written as a name in DICOM"):
        derived.check_series(tmp_path / "ct", LabelSet(values={name: 1}))


def test_names_of_any_script_are_kept(tmp_path):
    slices = write_series(tmp_path / "ct")
    labels = LabelSet(values={"Leber (größer)": 3, "肝臓": 9})
    for kind in KINDS:
        path, image = write(tmp_path, kind, drawn(slices), labels)
        assert [name for name, _ in read_structures(path, image)] == list(labels.values)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(seed=st.integers(0, 10**6), share=st.floats(0.02, 0.98))
def test_any_shape_with_holes_and_parts_survives_contours(tmp_path_factory, seed, share):
    folder = tmp_path_factory.mktemp("holes")
    write_series(folder / "ct", OBLIQUE, size=(9, 7, 4))
    label = np.where(np.random.default_rng(seed).random((4, 7, 9)) < share, 3, 0).astype(np.uint8)
    path, image = write(folder, "rtstruct", label)
    found = dict(read_structures(path, image))
    mask = found["liver"] if "liver" in found else np.zeros((9, 7, 4), bool)
    np.testing.assert_array_equal(mask.T, label == 3)


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    slices = write_series(tmp_path / "ct")

    def full(written, part, path):
        part.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(derived, "_save", full)
    with pytest.raises(FileError, match="no space left"):
        write(tmp_path, "seg", drawn(slices))
    assert [path.name for path in tmp_path.iterdir()] == ["ct"]


def test_without_highdicom_the_extra_is_named(tmp_path, monkeypatch):
    slices = write_series(tmp_path / "ct")
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(FileError, match="needs highdicom, which is not installed"):
        write(tmp_path, "seg", drawn(slices))

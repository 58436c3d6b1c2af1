"""Made-up series, segmentations and contours of balls at known places, as other software has them.

Nothing here uses Lamina's geometry: places are those of the DICOM headers, in LPS mm.
"""

from copy import deepcopy

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

pydicom = pytest.importorskip("pydicom")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import (  # noqa: E402
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

RT_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
PATIENT = {"PatientName": "Nobody^Known", "PatientID": "ID-4711"}
OBLIQUE = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()[:2]
AXIAL = np.eye(3)[:2]
SPACING = (1.5, 2.0)
"""Between rows and between columns."""
STEP = 2.5


def save(dataset, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_series(folder, orientation=AXIAL, size=(24, 20, 12), origin=(-10, 20, 30), **tags):
    """Write slices of noise, ``size`` columns, rows and slices, in files without suffix."""
    rng, slices = np.random.default_rng(0), []
    common = {
        **PATIENT,
        "PatientBirthDate": "",
        "PatientSex": "O",
        "AccessionNumber": "",
        "StudyID": "1",
        "StudyDate": "20200101",
        "StudyTime": "120000",
        "ReferringPhysicianName": "",
        "SeriesNumber": 1,
        "Manufacturer": "nobody",
        "Modality": "CT",
        "SOPClassUID": CTImageStorage,
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        "PositionReferenceIndicator": "",
        "PhotometricInterpretation": "MONOCHROME2",
        "SamplesPerPixel": 1,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleSlope": 1,
        "RescaleIntercept": 0,
        "PixelSpacing": list(SPACING),
        "SliceThickness": STEP,
        "ImageOrientationPatient": [round(float(value), 8) for value in np.ravel(orientation)],
        "Columns": size[0],
        "Rows": size[1],
    } | tags
    for number in range(size[2]):
        header = Dataset()
        for tag, value in common.items():
            setattr(header, tag, value)
        header.SOPInstanceUID = generate_uid()
        header.InstanceNumber = number + 1
        position = np.asarray(origin) + number * STEP * np.cross(*orientation)
        header.ImagePositionPatient = [round(float(value), 6) for value in position]
        header.PixelData = rng.integers(-50, 50, size[1::-1]).astype("<i2").tobytes()
        save(header, folder / f"IM{(7 * number) % size[2]:04d}")
        slices.append(header)
    return slices


def write_enhanced(path, slices, order=None, sop_class=None):
    """Write slices as the frames of one enhanced object, in any order."""
    order = range(len(slices)) if order is None else order
    enhanced = deepcopy(slices[0])
    for tag in ("PixelSpacing", "ImageOrientationPatient", "ImagePositionPatient"):
        delattr(enhanced, tag)
    enhanced.SOPClassUID = sop_class or EnhancedCTImageStorage
    enhanced.SOPInstanceUID, enhanced.NumberOfFrames = generate_uid(), len(slices)
    measures, plane, shared = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = slices[0].PixelSpacing, STEP
    plane.ImageOrientationPatient = slices[0].ImageOrientationPatient
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    enhanced.SharedFunctionalGroupsSequence = [shared]
    enhanced.PerFrameFunctionalGroupsSequence = []
    for number in order:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = slices[number].ImagePositionPatient
        group.PlanePositionSequence = [position]
        enhanced.PerFrameFunctionalGroupsSequence.append(group)
    enhanced.PixelData = b"".join(slices[number].PixelData for number in order)
    save(enhanced, path)
    return enhanced


def places(header):
    """Return where the pixels of a slice lie: ``(rows, columns, 3)``."""
    across, down = np.reshape(header.ImageOrientationPatient, (2, 3)).astype(float)
    rows, columns = np.indices((header.Rows, header.Columns))[..., None]
    step_down, step_across = (float(value) for value in header.PixelSpacing)
    start = np.array(header.ImagePositionPatient, float)
    return start + columns * step_across * across + rows * step_down * down


def middle(slices):
    return (places(slices[0])[0, 0] + places(slices[-1])[-1, -1]) / 2


def ball(slices, centre, radius):
    """Return a ball as planes ``(slices, rows, columns)``."""
    return np.stack([np.linalg.norm(places(one) - centre, axis=-1) <= radius for one in slices])


def write_seg(path, slices, segments, kind="BINARY", omit=True):
    """Let highdicom write named planes ``(slices, rows, columns)``."""
    hd = pytest.importorskip("highdicom")
    from pydicom.sr.codedict import codes

    described = [
        hd.seg.SegmentDescription(
            segment_number=number,
            segment_label=name,
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Liver,
            algorithm_type=hd.seg.SegmentAlgorithmTypeValues.MANUAL,
        )
        for number, name in enumerate(segments, start=1)
    ]
    seg = hd.seg.Segmentation(
        source_images=slices,
        pixel_array=np.stack(list(segments.values()), axis=-1),
        segmentation_type=kind,
        segment_descriptions=described,
        series_instance_uid=generate_uid(),
        series_number=2,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="nobody",
        manufacturer_model_name="none",
        software_versions="0",
        device_serial_number="0",
        omit_empty_frames=omit,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    seg.save_as(path)
    return seg


def rings(slices, centre, radius, backwards=False):
    """Return the circles in which the slices cut a ball, as contours ``(N, 3)``."""
    across, down = np.reshape(slices[0].ImageOrientationPatient, (2, 3)).astype(float)
    normal, turn = np.cross(across, down), np.linspace(0, 2 * np.pi, 200, endpoint=False)
    if backwards:
        turn = turn[::-1]
    found = []
    for one in slices:
        height = (np.array(one.ImagePositionPatient, float) - centre) @ normal
        if abs(height) < radius:
            wide = np.sqrt(radius**2 - height**2)
            around = np.cos(turn)[:, None] * across + np.sin(turn)[:, None] * down
            found.append(centre + height * normal + wide * around)
    return found


def write_rtstruct(path, slices, rois, series=True):
    """Write named ROIs, each a list of contours ``(N, 3)`` or of pairs of type and contour."""
    first = slices[0]
    header = Dataset()
    for tag in ("PatientName", "PatientID", "StudyInstanceUID"):
        setattr(header, tag, first[tag].value)
    header.SOPClassUID, header.SOPInstanceUID = RT_STRUCTURE_SET, generate_uid()
    header.Modality, header.SeriesInstanceUID = "RTSTRUCT", generate_uid()
    frame, study, one = Dataset(), Dataset(), Dataset()
    frame.FrameOfReferenceUID = first.FrameOfReferenceUID
    if series:
        one.SeriesInstanceUID = first.SeriesInstanceUID
        study.RTReferencedSeriesSequence = [one]
        frame.RTReferencedStudySequence = [study]
    header.ReferencedFrameOfReferenceSequence = [frame]
    header.StructureSetROISequence, header.ROIContourSequence = [], []
    for number, (name, contours) in enumerate(rois.items(), start=1):
        roi, drawn = Dataset(), Dataset()
        roi.ROINumber, roi.ROIName = number, name
        roi.ReferencedFrameOfReferenceUID = first.FrameOfReferenceUID
        drawn.ReferencedROINumber = number
        drawn.ContourSequence = [_contour(contour) for contour in contours]
        header.StructureSetROISequence.append(roi)
        header.ROIContourSequence.append(drawn)
    save(header, path)
    return deepcopy(header)


def _contour(contour):
    kind, points = contour if isinstance(contour, tuple) else ("CLOSED_PLANAR", contour)
    item = Dataset()
    item.ContourGeometricType, item.NumberOfContourPoints = kind, len(points)
    item.ContourData = [f"{value:.6f}" for value in np.ravel(points)]
    return item

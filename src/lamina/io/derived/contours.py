"""DICOM structure sets (RTSTRUCT): outlines of structures, slice by slice, in patient mm.

Choices:

* Outlines follow the edges of the pixels, so that volumes are those of the segmentation. Each part
  of a structure in a slice is one contour; its holes are joined to it by a seam, as PS3.3 wants.
* Absent structures, and regions, are ROIs like others; absent ones have no contour.
* Implicit VR, as a contour's coordinates can exceed the 64 kB that explicit VR has for them.

Source: DICOM PS3.3, A.19, C.8.8.5 (structure set), C.8.8.6 (ROI contour), C.8.8.8 (observations).
"""

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.io.derived.outlines import outlines
from lamina.io.derived.segments import DESCRIPTION, SERIES_OFFSET, Producer, Segments
from lamina.io.derived.source import EMPTY_TAGS, Source, reference, references
from lamina.terminology import Code, Term

if TYPE_CHECKING:
    from pydicom.dataelem import RawDataElement
    from pydicom.dataset import Dataset, FileMetaDataset

_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY = "1.2.840.10008.3.1.2.3.1"
"""What the standard calls a study where it wants a class."""
_DECIMALS = 4
_DATA = "ContourData"
_IMPLICIT_LITTLE = (True, True)


def structure_set(segments: Segments, source: Source) -> "Dataset":
    """Return an RTSTRUCT of a segmentation, ready to be written.

    Args:
        segments: The structures, on the slices of the series.
        source: The series.
    """
    written = _empty(segments.producer, source)
    written.file_meta = _meta(written)
    rois, contours, observations = [], [], []
    for number, (name, mask) in enumerate(segments.masks(), start=1):
        term = segments.terms[name]
        rois.append(_roi(number, name, source))
        contours.append(_drawn(number, term, list(_contours(mask, source))))
        observations.append(_observation(number, term))
    written.StructureSetROISequence = rois
    written.ROIContourSequence = contours
    written.RTROIObservationsSequence = observations
    return written


def _empty(producer: Producer, source: Source) -> "Dataset":
    """Return an object that says where it belongs and what made it."""
    from pydicom import uid
    from pydicom.dataset import Dataset

    written, now = Dataset(), datetime.now()
    written.SpecificCharacterSet = "ISO_IR 192"
    for tag in EMPTY_TAGS:
        setattr(written, tag, "")
    written.SOPClassUID, written.SOPInstanceUID = _STRUCTURE_SET, uid.generate_uid(prefix=None)
    written.StudyInstanceUID = source.study
    written.SeriesInstanceUID = uid.generate_uid(prefix=None)
    written.Modality, written.SeriesNumber = "RTSTRUCT", source.series_number + SERIES_OFFSET
    written.SeriesDescription, written.OperatorsName = DESCRIPTION, ""
    written.Manufacturer = written.ManufacturerModelName = producer.name
    written.SoftwareVersions, written.DeviceSerialNumber = producer.version, producer.serial
    written.InstanceNumber, written.StructureSetLabel = 1, "SEGMENTATION"
    written.InstanceCreationDate = written.StructureSetDate = now.strftime("%Y%m%d")
    written.InstanceCreationTime = written.StructureSetTime = now.strftime("%H%M%S")
    written.FrameOfReferenceUID = source.frame_of_reference
    written.PositionReferenceIndicator = source.position_reference
    written.ReferencedFrameOfReferenceSequence = [_images(source)]
    written.ApprovalStatus = "UNAPPROVED"
    return written


def _meta(written: "Dataset") -> "FileMetaDataset":
    from pydicom import uid
    from pydicom.dataset import FileMetaDataset

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = uid.UID(_STRUCTURE_SET)
    meta.MediaStorageSOPInstanceUID = written.SOPInstanceUID
    return meta


def _images(source: Source) -> "Dataset":
    from pydicom.dataset import Dataset

    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = source.series
    series.ContourImageSequence = references(source.planes)
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY, source.study
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = source.frame_of_reference
    frame.RTReferencedStudySequence = [study]
    return frame


def _roi(number: int, name: str, source: Source) -> "Dataset":
    from pydicom.dataset import Dataset

    roi = Dataset()
    roi.ROINumber, roi.ROIName = number, name
    roi.ReferencedFrameOfReferenceUID = source.frame_of_reference
    roi.ROIGenerationAlgorithm = "AUTOMATIC"
    return roi


def _drawn(number: int, term: Term, contours: list["Dataset"]) -> "Dataset":
    from pydicom.dataset import Dataset

    drawn = Dataset()
    drawn.ReferencedROINumber = number
    drawn.ROIDisplayColor = list(term.colour or (0, 0, 0))
    if contours:
        drawn.ContourSequence = contours
    return drawn


def _contours(mask: NDArray[np.bool_], source: Source) -> Iterator["Dataset"]:
    """Yield the contours of a mask ``(i, j, k)``."""
    from pydicom.charset import default_encoding
    from pydicom.dataset import Dataset

    steps = np.stack([source.across, source.down])
    for k in np.flatnonzero(mask.any(axis=(0, 1))):
        plane = source.planes[k]
        for corners in outlines(mask[..., k]):
            points = plane.position + corners @ steps
            contour = Dataset()
            contour.ContourImageSequence = [reference(plane)]
            contour.ContourGeometricType = "CLOSED_PLANAR"
            contour.NumberOfContourPoints = len(points)
            contour[_DATA] = _coordinates(points)
            contour.set_original_encoding(*_IMPLICIT_LITTLE, default_encoding)
            yield contour


def _coordinates(points: NDArray[np.float64]) -> "RawDataElement":
    """Return points as they are stored.

    Else pydicom makes an object of each of a million numbers; it leaves alone what says that it is
    encoded already as the file will be.
    """
    from pydicom.dataelem import RawDataElement
    from pydicom.tag import Tag

    text = "\\".join([f"{value:.{_DECIMALS}f}" for value in points.ravel().tolist()])
    stored = (text + " " * (len(text) % 2)).encode("ascii")
    return RawDataElement(Tag(_DATA), "DS", len(stored), stored, 0, *_IMPLICIT_LITTLE)


def _observation(number: int, term: Term) -> "Dataset":
    from pydicom.dataset import Dataset

    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIIdentificationCodeSequence = [_coded(term.type)]
    observation.RTROIInterpretedType = observation.ROIInterpreter = ""
    return observation


def _coded(code: Code) -> "Dataset":
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodeMeaning = code.value, code.meaning
    item.CodingSchemeDesignator = code.scheme
    return item

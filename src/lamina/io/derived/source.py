"""The series that a DICOM object is derived from: who and what it shows, and its slices.

What is read about the patient and the study goes into the object and nowhere else: values of these
tags never are in a message.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.errors import FileError, GeometryError
from lamina.geometry import GRID_TOLERANCE_MM, LPS_TO_RAS, corners, spacing_of
from lamina.io.dicom import slices_of
from lamina.io.dicom_geometry import UNEVEN
from lamina.io.dicom_headers import Frame, guarded, parse, value_of
from lamina.io.dicom_quiet import unquoted
from lamina.volume import Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Vector = NDArray[np.float64]

EMPTY_TAGS = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""What every object must say of patient and study, though it may be nothing."""
PATIENT_TAGS = (*EMPTY_TAGS, "IssuerOfPatientID", "StudyDescription")
"""What says whose scan of which visit it is; copied as it is, so that archives file it there."""

_LOSSY_TAGS = (
    "LossyImageCompression",
    "LossyImageCompressionRatio",
    "LossyImageCompressionMethod",
)
_UID_TAGS = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_IMAGE_TAGS = ("SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "NumberOfFrames")
_SERIES_TAGS = ("SeriesNumber", "PositionReferenceIndicator")


@dataclass(frozen=True, kw_only=True)
class Plane:
    """A slice of the series; all slices have one size, spacing and orientation."""

    sop_class: str
    sop_instance: str
    frame: int | None
    """Its number from 1 in a multi-frame object."""
    position: Vector
    """Centre of its first pixel in LPS mm."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A series of slices, in the order in which they are stacked as a volume."""

    name: str
    """For messages."""
    planes: tuple[Plane, ...]
    size: tuple[int, int]
    """Columns and rows."""
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    """Between rows, then between columns, in mm."""
    distance: float
    """Between slices, along their normal, in mm."""
    patient: "Dataset"
    """:data:`PATIENT_TAGS`, as far as they are told."""
    lossy: "Dataset"
    """What says whether the images were compressed with loss."""
    study: str
    series: str
    frame_of_reference: str
    position_reference: str
    series_number: int

    @property
    def across(self) -> Vector:
        """Way from one column to the next, LPS mm."""
        return np.asarray(self.orientation[:3]) * self.spacing[1]

    @property
    def down(self) -> Vector:
        """Way from one row to the next, LPS mm."""
        return np.asarray(self.orientation[3:]) * self.spacing[0]


def read_source(scan: Path, series_uid: str = "") -> Source:
    """Read what an object derived from a series must tell of it.

    Args:
        scan: Folder or file of the series.
        series_uid: As for :func:`lamina.io.read_volume`.

    Raises:
        FileError: It is no series of DICOM images, is damaged, or lacks one of its UIDs.
        GeometryError: Its slices do not say where they lie, or are uneven.
    """
    frames = slices_of(scan, series_uid or None)
    if frames[0].is_picture:
        raise GeometryError(
            f"{scan}: does not say where it lies in the body.",
            remedy="Segmentations of pictures are written as PNG, with --format nifti.",
        )
    tags = (*_IMAGE_TAGS, *_UID_TAGS, *_SERIES_TAGS, *_LOSSY_TAGS, *PATIENT_TAGS)
    paths = dict.fromkeys(frame.path for frame in frames)
    headers = {path: parse(path, tags, pixels=False) for path in paths}
    planes = tuple(_plane(frame, headers[frame.path]) for frame in frames)
    first, path = headers[frames[0].path], frames[0].path
    orientation = np.reshape(frames[0].orientation, (2, 3))
    orientation = orientation / np.linalg.norm(orientation, axis=1, keepdims=True)
    study, series, frame_of_reference = (_uid(first, tag, path) for tag in _UID_TAGS)
    return Source(
        name=str(scan),
        planes=planes,
        size=frames[0].size,
        orientation=tuple(float(cosine) for cosine in orientation.ravel()),
        spacing=frames[0].spacing,
        distance=_distance(frames),
        patient=_copied(first, PATIENT_TAGS),
        lossy=_copied(first, _LOSSY_TAGS),
        study=study,
        series=series,
        frame_of_reference=frame_of_reference,
        position_reference=_text(first, "PositionReferenceIndicator"),
        series_number=_number(first, "SeriesNumber"),
    )


def place_on(source: Source, segmentation: Volume) -> float:
    """Check that a segmentation lies on the slices of a series.

    Returns:
        How far, in mm, the farthest slice lies beside the segmentation's even grid.

    Raises:
        GeometryError: It has other voxels than they.
    """
    shape = (*source.size, len(source.planes))
    if segmentation.unit != "mm" or segmentation.spatial_shape != shape:
        raise GeometryError(
            f"{segmentation.source}: has {segmentation.spatial_shape} voxels, "
            f"{source.name} {shape}.",
            remedy="Give the series that was segmented.",
        )
    ends = np.array([(0, 0), (0, shape[1] - 1), (shape[0] - 1, 0), (shape[0] - 1, shape[1] - 1)])
    steps = np.stack([source.across, source.down])
    there = np.stack([plane.position + ends @ steps for plane in source.planes], axis=1)
    # In the order of corners: the slices fastest, then rows, then columns.
    even = corners(segmentation.affine, (shape[0], shape[1], 2)).reshape(4, 2, 3)
    first = even[:, :1] @ LPS_TO_RAS[:3, :3].T
    step = LPS_TO_RAS[:3, :3] @ segmentation.affine[:3, 2]
    grid = first + np.arange(shape[2])[:, None] * step
    beside = float(np.linalg.norm(there - grid, axis=2).max())
    allowed = UNEVEN * min(spacing_of(segmentation.affine)[2], source.distance)
    if beside > allowed + GRID_TOLERANCE_MM:
        raise GeometryError(
            f"{segmentation.source}: lies up to {beside:.3g} mm beside the slices of "
            f"{source.name}.",
            remedy="Give the series that was segmented, and the segmentation on its own grid.",
        )
    return beside


def reference(plane: Plane) -> "Dataset":
    """Return an item that refers to where a slice is stored."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.ReferencedSOPClassUID = plane.sop_class
    item.ReferencedSOPInstanceUID = plane.sop_instance
    if plane.frame is not None:
        item.ReferencedFrameNumber = plane.frame
    return item


def references(planes: Sequence[Plane]) -> list["Dataset"]:
    """Return one item for each object that slices are stored in."""
    whole = {plane.sop_instance: replace(plane, frame=None) for plane in planes}
    return [reference(plane) for plane in whole.values()]


def _plane(frame: Frame, header: "Dataset") -> Plane:
    with guarded(frame.path):
        many = int(header.get("NumberOfFrames") or 1) > 1
    return Plane(
        sop_class=_uid(header, "SOPClassUID", frame.path),
        sop_instance=_uid(header, "SOPInstanceUID", frame.path),
        frame=frame.index + 1 if many else None,
        position=np.array(frame.position),
    )


def _uid(header: "Dataset", tag: str, path: Path) -> str:
    uid = _text(header, tag)
    if not uid:
        raise FileError(
            f"{path}: has no {tag}, which what is derived from it must refer to.",
            remedy="Export it again, or write NIfTI.",
        )
    return uid


def _text(header: "Dataset", tag: str) -> str:
    return str(value_of(header, tag) or "").strip()


def _number(header: "Dataset", tag: str) -> int:
    text = _text(header, tag)
    return int(text) if text.isdecimal() else 0


def _distance(frames: Sequence[Frame]) -> float:
    across, down = np.reshape(frames[0].orientation, (2, 3))
    way = np.subtract(frames[-1].position, frames[0].position)
    if len(frames) == 1:
        return frames[0].between or frames[0].thickness
    return abs(float(np.cross(across, down) @ way)) / (len(frames) - 1)


def _copied(header: "Dataset", tags: Sequence[str]) -> "Dataset":
    """Return some tags as they are, without those that are damaged."""
    from pydicom.dataset import Dataset

    copied = Dataset()
    with unquoted():
        for tag in tags:
            if (value := value_of(header, tag)) is not None:
                setattr(copied, tag, value)
    return copied

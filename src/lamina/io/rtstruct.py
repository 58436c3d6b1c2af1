"""Contours for radiotherapy (RTSTRUCT), filled on the grid of the image they were drawn on.

Choices:

* A voxel belongs to a structure if its centre lies inside an odd number of the contours of one
  slice; so a contour within another is a hole, and keyholes, whose seam is passed twice, are too.
* Of the voxels whose centre is exactly on a contour, those at the lower end of an axis are inside
  and those at the upper end are not; neighbours that share an edge then share no voxel.
* Contours of points and of open lines hold no area and are left out.
* Slices without a contour stay empty; nothing is interpolated.
* What lies beside the image within its slices is cut off.

Source: DICOM PS3.3, C.8.8.5 (structure set) and C.8.8.6 (ROI contour); coordinates are LPS mm.
"""

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.errors import FileError, GeometryError
from lamina.geometry import LPS_TO_RAS
from lamina.io.dicom_headers import RECOPY, guarded, parse, plain
from lamina.io.structures import STRUCTURE_FORMATS, Mask, StructureFormat, Structures
from lamina.volume import Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_log = logging.getLogger(__name__)

_STRUCTURE_SET = "1.2.840.10008.5.1.4.1.1.481.3"
_CLOSED = ("CLOSED_PLANAR", "CLOSEDPLANAR_XOR")
_TAGS = ("StructureSetROISequence", "ROIContourSequence")
_BESIDE = 0.25
"""Contours may lie beside a slice by this part of the distance of slices."""
_EDGES = 1024
"""Edges of a contour that are drawn at a time; each may cross the whole plane."""
_DECIMALS = 4
"""Voxel coordinates are rounded to so many, so that a centre on a contour is exactly on it."""

Points = NDArray[np.float64]


def read_rois(path: Path, image: Volume) -> Iterator[Mask]:
    """Yield each ROI's name and its voxels in an image; ROIs without area are left out.

    Raises:
        FileError: It is damaged.
        GeometryError: A contour does not lie in a slice of the image.
    """
    header = parse(path, _TAGS, pixels=False)
    if image.spatial_dims != 3:
        raise GeometryError(
            f"{image.source}: does not say where it lies in the body; {path} is drawn there.",
            remedy="Pair it with the series that it was drawn on.",
        )
    with guarded(path):
        rois = rois_of(header, path)
    for name, contours in rois:
        source = f"{path}: {name!r}"
        with guarded(path):
            points = [points_of(contour) for contour in contours if _is_closed(contour)]
        if left_out := len(contours) - len(points):
            _log.warning("%s: %d contours are no closed lines and left out.", source, left_out)
        if points:
            yield name, _filled(points, image, source)


def fill_plane(contours: Iterable[Points], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Tell which pixel centres lie inside an odd number of closed contours.

    Args:
        contours: Corners ``(N, 2)`` in pixel coordinates along both axes, without the first again.
        shape: Size of the plane.

    Returns:
        The plane; a pixel of which the contours' lower edges pass the centre is inside.
    """
    # Each edge turns around all pixels behind it along the first axis.
    turns = np.zeros((shape[0] + 1, shape[1]), np.bool_)
    for start, end in _edges(contours):
        upwards = (start[:, 1] <= end[:, 1])[:, None]
        low, high = np.where(upwards, start, end), np.where(upwards, end, start)
        first = np.clip(np.ceil(low[:, 1]), 0, shape[1]).astype(int)
        count = np.clip(np.ceil(high[:, 1]), 0, shape[1]).astype(int) - first
        edge = np.repeat(np.arange(len(start)), count)
        line = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count - first, count)
        share = (line - low[edge, 1]) / (high[edge, 1] - low[edge, 1])
        crossing = low[edge, 0] + share * (high[edge, 0] - low[edge, 0])
        behind = np.clip(np.ceil(np.round(crossing, _DECIMALS)), 0, shape[0]).astype(int)
        np.logical_xor.at(turns, (behind, line), True)
    return np.asarray(np.logical_xor.accumulate(turns[:-1], axis=0))


def _edges(contours: Iterable[Points]) -> Iterator[tuple[Points, Points]]:
    """Yield the edges of contours as starts and ends, a few at a time to spare memory."""
    for corners in contours:
        following = np.roll(corners, -1, axis=0)
        for first in range(0, len(corners), _EDGES):
            part = slice(first, first + _EDGES)
            yield corners[part], following[part]


def _describe(header: "Dataset", path: Path) -> Structures:
    frames = header.get("ReferencedFrameOfReferenceSequence") or []
    studies = [study for frame in frames for study in frame.get("RTReferencedStudySequence") or []]
    series = [one for study in studies for one in study.get("RTReferencedSeriesSequence") or []]
    own = [frame.get("FrameOfReferenceUID") for frame in frames]
    rois = header.get("StructureSetROISequence") or []
    drawn_in = [roi.get("ReferencedFrameOfReferenceUID") for roi in rois]
    return Structures(
        path=path,
        kind="rtstruct",
        names=tuple(name for name, drawn in rois_of(header, path) if any(map(_is_closed, drawn))),
        series=tuple(dict.fromkeys(str(one.SeriesInstanceUID) for one in series)),
        frames_of_reference=tuple(dict.fromkeys(str(uid) for uid in (*own, *drawn_in) if uid)),
    )


def rois_of(header: "Dataset", path: Path) -> list[tuple[str, list["Dataset"]]]:
    """Return the name and the contours of each ROI; damage is not caught."""
    names = {
        int(roi.ROINumber): plain(roi.get("ROIName") or "").strip()
        for roi in header.get("StructureSetROISequence") or []
    }
    found = []
    for item in header.get("ROIContourSequence") or []:
        number = int(item.ReferencedROINumber)
        if number not in names:
            raise FileError(f"{path}: does not describe its ROI {number}.", remedy=RECOPY)
        name = names[number] or f"roi {number}"
        found.append((name, list(item.get("ContourSequence") or [])))
    return found


def _is_closed(contour: "Dataset") -> bool:
    return contour.ContourGeometricType in _CLOSED


def points_of(contour: "Dataset") -> Points:
    """Return the points of a contour ``(N, 3)`` in LPS mm; whatever damage raises is not caught."""
    # As text: pydicom would first make an object of each of often a million numbers.
    stored = contour.get_item("ContourData").value
    numbers = stored.strip(b" \0").split(b"\\") if isinstance(stored, bytes) else stored
    points = np.array(numbers).astype(np.float64).reshape(-1, 3)
    if not np.isfinite(points).all():
        raise ValueError("a contour's coordinates are no numbers")
    return points


def _filled(contours: Iterable[Points], image: Volume, source: str) -> NDArray[np.bool_]:
    """Return the voxels inside contours, whose points are in LPS mm."""
    inverse = np.linalg.inv(image.affine) @ LPS_TO_RAS
    placed = [contour @ inverse[:3, :3].T + inverse[:3, 3] for contour in contours]
    axis = int(np.argmin(np.max([np.ptp(points, axis=0) for points in placed], axis=0)))
    mask = np.zeros(image.spatial_shape, np.bool_)
    planes = np.moveaxis(mask, axis, 0)
    slices = defaultdict[int, dict[bytes, Points]](dict)
    for points in placed:
        number = _slice_of(points[:, axis], len(planes), image, source)
        corners = np.round(np.delete(points, axis, axis=1), _DECIMALS)
        slices[number].setdefault(corners.tobytes(), corners)  # one drawn twice is not a hole
    for number, found in slices.items():
        window, moved = _window(list(found.values()), planes.shape[1:])
        part = planes[number][window]
        part[...] = fill_plane(moved, (part.shape[0], part.shape[1]))
    if gaps := max(slices) - min(slices) + 1 - len(slices):
        _log.warning("%s has no contour in %d slices between its ends.", source, gaps)
    return mask


def _window(
    contours: Sequence[Points], shape: Sequence[int]
) -> tuple[tuple[slice, slice], list[Points]]:
    """Return the part of a plane that contours can reach, and the contours as seen from there."""
    ends = np.concatenate(contours)
    first = np.clip(np.floor(ends.min(axis=0)), 0, shape).astype(int)
    stop = np.clip(np.ceil(ends.max(axis=0)) + 1, first, shape).astype(int)
    window = (slice(int(first[0]), int(stop[0])), slice(int(first[1]), int(stop[1])))
    return window, [points - first for points in contours]


def _slice_of(heights: NDArray[np.float64], count: int, image: Volume, source: str) -> int:
    number = int(np.rint(heights.mean()))
    beside = float(np.abs(heights - number).max())
    if beside > _BESIDE or not 0 <= number < count:
        fault = "beyond the slices" if beside <= _BESIDE else f"{beside:.2g} slices beside one"
        raise GeometryError(
            f"{source} has a contour {fault} of {image.source}.",
            remedy="Pair it with the series that it was drawn on.",
        )
    return number


STRUCTURE_FORMATS.register("rtstruct")(
    StructureFormat(sop_classes=(_STRUCTURE_SET,), describe=_describe, read=read_rois)
)

"""Where structures lie in the patient, and how large they are: in a segmentation and in a file.

A file is measured by what stands in it: the places of its frames and the corners of its contours.
The segmentation is measured by its affine. Neither measure uses the other's way from voxels to mm.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamina.errors import FileError
from lamina.geometry import LPS_TO_RAS
from lamina.io.dicom_headers import frames_of, guarded, parse
from lamina.io.dicom_pixels import stored_values
from lamina.io.rtstruct import points_of, rois_of
from lamina.volume import Volume

TOLERANCE_MM = 0.01
"""Coordinates are written with four or more decimals."""
_VOLUME_TOLERANCE = 1e-3

Vector = NDArray[np.float64]

_SEG_TAGS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "SegmentSequence",
    "SegmentationType",
)


@dataclass(frozen=True)
class Measure:
    """A structure's place and size in LPS mm."""

    volume: float
    """In mm³."""
    centre: Vector
    """Centre of mass."""
    low: Vector
    """Smallest coordinates of the voxels, whose thickness is not counted."""
    high: Vector

    @property
    def reach(self) -> Vector:
        """All coordinates that must agree."""
        return np.concatenate([self.centre, self.low, self.high])


_Piece = tuple[float, Vector, Vector, Vector]
"""Of a structure in one slice: area in mm², centre, smallest and largest coordinates."""


def measure_mask(mask: NDArray[np.bool_], segmentation: Volume) -> Measure | None:
    """Measure a structure of a segmentation, None where it has no voxel."""
    affine = LPS_TO_RAS @ segmentation.affine
    across, down, step = affine[:3, :3].T
    pieces = [
        _piece(mask[..., k].T, affine[:3, 3] + k * step, across, down)
        for k in np.flatnonzero(mask.any(axis=(0, 1)))
    ]
    normal = np.cross(across, down)
    return _sum(pieces, abs(float(normal @ step)) / float(np.linalg.norm(normal)))


def measure_seg(path: Path) -> dict[str, Measure | None]:
    """Measure each segment of a SEG file.

    Raises:
        FileError: It cannot be read.
    """
    header = parse(path, _SEG_TAGS, pixels=False)
    frames, values = frames_of(header, path), stored_values(path, coloured=False)[..., 0]
    with guarded(path):
        names = {int(one.SegmentNumber): str(one.SegmentLabel) for one in header.SegmentSequence}
        is_label_map = header.SegmentationType == "LABELMAP"
        if is_label_map:
            del names[0]
    found: dict[str, list[_Piece]] = {name: [] for name in names.values()}
    for frame, plane in zip(frames, values, strict=True):
        shown = set(np.unique(plane).tolist()) - {0}
        if not is_label_map:
            shown = {int(frame.marks["ReferencedSegmentNumber"])} if shown else set()
        across, down = np.reshape(frame.orientation, (2, 3))
        steps = across * frame.spacing[1], down * frame.spacing[0]
        for number in shown:
            mask = plane == (number if is_label_map else 1)
            found[names[number]].append(_piece(mask, np.array(frame.position), *steps))
    return {name: _sum(pieces, frames[0].between) for name, pieces in found.items()}


def measure_contours(path: Path, distance: float) -> dict[str, Measure | None]:
    """Measure each ROI of an RTSTRUCT file.

    Args:
        path: The file.
        distance: Between slices in mm, which the file does not tell.

    Raises:
        FileError: It cannot be read.
    """
    header = parse(path, ("StructureSetROISequence", "ROIContourSequence"), pixels=False)
    found: dict[str, Measure | None] = {}
    with guarded(path):
        for name, contours in rois_of(header, path):
            pieces = [_polygon(points_of(contour)) for contour in contours]
            found[name] = _sum(pieces, distance)
    return found


def compare(
    segmented: Mapping[str, Measure | None],
    written: Mapping[str, Measure | None],
    beside: float,
    path: Path,
) -> None:
    """Check that a file has the structures of a segmentation, each as large and where it was.

    Args:
        segmented: What the segmentation has.
        written: What the file has.
        beside: How far, in mm, slices of the series lie beside the segmentation's even grid.
        path: The file, for the message.

    Raises:
        FileError: A structure is missing, or another in place or size.
    """
    for name in [*segmented, *(name for name in written if name not in segmented)]:
        if fault := _fault(segmented.get(name), written.get(name), TOLERANCE_MM + beside):
            raise FileError(
                f"{path}: {name!r} is not as it was segmented when read back: {fault}. "
                "The file was not kept.",
                remedy="Write NIfTI instead, and please report this.",
            )
    if list(segmented) != list(written):
        raise FileError(f"{path}: holds other structures when read back. The file was not kept.")


def _fault(one: Measure | None, other: Measure | None, tolerance: float) -> str:
    if one is None or other is None:
        return "" if one is other else f"it is {'empty' if other is None else 'not empty'}"
    off = float(np.abs(one.reach - other.reach).max())
    if not off <= tolerance:
        return f"it lies up to {off:.3g} mm elsewhere"
    if not abs(one.volume - other.volume) <= _VOLUME_TOLERANCE * one.volume:
        return f"it has {other.volume / 1000:.6g} ml instead of {one.volume / 1000:.6g} ml"
    return ""


def _piece(mask: NDArray[np.bool_], start: Vector, across: Vector, down: Vector) -> _Piece:
    """Measure a plane ``(rows, columns)`` whose first pixel is at ``start``."""
    steps = np.stack([down, across])
    pixels = np.argwhere(mask)
    places = pixels @ steps
    half = np.abs(steps).sum(axis=0) / 2
    area = len(pixels) * float(np.linalg.norm(np.cross(across, down)))
    low, high = places.min(axis=0) - half, places.max(axis=0) + half
    return area, start + places.mean(axis=0), start + low, start + high


def _polygon(points: NDArray[np.float64]) -> _Piece:
    """Measure what a closed line encloses; a seam that is passed twice encloses nothing."""
    arms = points - points[0]
    following = np.roll(arms, -1, axis=0)
    turns = np.cross(arms, following) / 2
    total = turns.sum(axis=0)
    area = float(np.linalg.norm(total))
    shares = turns @ total / area**2 if area else np.zeros(len(points))
    centre = points[0] + shares @ (arms + following) / 3
    return area, centre, points.min(axis=0), points.max(axis=0)


def _sum(pieces: Sequence[_Piece], thickness: float) -> Measure | None:
    if not pieces:
        return None
    areas, centres, lows, highs = (np.array(part) for part in zip(*pieces, strict=True))
    return Measure(
        volume=float(areas.sum()) * thickness,
        centre=areas @ centres / areas.sum(),
        low=lows.min(axis=0),
        high=highs.max(axis=0),
    )

"""DICOM segmentations (SEG): named segments, laid onto the grid of the image they were drawn on.

Every frame is placed on its own by its position, so that frames may be missing, in any order, or
cover a part of the image. highdicom's reader, which makes an even volume of them first, is not
used: it refuses frames whose distances vary as little as those of many sound series do.

Choices:

* A voxel of a FRACTIONAL segment belongs to it from half of MaximumFractionalValue on.
* Segment 0 and the padding of a LABELMAP are its background.
* Frames may lie beside the voxels by a tenth of a voxel, as slices may beside an even grid.
* What is marked beyond the image is refused.

Source: DICOM PS3.3, C.8.20 (segmentation) and A.51 (its objects).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.errors import FileError, GeometryError
from lamina.geometry import LPS_TO_RAS
from lamina.io.dicom_geometry import UNEVEN
from lamina.io.dicom_headers import FRAME_TAGS, RECOPY, Frame, frames_of, guarded, parse, plain
from lamina.io.dicom_pixels import stored_values
from lamina.io.structures import STRUCTURE_FORMATS, Mask, StructureFormat, Structures
from lamina.volume import Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
_LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
_THRESHOLD = 0.5
_TAGS = (
    *FRAME_TAGS,
    "SegmentSequence",
    "SegmentationType",
    "MaximumFractionalValue",
    "PixelPaddingValue",
)


def read_segments(path: Path, image: Volume) -> Iterator[Mask]:
    """Yield each segment's label and its voxels in an image.

    Raises:
        FileError: It is damaged.
        GeometryError: Its frames do not say where they lie, or do not lie on the image's voxels.
    """
    header = parse(path, _TAGS, pixels=False)
    frames = frames_of(header, path)
    with guarded(path):
        names = _names(header)
        padding = int(header.get("PixelPaddingValue", 0))
        kind = str(header.get("SegmentationType") or "")
        highest = int(header.get("MaximumFractionalValue") or 1) if kind == "FRACTIONAL" else 1
    values = stored_values(path, coloured=False)[..., 0]
    _check_numbers(path, kind, frames, values, {*names, 0, padding})
    for number, name in names.items():
        mask = np.zeros(image.spatial_shape, np.bool_)
        for frame in frames:
            plane = values[frame.index]
            if kind == "LABELMAP":
                _place(plane == number, frame, image, mask)
            elif frame.marks["ReferencedSegmentNumber"] == str(number):
                _place(plane >= _THRESHOLD * highest, frame, image, mask)
        yield name, mask


def _describe(header: "Dataset", path: Path) -> Structures:
    return Structures(
        path=path,
        kind="seg",
        names=tuple(_names(header).values()),
        series=tuple(
            str(item.SeriesInstanceUID) for item in header.get("ReferencedSeriesSequence") or []
        ),
        frames_of_reference=tuple(filter(None, [str(header.get("FrameOfReferenceUID") or "")])),
    )


def _names(header: "Dataset") -> dict[int, str]:
    """Return what the segments are called; the background of a LABELMAP is none of them."""
    segments = header.get("SegmentSequence") or []
    found = {
        int(item.SegmentNumber): plain(item.get("SegmentLabel") or "").strip() for item in segments
    }
    padding = int(header.get("PixelPaddingValue", 0))
    if header.get("SegmentationType") == "LABELMAP":
        found = {number: name for number, name in found.items() if number not in (0, padding)}
    return {number: name or f"segment {number}" for number, name in found.items()}


def _check_numbers(
    path: Path, kind: str, frames: Sequence[Frame], values: NDArray[Any], known: set[int]
) -> None:
    if kind == "LABELMAP":
        used = {str(value) for value in np.unique(values)}
    else:
        used = {frame.marks.get("ReferencedSegmentNumber", "none") for frame in frames}
    if unknown := sorted(used - {str(number) for number in known}):
        raise FileError(
            f"{path}: its frames are of segments that it does not describe: {unknown[:5]}.",
            remedy=RECOPY,
        )


def _place(plane: NDArray[np.bool_], frame: Frame, image: Volume, mask: NDArray[np.bool_]) -> None:
    """Mark in ``mask`` the voxels at which a frame ``(rows, columns)`` is True."""
    if not plane.any():
        return
    start, steps = _way(frame, image)
    found = start + np.argwhere(plane) @ steps
    if (found < 0).any() or (found >= mask.shape).any():
        raise GeometryError(
            f"{frame.path}: frame {frame.index + 1} marks voxels beyond {image.source}.",
            remedy="Pair it with the series that it was drawn on.",
        )
    mask[tuple(found.T)] = True


def _way(frame: Frame, image: Volume) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the voxel of a frame's first pixel, and the steps ``(2, 3)`` per row and column."""
    if image.spatial_dims != 3 or not (frame.position and frame.orientation and frame.spacing):
        raise GeometryError(
            f"{frame.path}: frame {frame.index + 1} or {image.source} does not say where it lies.",
            remedy="Only segmentations of slices that lie in the body can be used.",
        )
    inverse = np.linalg.inv(image.affine) @ LPS_TO_RAS
    across, down = np.reshape(frame.orientation, (2, 3))
    rows, columns = frame.spacing
    start = inverse[:3, :3] @ frame.position + inverse[:3, 3]
    steps = np.stack([down * rows, across * columns]) @ inverse[:3, :3].T
    whole_start, whole_steps = np.rint(start), np.rint(steps)
    last = np.array([frame.size[1] - 1, frame.size[0] - 1])
    ends = np.array([(0, 0), (0, last[1]), (last[0], 0), last])
    beside = ends @ (steps - whole_steps) + start - whole_start
    lengths = np.abs(whole_steps).sum(axis=1)
    if (lengths != 1).any() or np.abs(beside).max() > UNEVEN:
        worst = float(np.linalg.norm(beside @ image.affine[:3, :3].T, axis=1).max())
        raise GeometryError(
            f"{frame.path}: frame {frame.index + 1} has other voxels than {image.source}: its "
            f"corners lie up to {worst:.3g} mm beside them.",
            remedy="Pair it with the series that it was drawn on, or resample it onto that.",
        )
    return whole_start.astype(np.int64), whole_steps.astype(np.int64)


STRUCTURE_FORMATS.register("seg")(
    StructureFormat(sop_classes=(_SEGMENTATION, _LABEL_MAP), describe=_describe, read=read_segments)
)

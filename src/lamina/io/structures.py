"""Structures that DICOM objects mark in an image: named masks on the image's grid.

Segmentations (SEG) and contours (RTSTRUCT) have a file each beside this one, which registers how
they are read. Unlike voxels of a label map, those of different structures may overlap.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.errors import FileError
from lamina.io.dicom_headers import guarded, parse
from lamina.registry import Registry
from lamina.volume import Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Mask = tuple[str, NDArray[np.bool_]]
"""A structure's name and its voxels, of the image's spatial shape."""

STRUCTURE_TAGS = (
    "SOPClassUID",
    "FrameOfReferenceUID",
    "ReferencedSeriesSequence",
    "SegmentSequence",
    "SegmentationType",
    "ReferencedFrameOfReferenceSequence",
    "StructureSetROISequence",
    "ROIContourSequence",
)
"""What must be read of a file to describe it."""

DICOM_SUFFIXES = (".dcm", ".ima")

_PREAMBLE = 128
_FIRST_TAGS = (b"\2\0", b"\x08\0", b"\0\2", b"\0\x08")
"""How files without the preamble start: with group 2 or 8, in either byte order."""


@dataclass(frozen=True, kw_only=True)
class Structures:
    """What a file marks, and in which images."""

    path: Path
    kind: str
    """Name of its format."""
    names: tuple[str, ...]
    """In the order of the file; a name may stand for several structures, which then are one."""
    series: tuple[str, ...]
    """SeriesInstanceUID of the images that it refers to; may be empty."""
    frames_of_reference: tuple[str, ...]
    """FrameOfReferenceUID that it is placed in."""


@dataclass(frozen=True, kw_only=True)
class StructureFormat:
    """How files of one kind are read."""

    sop_classes: tuple[str, ...]
    describe: Callable[["Dataset", Path], Structures]
    """Takes a header with ``STRUCTURE_TAGS``; whatever damage makes pydicom raise is caught."""
    read: Callable[[Path, Volume], Iterator[Mask]]
    """Yields one mask after the other on the grid of an image; names may come again."""


STRUCTURE_FORMATS: Registry[StructureFormat] = Registry("kind of DICOM structures", "lamina.io")


def describe(header: "Dataset", path: Path) -> Structures | None:
    """Return what a file marks, or None if it is an image or something else.

    Raises:
        FileError: Its header is damaged.
    """
    found = _format_of(header, path)
    if found is None:
        return None
    with guarded(path):
        return found.describe(header, path)


def has_structures(path: Path) -> bool:
    """Tell by its content whether a file is a DICOM object that marks structures.

    Raises:
        FileError: It is DICOM and damaged.
    """
    if not is_dicom(path):
        return False
    return _format_of(parse(path, ("SOPClassUID",), pixels=False), path) is not None


def read_structures(path: Path, image: Volume) -> Iterator[Mask]:
    """Yield the structures that a file marks, one after the other to spare memory.

    Args:
        path: A SEG or RTSTRUCT file.
        image: What it was drawn on; only its grid matters.

    Raises:
        FileError: It is damaged or of another kind.
        GeometryError: It does not lie on the image's grid.
    """
    found = _format_of(parse(path, ("SOPClassUID",), pixels=False), path)
    if found is None:
        raise FileError(f"{path}: marks no structures.", remedy="Give a DICOM SEG or RTSTRUCT.")
    yield from found.read(path, image)


def is_dicom(path: Path) -> bool:
    """Tell by its suffix or first bytes whether a file is DICOM; False if it cannot be read."""
    if path.suffix.lower() in DICOM_SUFFIXES:
        return True
    try:
        return has_preamble(start_of(path))
    except OSError:
        return False


def start_of(path: Path) -> bytes:
    """Return the first bytes of a file, by which it is known as DICOM; raises OSError."""
    with path.open("rb") as stream:
        return stream.read(_PREAMBLE + 4)


def begins_as_dicom(start: bytes) -> bool:
    """Tell by the start of a file whether it may be an image, be it without the preamble."""
    return has_preamble(start) or start.startswith(_FIRST_TAGS)


def has_preamble(start: bytes) -> bool:
    """Tell by the start of a file whether it is marked as DICOM."""
    return start[_PREAMBLE:] == b"DICM"


def _format_of(header: "Dataset", path: Path) -> StructureFormat | None:
    with guarded(path):
        sop_class = str(header.get("SOPClassUID") or "")
    formats = [STRUCTURE_FORMATS.get(name) for name in STRUCTURE_FORMATS]
    return next((one for one in formats if sop_class in one.sop_classes), None)

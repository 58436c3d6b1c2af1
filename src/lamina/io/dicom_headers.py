"""What DICOM headers say about slices: where they lie, how their values are scaled, what they are.

A slice is a whole file of a classic series or one frame of an enhanced multi-frame object; from
here on both are a :class:`Frame`. Only tags asked for by name are read, so nothing about the
patient can reach a message.

Source: DICOM PS3.3, C.7.6.2 (image plane), C.7.6.16 (multi-frame functional groups) and C.11.1
(modality LUT); PS3.10, section 7.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.errors import FileError, GeometryError
from lamina.io.dicom_quiet import unquoted

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

MARKS = (
    "TemporalPositionIndex",
    "TemporalPositionIdentifier",
    "DiffusionBValue",
    "EffectiveEchoTime",
    "EchoTime",
    "InversionTime",
    "FlipAngle",
    "NominalCardiacTriggerDelayTime",
    "TriggerTime",
    "ReferencedSegmentNumber",
    "FrameType",
    "ImageType",
    "AcquisitionNumber",
)
"""Tags that tell apart what was taken at one place; none of them is about the patient."""

FRAME_TAGS = (
    "Rows",
    "Columns",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SpacingBetweenSlices",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    *MARKS,
)

RECOPY = "Get the file again; it was damaged or not copied completely."

_CORRECT = "Correct its header, or export it again."
_RIGHT_ANGLE = 0.01
_BEYOND = 1e12
"""Numbers this large are damage; their squares would overflow."""
_FAULTS = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)
"""What pydicom raises for damage; it checks little of what it reads."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """One slice: where it is stored, where it lies (LPS mm) and how its values are scaled."""

    path: Path
    index: int
    """Its number within the file, from 0."""
    size: tuple[int, int]
    """Columns and rows."""
    position: tuple[float, ...]
    """Centre of the first pixel; like the next two, empty where the header does not tell it."""
    orientation: tuple[float, ...]
    """Direction of increasing columns, then of increasing rows."""
    spacing: tuple[float, ...]
    """Distance between rows, then between columns, as PixelSpacing has it."""
    between: float
    """SpacingBetweenSlices in mm, 0 where not told; often wrong."""
    thickness: float
    """SliceThickness in mm, 0 where not told; never the distance between slices."""
    slope: float
    intercept: float
    marks: dict[str, str]
    """Values of the tags :data:`MARKS` that it has."""

    @property
    def is_picture(self) -> bool:
        """Whether it does not even claim to lie in the body, such as an ultrasound picture."""
        return not self.position and not self.orientation


def parse(path: Path, tags: Iterable[str], *, pixels: bool) -> "Dataset":
    """Return the named tags of a file, with or without the preamble that marks it as DICOM.

    Raises:
        FileError: It is damaged or deflated, or pydicom is not installed.
    """
    try:
        from pydicom import dcmread, uid
    except ImportError as error:
        raise FileError(
            f"{path}: needs pydicom, which is not installed.", remedy="pip install 'lamina[dicom]'"
        ) from error
    with guarded(path):
        _check_inflated(path)
        header = dcmread(path, force=True, stop_before_pixels=not pixels, specific_tags=list(tags))
        if "TransferSyntaxUID" not in header.file_meta:
            implicit, little = header.original_encoding
            plainly = uid.ExplicitVRLittleEndian if little else uid.ExplicitVRBigEndian
            header.file_meta.TransferSyntaxUID = uid.ImplicitVRLittleEndian if implicit else plainly
    return header


def _check_inflated(path: Path) -> None:
    """Refuse what pydicom would unpack as a whole, however large it becomes."""
    from pydicom.filereader import _read_file_meta_info, read_preamble
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    with path.open("rb") as stream:
        read_preamble(stream, force=True)
        syntax = _read_file_meta_info(stream).get("TransferSyntaxUID")
    if syntax == DeflatedExplicitVRLittleEndian:
        raise FileError(
            f"{path}: is a deflated DICOM file, which is not unpacked here.",
            remedy="Save it uncompressed, such as by dcmconv +te.",
        )


@contextmanager
def guarded(path: Path) -> Iterator[None]:
    """Turn what damage makes pydicom raise, now or when a tag is looked at, into a FileError."""
    from pydicom.errors import BytesLengthException

    with unquoted():
        try:
            yield
        except OSError as error:
            raise FileError(f"{path}: cannot be read: {error.strerror or error}.") from error
        except (*_FAULTS, BytesLengthException) as error:
            cause = plain((str(error).splitlines() or ["?"])[-1].strip())
            raise FileError(f"{path}: its DICOM data are wrong: {cause}.", remedy=RECOPY) from error


def value_of(header: "Dataset", tag: str) -> Any:
    """Return what a tag holds, None where it is missing or damaged; no message says what it is."""
    with unquoted():
        try:
            return header[tag].value if tag in header else None
        except _FAULTS:
            return None


def count_of(header: "Dataset", path: Path) -> int:
    """Return how many frames an image claims to have.

    Raises:
        FileError: It claims none.
    """
    with guarded(path):
        count = int(header.get("NumberOfFrames") or 1)
        if count < 1:
            raise ValueError(f"it claims {count} frames")
    return count


def frames_of(header: "Dataset", path: Path) -> list[Frame]:
    """Return the slices of one file.

    Raises:
        FileError: The number of frames is not that of their descriptions.
        GeometryError: The frames do not say where they lie, or lie side by side in one picture.
    """
    count = count_of(header, path)
    with guarded(path):
        groups = _groups(header, count, path)
        return [_frame(path, index, holders) for index, holders in enumerate(groups)]


def plain(value: object) -> str:
    """Return what a header says as one short line of printable text."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        value = "/".join(map(str, value))
    return "".join(letter if letter.isprintable() else "?" for letter in str(value))[:100]


def listed(numbers: Iterable[float]) -> str:
    """Return numbers as text, such as ``"0.7 x 0.7"``."""
    return " x ".join(f"{number:.6g}" for number in numbers)


def _groups(header: "Dataset", count: int, path: Path) -> list[list["Dataset"]]:
    """Return where to look for the tags of each frame, its own functional groups first."""
    own = header.get("PerFrameFunctionalGroupsSequence") or []
    if own and len(own) != count:
        raise FileError(
            f"{path}: its header claims {count} frames and describes {len(own)}.",
            remedy=RECOPY,
        )
    if not own and count != 1:
        raise GeometryError(
            f"{path}: does not say where its {count} frames lie; they may be a film.",
            remedy="Only enhanced multi-frame objects, which place each frame, can be read.",
        )
    if "MOSAIC" in (header.get("ImageType") or []):
        raise GeometryError(
            f"{path}: its slices lie side by side in one picture, a mosaic.",
            remedy="Convert it with dcm2niix.",
        )
    shared = _macros((header.get("SharedFunctionalGroupsSequence") or [])[:1])
    return [[*_macros(own[index : index + 1]), *shared, header] for index in range(count)]


def _macros(items: Sequence["Dataset"]) -> list["Dataset"]:
    """Return the functional group macros of one frame, or of all."""
    return [
        element.value[0]
        for item in items
        for element in item
        if element.VR == "SQ" and element.value and not element.tag.is_private
    ]


def _frame(path: Path, index: int, holders: Sequence["Dataset"]) -> Frame:
    def number(tag: str, default: float) -> float:
        return (_numbers(holders, tag, 1, path) or (default,))[0]

    marks = {tag: plain(value) for tag in MARKS if (value := _find(holders, tag)) is not None}
    is_tabled = bool(_find(holders, "ModalityLUTSequence"))  # which stands in place of a scale
    return Frame(
        path=path,
        index=index,
        size=(int(_find(holders, "Columns")), int(_find(holders, "Rows"))),
        position=_numbers(holders, "ImagePositionPatient", 3, path),
        orientation=_orientation(_numbers(holders, "ImageOrientationPatient", 6, path), path),
        spacing=_spacing(_numbers(holders, "PixelSpacing", 2, path), path),
        between=max(number("SpacingBetweenSlices", 0), 0),
        thickness=max(number("SliceThickness", 0), 0),
        slope=1.0 if is_tabled else number("RescaleSlope", 1) or 1.0,  # 0 would wipe the image out
        intercept=0.0 if is_tabled else number("RescaleIntercept", 0),
        marks=marks,
    )


def _find(holders: Sequence["Dataset"], tag: str) -> Any:
    values = (holder.get(tag) for holder in holders)
    return next((value for value in values if value is not None and value != ""), None)


def _numbers(holders: Sequence["Dataset"], tag: str, count: int, path: Path) -> tuple[float, ...]:
    """Return what a tag holds, nothing where it is missing or empty."""
    try:
        value = _find(holders, tag)
        if value is None:
            return ()
        numbers = tuple(float(number) for number in ([value] if count == 1 else value))
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(abs(number) < _BEYOND for number in numbers):
        raise GeometryError(f"{path}: its {tag} is not {count} numbers.", remedy=_CORRECT)
    return numbers


def _orientation(cosines: tuple[float, ...], path: Path) -> tuple[float, ...]:
    if cosines:
        axes = np.reshape(cosines, (2, 3))
        if np.abs(axes @ axes.T - np.eye(2)).max() > _RIGHT_ANGLE:
            raise GeometryError(
                f"{path}: its ImageOrientationPatient {listed(cosines)} is not two directions at "
                "a right angle.",
                remedy=_CORRECT,
            )
    return cosines


def _spacing(spacing: tuple[float, ...], path: Path) -> tuple[float, ...]:
    if spacing and min(spacing) <= 0:
        raise GeometryError(
            f"{path}: its PixelSpacing {listed(spacing)} mm is not positive.", remedy=_CORRECT
        )
    return spacing

"""DICOM: a folder that holds a series, or single files; read only.

Headers, the grid of the slices and their values have a file each beside this one.

Choices:

* Slices are sorted by where they lie; names of files and instance numbers say nothing.
* Files of a folder that are no DICOM images are ignored; so is a damaged one if its slice is also
  there undamaged.
* One image that does not claim to lie in the body, such as an ultrasound picture, is a picture
  ``(C, i, j)``: in mm with a PixelSpacing, else in pixels. ImagerPixelSpacing measures at the
  detector and is not used.
* What measures more than one volume at a place (time, b-values, echoes, segments) is refused.

Source: DICOM PS3.3 and PS3.10.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lamina.errors import FileError, GeometryError
from lamina.io import FORMATS, Format
from lamina.io.dicom_geometry import affine_of, check_alike, differing, picture_affine, places
from lamina.io.dicom_headers import FRAME_TAGS, Frame, count_of, frames_of, guarded, parse, plain
from lamina.io.dicom_pixels import Decode, rescaled, stacked, stored_values
from lamina.volume import Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_log = logging.getLogger(__name__)

_SERIES_TAGS = ("SeriesInstanceUID", "SeriesDescription", "Modality")
_PREAMBLE = 128
_FIRST_TAGS = (b"\2\0", b"\x08\0", b"\0\2", b"\0\x08")
"""How files without the preamble start: with group 2 or 8, in either byte order."""
_MOST_LISTED = 8

_Headers = dict[Path, "Dataset"]


@dataclass(frozen=True, kw_only=True)
class Series:
    """The images of a folder that share a SeriesInstanceUID."""

    uid: str
    """Empty where the files do not tell it."""
    description: str
    modality: str
    num_slices: int
    """How many there are, all frames of all files."""
    files: tuple[Path, ...]

    def __str__(self) -> str:
        tail = f"...{self.uid[-12:]}" if self.uid else "without UID"
        return f"{tail} ({self.modality} {self.description!r}, {self.num_slices} slices)"


def read_series(
    folder_or_files: Path | str | Iterable[Path], series_uid: str | None = None
) -> Volume:
    """Read one series of images as a volume.

    Args:
        folder_or_files: A folder, read without its sub-folders; one file; or files.
        series_uid: Which series, by its SeriesInstanceUID or the end of it; needed where there are
            several.

    Returns:
        The volume ``(C, i, j, k)`` of columns, rows and slices, or a picture ``(C, i, j)``.

    Raises:
        FileError: There is no image, more than one series, or a file is damaged.
        GeometryError: Where the slices lie is not told, is uneven, or is the same for several.
    """
    source, frames, decode = _slices(folder_or_files, series_uid)
    if len(frames) == 1 and frames[0].is_picture:
        affine, unit = picture_affine(frames[0])
        return Volume(stacked(frames, decode)[..., 0], affine, source, unit)
    return Volume(stacked(frames, decode), affine_of(frames, source), source)


def slices_of(
    folder_or_files: Path | str | Iterable[Path], series_uid: str | None = None
) -> tuple[Frame, ...]:
    """Return the slices of a series in the order that :func:`read_series` stacks them.

    Args and Raises as there.
    """
    return tuple(_slices(folder_or_files, series_uid)[1])


def _slices(
    folder_or_files: Path | str | Iterable[Path], series_uid: str | None
) -> tuple[str, list[Frame], Decode]:
    """Return what to call a series, its slices in order, a repeated one once, and their reader."""
    source, found = _find(folder_or_files)
    headers = _chosen(found, series_uid, source)
    frames = [frame for path, header in headers.items() for frame in frames_of(header, path)]
    decode = cache(stored_values)
    if len(frames) == 1 and frames[0].is_picture:
        return source, frames, decode
    check_alike(frames, source)
    kept = [_only_one(place, decode, source) for place in places(frames)]
    if len(kept) < len(frames):
        _log.warning(
            "%s: %d of %d slices are repeated and left out.",
            source,
            len(frames) - len(kept),
            len(frames),
        )
    return source, kept, decode


def list_series(folder: Path | str) -> list[Series]:
    """Return the series of images in a folder, without its sub-folders, largest first.

    Raises:
        FileError: The folder, or a DICOM file in it, cannot be read, or none is an image.
    """
    return _described(_find(folder)[1])


def has_dicom_suffix(path: Path) -> bool:
    """Tell by its name whether a file is of this format; many of them have no suffix."""
    return path.suffix.lower() in FORMATS.get("dicom").suffixes


def holds_series(folder: Path) -> bool:
    """Tell whether a folder holds images, be it one file, that can be listed."""
    try:
        return bool(list_series(folder))
    except FileError:
        return False


def is_series(folder: Path) -> bool:
    """Tell whether a folder holds a scan whose slices are files of their own, be it but one.

    A single file is a scan by itself, without its folder, if its name says so.
    """
    try:
        found = list_series(folder)
    except FileError:
        return False
    return any(len(one.files) > 1 or not has_dicom_suffix(one.files[0]) for one in found)


_SUFFIXES = (".dcm", ".ima")
FORMATS.register("dicom")(
    Format(suffixes=_SUFFIXES, read=read_series, only_read=dict.fromkeys(_SUFFIXES, ".nii.gz"))
)


def _find(folder_or_files: Path | str | Iterable[Path]) -> tuple[str, dict[str, _Headers]]:
    """Return what to call the source, and the headers of its images by series."""
    if isinstance(folder_or_files, str | Path):
        given = Path(folder_or_files)
        source, is_folder = str(given), given.is_dir()
        files = _files_in(given) if is_folder else [given]
    else:
        files, is_folder = sorted(map(Path, folder_or_files)), False
        source = str(files[0].parent) if files else "series of no files"
    found: dict[str, _Headers] = {}
    for path in files:
        header = _header(path)
        if header is not None:
            with guarded(path):
                uid = str(header.get("SeriesInstanceUID") or "")
            found.setdefault(uid, {})[path] = header
        elif is_folder:
            _log.debug("%s: is no DICOM image and ignored.", path)
        else:
            raise FileError(f"{path}: is no DICOM image.", remedy="Give files that hold images.")
    if not found:
        raise FileError(
            f"{source}: is a folder without DICOM images.",
            remedy="Give the folder that holds the slices themselves.",
        )
    return source, found


def _files_in(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise FileError(f"{folder}: cannot be read: {error.strerror}.") from error


def _header(path: Path) -> "Dataset | None":
    """Return the header of an image without its pixels, None if the file is something else."""
    try:
        if not path.is_file():
            fault = "is a folder or device" if path.exists() else "does not exist"
            raise FileError(f"{path}: {fault}.", remedy="Give DICOM files, or their folder.")
        with path.open("rb") as stream:
            start = stream.read(_PREAMBLE + 4)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    has_preamble = start[_PREAMBLE:] == b"DICM"
    if not has_preamble and not start.startswith(_FIRST_TAGS):
        return None
    try:
        header = parse(path, (*FRAME_TAGS, *_SERIES_TAGS), pixels=False)
    except FileError:
        if has_preamble:
            raise
        return None
    with guarded(path):
        return header if header.get("Rows") and header.get("Columns") else None


def _described(found: dict[str, _Headers]) -> list[Series]:
    series = []
    for uid, headers in found.items():
        path, first = next(iter(headers.items()))
        with guarded(path):
            description = plain(first.get("SeriesDescription") or "")
            modality = plain(first.get("Modality") or "?")
        series.append(
            Series(
                uid=uid,
                description=description,
                modality=modality,
                num_slices=sum(count_of(header, path) for path, header in headers.items()),
                files=tuple(headers),
            )
        )
    return sorted(series, key=lambda one: (-one.num_slices, one.uid))


def _chosen(found: dict[str, _Headers], series_uid: str | None, source: str) -> _Headers:
    wanted = [uid for uid in found if series_uid is None or uid.endswith(series_uid)]
    if series_uid in found:
        wanted = [series_uid]
    if len(wanted) == 1:
        return found[wanted[0]]
    listed = _described(found)
    more = ", ..." if len(listed) > _MOST_LISTED else ""
    fault = "holds" if series_uid is None else f"series_uid {series_uid!r} names {len(wanted)} of"
    raise FileError(
        f"{source}: {fault} {len(listed)} series: "
        f"{', '.join(map(str, listed[:_MOST_LISTED]))}{more}.",
        remedy="Name one as series_uid, by the end of its UID, or move the others away.",
    )


def _only_one(place: list[Frame], decode: Decode, source: str) -> Frame:
    """Return the sound slice of a place, after checking that all sound ones there are equal."""
    if len(place) == 1:
        return place[0]
    sound: Frame | None = None
    for frame in place:
        try:
            values = rescaled(decode(frame.path)[frame.index], frame)
        except FileError as error:
            _log.warning("%s", error.message)
            fault = error
            continue
        if sound is None:
            sound, first = frame, values
        elif not np.array_equal(values, first):
            raise GeometryError(
                f"{source}: {len(place)} slices lie at one place and differ in "
                f"{differing(place) or 'what they show'}.",
                remedy="A volume has one slice at each place; split it first, such as by dcm2niix.",
            )
    if sound is None:
        raise fault
    return sound

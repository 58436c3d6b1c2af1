"""The series of DICOM images that a folder or some files hold.

Choices: files of a folder that are hidden or no DICOM images are ignored, as is a damaged image
without the preamble that marks it as DICOM. Segmentations, doses and parametric maps, which were
computed from images, are ignored beside images, and are what is read where there is nothing else.

Source: DICOM PS3.3 and PS3.10.
"""

import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.errors import FileError
from lamina.io import FORMATS
from lamina.io.dicom_geometry import SCAN_TAGS
from lamina.io.dicom_headers import FRAME_TAGS, count_of, guarded, parse, plain, value_of
from lamina.io.structures import begins_as_dicom, has_preamble, is_dicom, start_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_log = logging.getLogger(__name__)

_SERIES_TAGS = ("SeriesInstanceUID", "SeriesDescription", "Modality", "SOPClassUID")
_DERIVED = (
    "1.2.840.10008.5.1.4.1.1.30",  # parametric map
    "1.2.840.10008.5.1.4.1.1.66.4",  # segmentation
    "1.2.840.10008.5.1.4.1.1.66.7",  # label map segmentation
    "1.2.840.10008.5.1.4.1.1.481.2",  # radiotherapy dose
)
"""Objects with rows and columns that were computed from a scan."""
_PLACES = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)
"""One of these is in an image that claims to lie in the body."""
_MOST_LISTED = 8

Headers = dict[Path, "Dataset"]


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


def list_series(folder: Path | str) -> list[Series]:
    """Return the series of images in a folder, without its sub-folders, largest first.

    Raises:
        FileError: The folder, or a DICOM file in it, cannot be read, or none is an image.
    """
    return _described(find(folder)[1])


def has_dicom_suffix(path: Path) -> bool:
    """Tell by its name whether a file is of this format; many of them have no suffix."""
    return path.suffix.lower() in FORMATS.get("dicom").suffixes


def holds_series(folder: Path) -> bool:
    """Tell whether a folder holds images, be it one; what was computed from images is none."""
    return not all(map(_are_derived, _readable(folder).values()))


def scans_in(folder: Path) -> list[Path]:
    """Return the scans of a folder of DICOM files: the folder itself if it is one, else files.

    It is one if slices are files of their own, be it but one. A single file is a scan by itself if
    its name says so; so is each of several that do not claim to lie in the body, such as ultrasound
    pictures. Damaged files do not make a folder a scan, and are scans by their names, so that
    reading them will say what is wrong. What was computed from images, or is about them, is no
    scan unless there is nothing else.
    """
    readable = _readable(folder)
    found = _scans_of(readable).values()
    images = [path for headers in found for path in headers]
    if _is_series(images, found):
        return [folder]
    known = {path for headers in readable.values() for path in headers}
    others = (p for p in _files_in(folder) if has_dicom_suffix(p) and p not in known)
    return sorted((*images, *(path for path in others if not _is_about_images(path))))


def _is_series(images: list[Path], found: Iterable[Headers]) -> bool:
    if len(images) == 1:
        return not has_dicom_suffix(images[0])
    return any(sum(map(_is_placed, headers.values())) > 1 for headers in found)


def _is_about_images(path: Path) -> bool:
    """Tell whether a file is an object about images, such as contours, a report or a segmentation.

    What may be an image that is damaged is none.
    """
    with suppress(FileError):
        return is_dicom(path) and "Image Storage" not in (_kind_of(path) or "Image Storage")
    return False


def is_about_others(folder: Path) -> bool:
    """Tell whether a folder holds DICOM files, all of them about images that lie elsewhere."""
    with suppress(FileError):
        files = list(filter(is_dicom, _files_in(folder)))
        return bool(files) and all(map(_is_about_images, files))
    return False


def _kind_of(path: Path) -> str:
    """Return what the standard calls such objects, empty where the file does not tell its class."""
    header = parse(path, ("SOPClassUID",), pixels=False)
    with guarded(path):
        return header.SOPClassUID.name if header.get("SOPClassUID") else ""


def _is_placed(header: "Dataset") -> bool:
    """Tell whether an image claims to lie in the body."""
    return any(value_of(header, tag) for tag in _PLACES)


def _readable(folder: Path) -> dict[str, Headers]:
    """Return the headers of the images in a folder by series, as far as they can be read."""
    found: dict[str, Headers] = {}
    with suppress(FileError):
        for path in _files_in(folder):
            with suppress(FileError):
                _sort_in(found, path, _header(path))
    return found


def _sort_in(found: dict[str, Headers], path: Path, header: "Dataset | None") -> None:
    if header is not None:
        with guarded(path):
            uid = str(header.get("SeriesInstanceUID") or "")
        found.setdefault(uid, {})[path] = header


def find(folder_or_files: Path | str | Iterable[Path]) -> tuple[str, dict[str, Headers]]:
    """Return what to call the source, and the headers of its images by series.

    Raises:
        FileError: A file cannot be read, or none is an image.
    """
    if isinstance(folder_or_files, str | Path):
        given = Path(folder_or_files)
        source, is_folder = str(given), given.is_dir()
        files = _files_in(given) if is_folder else [given]
    else:
        files, is_folder = sorted(map(Path, folder_or_files)), False
        source = str(files[0].parent) if files else "series of no files"
    found: dict[str, Headers] = {}
    for path in files:
        header = _header(path)
        _sort_in(found, path, header)
        if header is None and not is_folder:
            raise FileError(f"{path}: is no DICOM image.", remedy="Give files that hold images.")
        if header is None:
            _log.debug("%s: is no DICOM image and ignored.", path)
    if not found:
        raise FileError(
            f"{source}: is a folder without DICOM images.",
            remedy="Give the folder that holds the slices themselves.",
        )
    return source, _scans_of(found)


def _scans_of(found: dict[str, Headers]) -> dict[str, Headers]:
    """Leave out what was computed from images, unless there is nothing else."""
    scans = {uid: headers for uid, headers in found.items() if not _are_derived(headers)}
    return scans or found


def _are_derived(headers: Headers) -> bool:
    path, first = next(iter(headers.items()))
    with guarded(path):
        return first.get("SOPClassUID") in _DERIVED


def _files_in(folder: Path) -> list[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise FileError(f"{folder}: cannot be read: {error.strerror}.") from error
    return [path for path in files if not path.name.startswith(".")]


def _header(path: Path) -> "Dataset | None":
    """Return the header of an image without its pixels, None if the file is something else."""
    try:
        if not path.is_file():
            fault = "is a folder or device" if path.exists() else "does not exist"
            raise FileError(f"{path}: {fault}.", remedy="Give DICOM files, or their folder.")
        start = start_of(path)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    if not begins_as_dicom(start):
        return None
    try:
        header = parse(path, (*FRAME_TAGS, *_SERIES_TAGS, *SCAN_TAGS), pixels=False)
    except FileError:
        if has_preamble(start):
            raise
        return None
    from pydicom.uid import UID

    with guarded(path):
        if header.get("Rows") and header.get("Columns"):
            return header
        kind = header.file_meta.get("MediaStorageSOPClassUID") or header.get("SOPClassUID") or ""
        if has_preamble(start) and (not kind or "Image Storage" in UID(kind).name):
            raise FileError(
                f"{path}: is DICOM, but its header ends before it says how large an image it is.",
                remedy="It is damaged or was not copied completely; get a fresh copy.",
            )
    return None


def _described(found: dict[str, Headers]) -> list[Series]:
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


def chosen(found: dict[str, Headers], series_uid: str | None, source: str) -> Headers:
    """Return the headers of one of the series that were found.

    Raises:
        FileError: ``series_uid`` names none or several, or is needed and missing.
    """
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
        remedy="Move the files of each into a folder of its own; or, in Python, name one as "
        "series_uid, by the end of its UID.",
    )

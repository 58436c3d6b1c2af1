"""Which of the uploaded files are the scan.

Choices: files of channels are taken in the order of their names, as nnU-Net numbers them, unless
the user said which is which. All DICOM files count as one folder, whatever folders they came in; of
several series the one with most slices is taken. The user is told so, and what was not used.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lamina.errors import FileError, some
from lamina.io import FORMATS, claim_of, is_scan
from lamina.io.dicom_series import holds_series, list_series
from lamina.serve.intake.uploads import base_name, is_clutter

MOST_VALUES = 2**31
"""Numbers that a scan may hold, all channels counted."""

_MOST_NAMED = 4
_DETACHED = {".mhd": ".mha", ".nhdr": ".nrrd"}


@dataclass(frozen=True, kw_only=True)
class Scan:
    """Where the image lies."""

    images: tuple[Path, ...]
    """One file, one file per channel, or the folder of a DICOM series."""
    series: str = ""
    """SeriesInstanceUID, where the folder holds several."""
    flags: tuple[str, ...] = ()
    """What the user should know about the choice."""

    @property
    def is_dicom(self) -> bool:
        """Whether it is a series."""
        return self.images[0].is_dir()


def find_scan(files: Mapping[Path, str], num_channels: int, *, ordered: bool = False) -> Scan:
    """Return the scan that an upload holds.

    Args:
        files: Where a file lies -> what the user called it; all in one folder.
        num_channels: How many the model takes.
        ordered: Whether files are in the order of the channels.

    Raises:
        FileError: There is none, there are several, its header is damaged, or it claims to be too
            large.
        GeometryError: Frames of a DICOM file do not say where they lie.
    """
    kept = {path: name for path, name in files.items() if not is_clutter(name)}
    dicom = FORMATS.get("dicom").suffixes
    scans = [path for path in kept if is_scan(path) and not path.name.endswith(dicom)]
    if not ordered:
        scans.sort(key=lambda path: kept[path])
    if not scans:
        return _series(kept)
    if holds_series(scans[0].parent):
        raise FileError(
            f"A DICOM series and {len(scans)} other scan{'s' * (len(scans) > 1)} were sent.",
            remedy="Send one of them.",
        )
    if len(scans) not in {1, num_channels}:
        raise FileError(
            f"{len(scans)} scans were sent; the model takes one of {num_channels} channels.",
            remedy="Send one file for each channel, or one that holds them all."
            if num_channels > 1
            else "Send them one by one.",
        )
    for path in scans:
        if path.suffix in _DETACHED:
            raise FileError(
                f"{kept[path]}: its voxels would be in a second file.",
                remedy=f"Save it as {_DETACHED[path.suffix]}, which holds both, and send that.",
            )
        if claim_of(path).values > MOST_VALUES:
            raise _too_large(kept[path])
    return Scan(images=tuple(scans), flags=_unused(kept, scans))


def _series(files: Mapping[Path, str]) -> Scan:
    folders = {path.parent for path in files}
    if not folders:
        raise FileError("No file was sent.", remedy="Send a scan, a zip or a folder of DICOM.")
    (folder,) = folders
    try:
        found = list_series(folder)
    except FileError as error:
        if "without DICOM images" not in error.message:
            raise
        known = sorted(s for each in FORMATS for s in FORMATS.get(each).suffixes)
        raise FileError(
            "No scan is among the files that were sent.", remedy=f"Known: {', '.join(known)}."
        ) from error
    first = found[0]
    if claim_of(folder, first.uid).values > MOST_VALUES:
        raise _too_large("The series")
    unused = _unused(files, [path for one in found for path in one.files])
    if len(found) == 1:
        return Scan(images=(folder,), series=first.uid, flags=unused)
    if found[1].num_slices == first.num_slices:
        raise FileError(
            f"{len(found)} series were sent, and the largest have {first.num_slices} slices each.",
            remedy="Send one of them.",
        )
    flag = (
        f"{len(found)} series were sent; the largest was segmented "
        f"({first.modality}, {first.num_slices} slices)."
    )
    return Scan(images=(folder,), series=first.uid, flags=(flag, *unused))


def _unused(files: Mapping[Path, str], used: Sequence[Path]) -> tuple[str, ...]:
    """Say which files were sent and are neither the scan nor of a series that is told of."""
    names = sorted(base_name(files[path]) for path in files.keys() - {*used})
    if not names:
        return ()
    return (f"No scan, and not used: {some(names, _MOST_NAMED)}.",)


def _too_large(name: str) -> FileError:
    return FileError(
        f"{name}: claims more than {MOST_VALUES:,} voxels.", remedy="Crop it, or send a part."
    )

"""Which files are of which format, by their names: what reads them, what they may be called.

Each format is one file of this folder that registers a :class:`Format`.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from lamina.errors import FileError, LaminaError
from lamina.registry import Registry
from lamina.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What the header of a scan says of it, before it is read."""

    values: int
    """Numbers in it, all channels counted."""
    num_channels: int
    """How many they are."""
    reading_bytes: int
    """Bytes of memory that reading it takes."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """How files of one kind are read and written."""

    suffixes: tuple[str, ...]
    """Endings of the file name, in lower case and with their dot."""
    read: Callable[[Path], Volume]
    """Reads a file; raises FileError, GeometryError or OSError, whatever is wrong with it."""
    claim: Callable[[Path], Claim] | None = None
    """Tells how large a file is, by its header; raises as ``read`` does."""
    write: Callable[[Volume, Path], None] | None = None
    """Writes a volume of native integers or floats; raises OSError if it cannot. ``None`` where all
    suffixes are only read."""
    others: Callable[[Path], tuple[Path, ...]] | None = None
    """Tells which other files hold a part of what a file is read as; raises as ``read`` does."""
    unit: Literal["mm", "px"] = "mm"
    """What its files measure space in; it takes no volume of the other unit."""
    read_labels: Callable[[Path], Volume] | None = None
    """Reads a label map where the format stores one in another way than an image; as ``read``."""
    only_read: Mapping[str, str] = field(default_factory=dict)
    """Suffixes that nothing is written to, as that would take two files, lose values or need more
    than a volume; each with the one to write instead."""


FORMATS: Registry[Format] = Registry("file format", "lamina.io")


def format_of(path: Path) -> tuple[str, Format]:
    """Return a file's suffix, in lower case, and the format that it stands for.

    Raises:
        FileError: The suffix is of no known format.
    """
    suffix = _suffix_of(path.name)
    if suffix is None:
        known = ", ".join(sorted(_suffixes()))
        raise FileError(
            f"{path}: the suffix is of no known scan format.", remedy=f"Known: {known}."
        )
    return suffix, _suffixes()[suffix]


def format_to_read(path: Path) -> Format:
    """Return the format that a file is read as; DICOM may have no suffix.

    Raises:
        FileError: It is of no known format.
    """
    return FORMATS.get("dicom") if _is_bare_dicom(path) else format_of(path)[1]


def files_of(path: str | Path) -> tuple[Path, ...]:
    """Return a scan's file and those that hold a part of it, such as the voxels of a ``.mhd``.

    A file that is not there, or damaged, is alone.
    """
    path = Path(path)
    others = _suffixes()[suffix].others if (suffix := _suffix_of(path.name)) else None
    with suppress(LaminaError, OSError):
        return (path, *(others(path) if others else ()))
    return (path,)


def check_writable(path: str | Path, unit: Literal["mm", "px"] | None = None) -> None:
    """Check, before there is anything to write, that a file may have this name.

    Args:
        path: The file; whether its folder can be written to is not looked at.
        unit: What the volume measures space in, if that is known.

    Raises:
        FileError: The suffix is of no known format, or of one that is only read, or that measures
            in another unit.
    """
    path = Path(path)
    suffix, file_format = format_of(path)
    if suffix in file_format.only_read:
        raise FileError(
            f"{path}: {suffix} files are read, not written.",
            remedy=f"Write {file_format.only_read[suffix]}.",
        )
    if unit not in (None, file_format.unit):
        raise FileError(
            f"{path}: this format measures in {file_format.unit}, the volume in {unit}.",
            remedy="Write pictures as .png or .tif, scans as .nii.gz.",
        )


def strip_suffix(path: str | Path) -> str:
    """Return the file's name without folder and suffix, which is its case id.

    A DICOM file may have no suffix.

    Raises:
        FileError: The suffix is of no known format.
    """
    path = Path(path)
    return path.name if _is_bare_dicom(path) else path.name[: -len(format_of(path)[0])]


def written_suffix(path: str | Path) -> str:
    """Return a file's suffix, or the one to write in place of it where that is only read.

    Raises:
        FileError: The suffix is of no known format.
    """
    path = Path(path)
    suffix, file_format = format_of(path)
    return file_format.only_read.get(suffix, path.name[-len(suffix) :])


def is_scan(path: str | Path) -> bool:
    """Tell by its name whether a file is a scan: of a known suffix, not hidden like ``._x.nii``."""
    name = Path(path).name
    return not name.startswith(".") and _suffix_of(name) is not None


def _suffixes() -> dict[str, Format]:
    formats = [FORMATS.get(name) for name in FORMATS]
    return {suffix: found for found in formats for suffix in found.suffixes}


def _suffix_of(name: str) -> str | None:
    matching = [suffix for suffix in _suffixes() if name.lower().endswith(suffix)]
    return max(matching, key=len, default=None)


def _is_bare_dicom(path: Path) -> bool:
    """Tell whether a file is DICOM though its name does not say so, as on media (PS3.10)."""
    from lamina.io.structures import begins_as_dicom, start_of

    with suppress(OSError):
        return _suffix_of(path.name) is None and path.is_file() and begins_as_dicom(start_of(path))
    return False

"""Scan files in, scan files out: one call each, whatever the format.

The suffix decides which format (:mod:`lamina.io.formats`) is used.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.errors import FileError, LabelError
from lamina.files import atomic_path
from lamina.geometry import is_sheared
from lamina.io.formats import (
    FORMATS,
    Claim,
    Format,
    check_writable,
    files_of,
    format_of,
    format_to_read,
    is_scan,
    strip_suffix,
    written_suffix,
)
from lamina.volume import Volume

__all__ = [
    "FORMATS",
    "LABEL_TOLERANCE",
    "Claim",
    "Format",
    "check_writable",
    "claim_of",
    "files_of",
    "is_scan",
    "read_labels",
    "read_stored_labels",
    "read_volume",
    "smallest_integer",
    "strip_suffix",
    "write_volume",
    "written_suffix",
]

LABEL_TOLERANCE = 1e-3
"""Label values this near to a whole number are rounded to it; maps stored as floats need that."""

_LARGEST_LABEL = 2**31

_log = logging.getLogger(__name__)


def read_volume(path: str | Path, series_uid: str = "") -> Volume:
    """Read a scan: the voxels as they are stored, with the scaling that the header asks for.

    Args:
        path: A file of any known format, upper or lower case; DICOM without a suffix too; or a
            folder of one DICOM series.
        series_uid: Which series of a DICOM folder, where it may hold several.

    Returns:
        The volume ``(C, *S)`` in native byte order; voxels that are NaN or infinite stay so.

    Raises:
        FileError: It is missing, of no known format, damaged, or a folder of several series.
        GeometryError: It does not say where its voxels are.
    """
    if series_uid:
        from lamina.io.dicom import read_series

        return _read(Path(path), lambda _: partial(read_series, series_uid=series_uid))
    return _read(Path(path), lambda file_format: file_format.read)


def claim_of(path: str | Path, series_uid: str = "") -> Claim:
    """Return how large a scan is, by its header, before it is read.

    Args:
        path: As for :func:`read_volume`.
        series_uid: As for :func:`read_volume`.

    Returns:
        Zeros, for unknown, of formats whose files are as large as what they hold, and of pictures.

    Raises:
        FileError: The header is damaged, or holds what cannot be read.
        GeometryError: Frames of a DICOM file do not say where they lie.
    """
    path = Path(path)
    if path.is_dir():
        from lamina.io.dicom import claim

        return claim(path, series_uid or None)
    told = format_to_read(path).claim
    return told(path) if told else Claim(values=0, num_channels=0, reading_bytes=0)


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write a volume whole or not at all, in the format that the suffix names.

    Values are kept exactly, and so is their type where formats have it: truth values become uint8,
    64-bit integers the smallest integers that hold them, half precision becomes single.

    Raises:
        FileError: The format is unknown or cannot hold this volume, or the file cannot be written.
    """
    path = Path(path)
    check_writable(path, volume.unit)
    file_format = format_of(path)[1]
    assert file_format.write is not None
    storable = replace(volume, array=_storable(volume.array))
    with atomic_path(path) as part:
        file_format.write(storable, part)


def read_labels(path: str | Path) -> Volume:
    """Read a label map as whole numbers.

    Returns:
        A volume of one channel and an integer type.

    Raises:
        LabelError: A value is no whole number, or there are several channels.
        FileError: As for :func:`read_volume`.
        GeometryError: As for :func:`read_volume`.
    """
    volume = read_stored_labels(path)
    if volume.num_channels != 1:
        raise LabelError(
            f"{path}: holds {volume.num_channels} channels; a label map has one.",
            remedy="Merge them into one map with one value per structure.",
        )
    if volume.array.dtype.kind in "iu":
        return volume
    return replace(volume, array=_whole_numbers(volume.array, path))


def read_stored_labels(path: str | Path) -> Volume:
    """Read a label map as it is stored, whatever is wrong with its values.

    Raises:
        FileError, GeometryError: As for :func:`read_volume`.
    """
    return _read(Path(path), lambda file_format: file_format.read_labels or file_format.read)


def smallest_integer(array: NDArray[Any]) -> np.dtype[Any]:
    """Return the smallest integer type that holds all values of an array of whole numbers."""
    low, high = int(array.min()), int(array.max())
    return np.min_scalar_type(min(low, -high - 1) if low < 0 else high)


def _read(path: Path, reader_of: Callable[[Format], Callable[[Path], Volume]]) -> Volume:
    try:
        if not path.is_file() and not path.is_dir():
            fault = "is a device" if path.exists() else "does not exist"
            raise FileError(f"{path}: {fault}.", remedy="Give a scan file or a DICOM folder.")
        found = FORMATS.get("dicom") if path.is_dir() else format_to_read(path)
        volume = reader_of(found)(path)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}.") from error
    except MemoryError as error:
        raise FileError(
            f"{path}: does not fit into the memory: {error}.", remedy="Use a machine with more."
        ) from error
    if is_sheared(volume.affine):
        _log.warning("%s: the axes are not at right angles (gantry tilt?).", path)
    return volume


def _storable(array: NDArray[Any]) -> NDArray[Any]:
    kind, size = array.dtype.kind, array.dtype.itemsize
    dtype = array.dtype.newbyteorder("=")
    if kind == "b":
        dtype = np.dtype(np.uint8)
    elif kind == "f":
        dtype = np.dtype(f"f{min(max(size, 4), 8)}")
    elif size == 8:
        dtype = smallest_integer(array)
    return array.astype(dtype, copy=False)


def _whole_numbers(array: NDArray[Any], path: str | Path) -> NDArray[Any]:
    rounded = np.rint(array)
    with np.errstate(invalid="ignore"):
        whole = (np.abs(array - rounded) <= LABEL_TOLERANCE) & (np.abs(rounded) < _LARGEST_LABEL)
    if not whole.all():
        examples = ", ".join(f"{value:g}" for value in np.unique(array[~whole])[:5])
        raise LabelError(
            f"{path}: {np.count_nonzero(~whole)} voxels are no whole numbers: {examples}.",
            remedy="Label maps are whole numbers; resample them with nearest neighbour.",
        )
    labels: NDArray[Any] = rounded.astype(smallest_integer(rounded))
    return labels

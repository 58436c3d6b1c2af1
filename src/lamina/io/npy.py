"""NumPy arrays (``x.npy``) whose geometry stands in a JSON file beside them (``x.json``).

An array says nothing about space, so the JSON file must::

    {"spacing": [0.8, 0.8, 2.5], "channels_first": true, "orientation": "RAS"}

``spacing`` is needed: the voxel size in mm along each spatial axis, in the order of the array's
axes; two numbers make an image, three a volume. ``channels_first`` is needed when the array has one
axis more than that: ``true`` when its channels are the first axis, ``false`` when the last.
``orientation`` names the direction that each spatial axis runs to; without it RAS axes are assumed,
with a warning for volumes. The first voxel lies at the origin. Other entries are left alone.

Such pairs are read, not written: a file and its neighbour cannot be replaced in one step.

Format: NumPy reference, "numpy.lib.format".
"""

import logging
import warnings
from pathlib import Path
from textwrap import shorten
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.errors import FileError, GeometryError
from lamina.files import read_json
from lamina.geometry import Affine
from lamina.io.formats import FORMATS, Format
from lamina.volume import Volume

_log = logging.getLogger(__name__)

_DIRECTIONS = {
    "R": (1, 0, 0),
    "L": (-1, 0, 0),
    "A": (0, 1, 0),
    "P": (0, -1, 0),
    "S": (0, 0, 1),
    "I": (0, 0, -1),
}
_BEYOND_MM = 1e6
"""No voxel is this large."""
_FAULTS = (ValueError, TypeError, EOFError, SyntaxError, ArithmeticError, RuntimeError, TokenError)
"""What NumPy raises over damage."""


def read(path: Path) -> Volume:
    """Read an array and its geometry; truth values become 0 and 1.

    Raises:
        FileError: It is no such array, damaged, or holds other things than real numbers.
        GeometryError: The JSON file is missing, or does not fit the array.
    """
    array = _array(path)
    (sidecar,) = _others(path)
    if not sidecar.is_file():
        raise GeometryError(
            f"{path}: does not say how large its voxels are, and {sidecar.name} is not there.",
            remedy='Write {"spacing": [...]} into that file, in mm along each axis in space.',
        )
    entries = read_json(sidecar)
    spacing = _spacing(entries, sidecar)
    affine = _affine(entries, spacing, sidecar)
    whole = _channels_first(array, len(spacing), entries, path)
    # Bytes with three of them last are how programs keep a picture in colour.
    in_colour = array.dtype == np.uint8 and array.shape[2:] == (3,) and len(spacing) == 2
    return Volume(whole, affine, str(path), in_colour=in_colour)


def _others(path: Path) -> tuple[Path, ...]:
    return (path.with_suffix(".json"),)


FORMATS.register("npy")(
    Format(suffixes=(".npy",), read=read, others=_others, only_read={".npy": ".nii.gz"})
)


def _array(path: Path) -> NDArray[Any]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Mapping takes no memory, and fails for a file that is shorter than its header claims.
            dtype = np.lib.format.open_memmap(path, mode="r").dtype
            if dtype.kind not in "biuf":
                raise ValueError(f"its voxels are of type {dtype}; real numbers are needed")
            array: NDArray[Any] = np.load(path, allow_pickle=False)
    except _FAULTS as error:
        raise FileError(
            f"{path}: cannot be read: {shorten(str(error), 200)}.",
            remedy="Save the array again with numpy.save.",
        ) from error
    native = np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")
    return array.astype(native, copy=False)


def _spacing(entries: Any, sidecar: Path) -> tuple[float, ...]:
    spacing = entries.get("spacing") if isinstance(entries, dict) else None
    sizes: list[Any] = spacing if isinstance(spacing, list) else []
    if len(sizes) not in (2, 3) or not all(map(_is_size, sizes)):
        raise GeometryError(
            f"{sidecar}: spacing is {shorten(repr(spacing), 100)}; 2 or 3 positive numbers of mm "
            "are needed.",
            remedy='Write {"spacing": [0.8, 0.8, 2.5]} for voxels of that size.',
        )
    return tuple(float(size) for size in sizes)


def _is_size(number: object) -> bool:
    return type(number) in (int, float) and 0 < number < _BEYOND_MM  # type: ignore[operator]


def _affine(entries: dict[str, Any], spacing: tuple[float, ...], sidecar: Path) -> Affine:
    dims = len(spacing)
    orientation = entries.get("orientation")
    if orientation is None:
        if dims == 3:
            _log.warning("%s: does not say how it lies in the body; RAS is assumed.", sidecar)
        orientation = "RAS"[:dims]
    if not (isinstance(orientation, str) and set(orientation) <= _DIRECTIONS.keys()):
        orientation = ""
    if len(orientation) != dims:
        raise GeometryError(
            f"{sidecar}: orientation {shorten(repr(entries['orientation']), 100)} is not {dims} "
            "letters out of R, L, A, P, S and I.",
            remedy='Name where each axis runs to: "LPS" for right to left, front to back, upwards.',
        )
    directions = np.array([_DIRECTIONS[letter] for letter in orientation], dtype=np.float64)
    normal = [np.cross(*directions)] if dims == 2 else []
    affine = np.eye(4)
    affine[:3, :3] = np.transpose([*directions, *normal]) * [*spacing, 1][:3]
    return affine


def _channels_first(
    array: NDArray[Any], dims: int, entries: dict[str, Any], path: Path
) -> NDArray[Any]:
    if array.ndim == dims:
        return array[None]
    first = entries.get("channels_first")
    if array.ndim != dims + 1:
        raise GeometryError(
            f"{path}: has {array.ndim} axes, and its JSON file a spacing for {dims}.",
            remedy="Give one number per axis in space; one axis of channels may be added.",
        )
    if not isinstance(first, bool):
        raise GeometryError(
            f"{path}: has {array.ndim} axes, and its JSON file a spacing for {dims}: where the "
            "channels are is not said.",
            remedy='Add "channels_first": true, or false if they are the last axis.',
        )
    return array if first else np.moveaxis(array, -1, 0)

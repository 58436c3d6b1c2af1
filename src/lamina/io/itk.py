"""NRRD and MetaImage, through SimpleITK.

SimpleITK 2.5 reads and writes; what it leaves unguarded is checked here. It takes memory for
whatever size a header claims, loads compressed voxels that are damaged, crashes on a MetaImage
header with too many axes, on an NRRD header with long fields and on a name that is not UTF-8, and
does not notice a disk that is full when it closes the file.

Formats: G. Kindlmann, "Definition of NRRD file format", teem.sourceforge.net/nrrd/format.html, and
"MetaIO", itk.org/Wiki/MetaIO/Documentation.
"""

import errno
import logging
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from lamina.errors import FileError, GeometryError
from lamina.geometry import Affine
from lamina.io import FORMATS, Format
from lamina.volume import Volume

sitk.ProcessObject.SetGlobalWarningDisplay(False)

_log = logging.getLogger(__name__)

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_COMPLEX = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
_HEADER_LIMIT = 1 << 20
_FIELD_LIMIT = 400
_CHUNK = 1 << 16
_NOISE = re.compile(r"^(\[nrrd\] \w+:|\w*:* ?ERROR: (\w+\(0x\w+\): )?(File cannot be \w+: .*)?)\s*")
_FAULTS = (RuntimeError, ValueError, zlib.error)
"""What damage raises: SimpleITK, the checks of this file, decompression."""


@dataclass(frozen=True, kw_only=True)
class _Header:
    """Where a header says that the voxels are, and whether it says how they lie in the body."""

    path: Path
    offset: int
    compressed: bool
    compressed_size: str | None = None
    """How many bytes the compressed voxels take, where the header has to tell it."""
    plain_text: bool
    """Voxels are written out as decimal numbers."""
    oriented: bool


def _read(image_io: str, read_header: Callable[[Path], _Header], path: Path) -> Volume:
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    try:
        header = read_header(path)
        reader.SetFileName(_utf8(path))
        reader.ReadImageInformation()
        if reader.GetPixelID() in _COMPLEX:
            raise ValueError("its voxels are complex numbers; real ones are needed")
        numbers = math.prod(reader.GetSize()) * reader.GetNumberOfComponents()
        _check_stored(header, numbers, sitk.Image([1, 1], reader.GetPixelID()))
        image = reader.Execute()
    except _FAULTS as error:
        raise FileError(
            f"{path}: cannot be read: {_cause(error)}.",
            remedy="Get the file again if it was damaged or not copied completely.",
        ) from error
    if not header.oriented and image.GetDimension() > 2:
        _log.warning("%s: does not say how it lies in the body; LPS axes are assumed.", path)
    return Volume(_array(image, path), _affine(image, path), str(path))


def _write(read_header: Callable[[Path], _Header], volume: Volume, path: Path) -> None:
    image = _image(volume)
    try:
        sitk.WriteImage(image, _utf8(path), useCompression=True)
        _check_stored(read_header(path), volume.array.size, image)
    except _FAULTS as error:
        raise OSError(errno.EIO, _cause(error)) from error


def _nrrd_header(path: Path) -> _Header:
    fields, offset = _fields(path, lambda line: not line.strip())
    if not next(iter(fields), "").startswith("nrrd"):
        raise ValueError("it does not start with an NRRD header")
    for name, value in fields.items():
        if len(name) + len(value) > _FIELD_LIMIT and not value.startswith("="):
            raise ValueError(f"its header field {name[:20]!r} is too long")
    encoding = fields.get("encoding", "").lower()
    elsewhere = fields.get("data file", fields.get("datafile"))
    return _Header(
        path=_beside(path, elsewhere) if elsewhere else path,
        offset=0 if elsewhere else offset,
        compressed=encoding in ("gzip", "gz"),
        plain_text=encoding in ("ascii", "text", "txt"),
        oriented=fields.get("space", "").lower().startswith(("left", "right", "l", "r")),
    )


def _meta_header(path: Path) -> _Header:
    fields, offset = _fields(path, lambda line: line.lstrip().startswith(b"ElementDataFile"))
    axes, sizes, voxels = (fields.get(key, "") for key in ("ndims", "dimsize", "elementdatafile"))
    if not voxels:
        raise ValueError("it does not start with a MetaImage header")
    if axes not in ("2", "3", "4") or len(sizes.split()) != int(axes):
        raise ValueError(f"its header claims {axes or 'no'} axes of sizes {sizes!r}")
    compressed = _is_true(fields.get("compresseddata", ""))
    return _Header(
        path=path if voxels.upper() == "LOCAL" else _beside(path, voxels),
        offset=offset if voxels.upper() == "LOCAL" else 0,
        compressed=compressed,
        compressed_size=fields.get("compresseddatasize", "no") if compressed else None,
        plain_text=not _is_true(fields.get("binarydata", "true")),
        oriented=not fields.keys().isdisjoint(("transformmatrix", "orientation", "rotation")),
    )


FORMATS.register("nrrd")(
    Format(
        suffixes=(".nrrd", ".nhdr"),
        read=partial(_read, "NrrdImageIO", _nrrd_header),
        write=partial(_write, _nrrd_header),
        only_read={".nhdr": ".nrrd"},
    )
)
FORMATS.register("metaimage")(
    Format(
        suffixes=(".mha", ".mhd"),
        read=partial(_read, "MetaImageIO", _meta_header),
        write=partial(_write, _meta_header),
        only_read={".mhd": ".mha"},
    )
)


def _fields(path: Path, is_last: Callable[[bytes], bool]) -> tuple[dict[str, str], int]:
    """Return the fields of a text header, names in lower case, and the byte where it ends."""
    fields: dict[str, str] = {}
    with path.open("rb") as stream:
        start, end = stream.read(_HEADER_LIMIT), 0
    for line in BytesIO(start):
        end += len(line)
        name, *value = re.split("[:=]", line.decode("latin-1"), maxsplit=1)
        if not name.startswith("#"):
            fields[name.strip().lower()] = "".join(value).strip()
        if is_last(line):
            break
    return fields, end


def _utf8(path: Path) -> str:
    try:
        return str(path).encode().decode()
    except UnicodeEncodeError as error:
        raise ValueError("its name is not valid text; rename it") from error


def _is_true(value: str) -> bool:
    return value[:1] in ("T", "t", "1")


def _beside(path: Path, name: str) -> Path:
    voxels = path.parent / name
    if Path(name).name != name or not voxels.is_file():
        raise ValueError(f"its voxels are in {name!r}, which is no file beside it")
    return voxels


def _check_stored(header: _Header, numbers: int, example: sitk.Image) -> None:
    """Check that a file holds as many numbers, of the type of ``example``, as its header claims."""
    claimed = numbers if header.plain_text else numbers * example.GetSizeOfPixelComponent()
    found = (
        _unpacked_size(header) if header.compressed else header.path.stat().st_size - header.offset
    )
    if found < claimed:
        raise ValueError(f"its header claims {claimed} bytes of voxels, {max(0, found)} are there")


def _unpacked_size(header: _Header) -> int:
    """Return the length in bytes of what is compressed, after comparing its checksum."""
    unpacker, size = zlib.decompressobj(wbits=47), 0  # 47: either a zlib or a gzip stream
    with header.path.open("rb") as stream:
        stream.seek(header.offset)
        while not unpacker.eof and (chunk := stream.read(_CHUNK)):
            size += len(unpacker.decompress(chunk))
        packed = stream.tell() - len(unpacker.unused_data) - header.offset
    if not unpacker.eof:
        raise ValueError(f"its compressed voxels end early, after {packed} bytes")
    if header.compressed_size not in (None, str(packed)):
        raise ValueError(
            f"its header claims {header.compressed_size} bytes of compressed voxels, {packed} are "
            "there"
        )
    return size


def _cause(error: Exception) -> str:
    """Return the line of SimpleITK's long messages that tells what is wrong."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if "SimpleITK" not in line] or lines
    nrrd = [line for line in lines if line.startswith("[nrrd]")]
    cause = _NOISE.sub("", nrrd[-1] if nrrd else lines[0])
    return shorten(re.sub("[^ -~]", "?", cause), 200).rstrip(".") or "its header makes no sense"


def _array(image: sitk.Image, path: Path) -> NDArray[Any]:
    """Return the voxels as ``(C, *S)``; a fourth axis that is not in space counts as channels."""
    array: NDArray[Any] = sitk.GetArrayFromImage(image).T
    vectors = image.GetNumberOfComponentsPerPixel() > 1
    if image.GetDimension() < 4:
        return array if vectors else array[None]
    if vectors or image.GetDimension() > 4:
        raise FileError(
            f"{path}: has {image.GetDimension()} axes and {image.GetNumberOfComponentsPerPixel()} "
            "components; at most three axes in space and one of channels can be read.",
            remedy="Split it into volumes first.",
        )
    return np.moveaxis(array, -1, 0)


def _affine(image: sitk.Image, path: Path) -> Affine:
    dims = image.GetDimension()
    axes = np.reshape(image.GetDirection(), (dims, dims)) * image.GetSpacing()
    if not (np.allclose(axes[3:, :3], 0) and np.allclose(axes[:3, 3:], 0)):
        raise GeometryError(f"{path}: its fourth axis runs through space; channels do not.")
    space, affine = min(dims, 3), np.eye(4)
    affine[:space, :space] = axes[:space, :space]
    affine[:space, 3] = image.GetOrigin()[:space]
    return _LPS_TO_RAS @ affine


def _image(volume: Volume) -> sitk.Image:
    dims, spacing, affine = volume.spatial_dims, volume.spacing, _LPS_TO_RAS @ volume.affine
    if dims == 2 and np.abs(affine[2, [0, 1, 3]]).max() > 1e-4 * min(spacing):
        raise OSError(errno.EINVAL, "a 2D image outside the plane z = 0; write .nii instead")
    vectors = volume.num_channels > 1
    image = sitk.GetImageFromArray(
        (volume.array if vectors else volume.array[0]).T, isVector=vectors
    )
    image.SetSpacing(spacing)
    image.SetDirection((affine[:dims, :dims] / spacing).ravel())
    image.SetOrigin(affine[:dims, 3])
    return image

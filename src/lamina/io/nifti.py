"""NIfTI-1 and NIfTI-2 in one file, plain or gzipped, either byte order.

nibabel knows the fields of the header; the voxels are read here, so that what the header claims is
checked against what is there before memory is taken, and a gzip stream is read to its end, where
its checksum is.

Fields and codes: R. W. Cox et al., "A (sort of) new image data format standard: NIfTI-1", 2004, and
the official headers nifti1.h and nifti2.h.
"""

import gzip
import logging
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header, data_type_codes
from nibabel.nifti2 import Nifti2Header
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from lamina.errors import FileError, GeometryError
from lamina.geometry import Affine, check_affine, corner_distance, spacing_of
from lamina.io.formats import FORMATS, Claim, Format
from lamina.volume import Volume

_log = logging.getLogger(__name__)

_GZIP_MAGIC = b"\x1f\x8b"
_DEFLATE_LIMIT = 1032
"""No deflate stream grows more than so many times when unpacked ("zlib Technical Details")."""
_COMPRESSION = 3
_CHUNK = 1 << 20
_VECTOR = 1007
"""Intent code of an image of vectors: their components lie along the fifth axis."""
_UNIT_MM = {1: 1000.0, 3: 0.001}
"""Unit codes that are not millimetres: metres and micrometres."""
_RECOPY = "Get the file again; it was damaged or not copied completely."


def read(path: Path) -> Volume:
    """Read a NIfTI file; a fourth axis, or the fifth of an image of vectors, becomes the channels.

    Raises:
        FileError: It is no NIfTI file, damaged, or holds complex or colour voxels.
        GeometryError: Its affine is unusable.
    """
    with _opened(path) as (stream, packed):
        return _read(stream, packed, path)


def claim(path: Path) -> Claim:
    """Return what the header of a file claims.

    Raises:
        FileError: As for :func:`read`, as far as the header tells.
    """
    with _opened(path) as (stream, _):
        header = _read_header(stream, path)
        dtype = _dtype(header, path)
        scaled = np.result_type(dtype, np.float32).itemsize if _is_scaled(header) else 0
        shape = _shape(header, path)
        needed = math.prod(shape) * (dtype.itemsize + scaled)
        return Claim(values=math.prod(shape), num_channels=shape[0], reading_bytes=needed)


def write(volume: Volume, path: Path) -> None:
    """Write NIfTI-1, or NIfTI-2 for axes beyond 32767; the same volume gives the same bytes."""
    header = _new_header(volume)
    packed = path.name.lower().endswith(".gz")
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", _COMPRESSION, raw, 0) if packed else nullcontext(raw) as stream,
    ):
        stream.write(header.binaryblock.ljust(header.single_vox_offset, b"\0"))
        for channel in volume.array:
            stream.write(channel.T.tobytes())


FORMATS.register("nifti")(Format(suffixes=(".nii", ".nii.gz"), read=read, claim=claim, write=write))


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BufferedIOBase, bool]]:
    """Yield what a file holds once unpacked, and whether it is packed."""
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        try:
            with gzip.GzipFile(fileobj=raw) if packed else nullcontext(raw) as stream:
                yield stream, packed
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FileError(f"{path}: its gzip data are wrong: {error}.", remedy=_RECOPY) from error
        except HeaderDataError as error:
            raise FileError(f"{path}: the header is wrong: {error}.") from error


def _read(stream: BufferedIOBase, packed: bool, path: Path) -> Volume:
    header = _read_header(stream, path)
    shape = _shape(header, path)
    affine = _affine(header, shape[1:], path)
    voxels = _scaled(_read_voxels(stream, header, shape, packed, path), header)
    while packed and stream.read(_CHUNK):
        pass  # the checksum stands at the end of the stream and is compared there
    ordered = voxels.reshape(shape[0], *reversed(shape[1:]))
    return Volume(ordered.transpose(0, *range(len(shape) - 1, 0, -1)), affine, str(path))


def _read_header(stream: BufferedIOBase, path: Path) -> Nifti1Header:
    block = stream.read(4)
    for order in ("little", "big"):
        for kind in (Nifti1Header, Nifti2Header):
            if block == kind.sizeof_hdr.to_bytes(4, order):
                block += stream.read(kind.sizeof_hdr - 4)
                if len(block) < kind.sizeof_hdr:
                    raise FileError(f"{path}: ends within its header.", remedy=_RECOPY)
                return _check_magic(kind(block, order, check=False), path)
    fault = "is empty" if not block else "is no NIfTI file: it does not start with such a header"
    raise FileError(f"{path}: {fault}.", remedy=_RECOPY)


def _check_magic(header: Nifti1Header, path: Path) -> Nifti1Header:
    magic = header["magic"].item()
    if magic.startswith(header.pair_magic[:3]):
        raise FileError(
            f"{path}: its voxels are in another file (.img).", remedy="Convert it to one .nii file."
        )
    if not magic.startswith(header.single_magic[:3]):
        raise FileError(f"{path}: is no NIfTI file: its magic bytes are {magic!r}.", remedy=_RECOPY)
    return header


def _shape(header: Nifti1Header, path: Path) -> tuple[int, ...]:
    """Return the channels and the spatial shape."""
    rank = int(header["dim"][0])
    sizes = tuple(int(size) for size in header["dim"][1 : max(0, rank) + 1])
    if not 2 <= rank <= 7 or min(sizes) < 1:
        raise FileError(
            f"{path}: the header claims {rank} axes of sizes {sizes}; two or more axes of at least "
            "one voxel are needed.",
            remedy=_RECOPY,
        )
    vectors = int(header["intent_code"]) == _VECTOR and rank == 5 and sizes[3] == 1
    if vectors:
        # An image of vectors has exactly the axes it needs, so that a single slice of one is 2D.
        return (sizes[4], *(sizes[:2] if sizes[2] == 1 else sizes[:3]))
    if max(sizes[4:], default=1) > 1:
        raise FileError(
            f"{path}: has {rank} axes of sizes {sizes}; at most three in space and one of channels "
            "can be read.",
            remedy="Split it into volumes first.",
        )
    return (sizes[3] if rank > 3 else 1, *sizes[:3])


def _dtype(header: Nifti1Header, path: Path) -> np.dtype[Any]:
    code = int(header["datatype"])
    if code not in data_type_codes.label:
        raise FileError(f"{path}: its voxels are of unknown type {code}.", remedy=_RECOPY)
    dtype: np.dtype[Any] = header.get_data_dtype()
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise FileError(
            f"{path}: its voxels are of type {data_type_codes.label[code]}; integers or real "
            "numbers of at most 64 bits are needed.",
            remedy="Convert it first, such as to the magnitude or the grey value.",
        )
    return dtype


def _read_voxels(
    stream: BufferedIOBase, header: Nifti1Header, shape: tuple[int, ...], packed: bool, path: Path
) -> NDArray[Any]:
    """Read the voxels in native byte order, flat, after checking that there can be so many."""
    dtype = _dtype(header, path)
    size = dtype.itemsize * math.prod(shape)
    offset = float(header["vox_offset"]) or float(header.single_vox_offset)
    limit = path.stat().st_size * (_DEFLATE_LIMIT if packed else 1)
    if not header.sizeof_hdr <= offset <= limit - size:
        raise FileError(
            f"{path}: the header claims {size} bytes of voxels from byte {offset:.0f} on; the file "
            f"holds {'at most ' if packed else ''}{limit} bytes in all.",
            remedy=_RECOPY,
        )
    stream.seek(int(offset))
    buffer = np.empty(size, dtype=np.uint8)
    if (found := _fill(stream, buffer.data)) < size:
        raise FileError(f"{path}: ends after {found} of {size} bytes of voxels.", remedy=_RECOPY)
    voxels = buffer.view(dtype)
    if dtype.isnative:
        return voxels
    return voxels.byteswap(inplace=True).view(dtype.newbyteorder("="))


def _fill(stream: BufferedIOBase, buffer: memoryview) -> int:
    filled = 0
    while found := stream.readinto(buffer[filled : filled + _CHUNK]):
        filled += found
    return filled


def _is_scaled(header: Nifti1Header) -> bool:
    return header.get_slope_inter() not in ((None, None), (1, 0))


def _scaled(voxels: NDArray[Any], header: Nifti1Header) -> NDArray[Any]:
    if not _is_scaled(header):
        return voxels
    slope, intercept = header.get_slope_inter()
    scaled = voxels.astype(np.result_type(voxels.dtype, np.float32))
    with np.errstate(over="ignore", invalid="ignore"):
        scaled *= slope
        scaled += intercept
    return scaled


def _affine(header: Nifti1Header, spatial_shape: tuple[int, ...], path: Path) -> Affine:
    """Return the sform, else the qform, else what voxel sizes give, in mm; doubts are logged."""
    _mend_pixdim(header)
    sform, qform = header.get_sform(coded=True)[0], _qform(header)
    affine: Affine | None = qform if sform is None else sform
    if affine is None:
        _log.warning("%s: has neither sform nor qform; its orientation is a guess.", path)
        affine = header.get_base_affine()
    elif sform is not None and qform is not None and _usable(qform):
        if not _usable(sform) and np.isfinite(sform).all():
            _log.warning("%s: the sform is singular; the qform is used.", path)
            affine = qform
        elif _usable(sform) and _differ(sform, qform, spatial_shape):
            _log.warning("%s: sform and qform differ; the sform is used.", path)
    unit = _UNIT_MM.get(int(header["xyzt_units"]) & 7, 1.0)
    if unit != 1:
        _log.warning("%s: positions are not in mm; they are multiplied by %g.", path, unit)
        affine[:3] *= unit
    return affine


def _mend_pixdim(header: Nifti1Header) -> None:
    """Put right what the standard lets stand: sign 0 means 1, and 2D images need no thickness."""
    pixdim = header["pixdim"]
    pixdim[0] = -1 if pixdim[0] < 0 else 1
    pixdim[1:4] = np.abs(pixdim[1:4])
    if header["dim"][0] == 2 and pixdim[3] == 0:
        pixdim[3] = 1


def _qform(header: Nifti1Header) -> Affine | None:
    """Return the qform, None without one, NaN for one that cannot be worked out."""
    try:
        with np.errstate(over="ignore", invalid="ignore"):
            qform: Affine | None = header.get_qform(coded=True)[0]
    except (HeaderDataError, ValueError):
        qform = np.full((4, 4), np.nan)
    return qform


def _usable(affine: Affine) -> bool:
    try:
        check_affine(affine, "")
    except GeometryError:
        return False
    return True


def _differ(sform: Affine, qform: Affine, spatial_shape: tuple[int, ...]) -> bool:
    distance = corner_distance(sform, spatial_shape, qform, spatial_shape)
    return distance > 0.01 * min(spacing_of(sform, len(spatial_shape)))


def _new_header(volume: Volume) -> Nifti1Header:
    kind = Nifti1Header if max(volume.array.shape) <= np.iinfo(np.int16).max else Nifti2Header
    header = kind()
    header.set_data_dtype(volume.array.dtype)
    header.set_data_offset(header.single_vox_offset)
    header.set_slope_inter(1, 0)
    header.set_xyzt_units("mm")
    if volume.spatial_dims == 2 and volume.num_channels > 1:
        header.set_data_shape((*volume.spatial_shape, 1, 1, volume.num_channels))
        header["intent_code"] = _VECTOR
    elif volume.num_channels > 1:
        header.set_data_shape((*volume.spatial_shape, volume.num_channels))
    else:
        header.set_data_shape(volume.spatial_shape)
    header.set_sform(volume.affine, code=1)
    header.set_qform(volume.affine, code=1)
    if _differ(volume.affine, header.get_qform(), volume.spatial_shape):
        header["qform_code"] = 0  # a qform has right angles only
        header["pixdim"][1:4] = spacing_of(volume.affine)
    return header

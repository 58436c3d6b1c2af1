"""NRRD and MetaImage, through SimpleITK.

SimpleITK 2.5 reads and writes; what it leaves unguarded is checked here. It takes memory for
whatever size a header claims, loads compressed voxels that are damaged, crashes on a MetaImage
header with too many axes, on an NRRD header with long fields and on a name that is not UTF-8, and
does not notice a disk that is full when it closes the file.
"""

import errno
import logging
import math
import re
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from lamina.errors import FileError, GeometryError
from lamina.geometry import LPS_TO_RAS, Affine
from lamina.io.formats import FORMATS, Claim, Format
from lamina.io.itk_headers import Header, check_stored, meta_header, nrrd_header, vetted
from lamina.volume import Volume

sitk.ProcessObject.SetGlobalWarningDisplay(False)

_log = logging.getLogger(__name__)

_COMPLEX = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
_NOISE = re.compile(r"^(\[nrrd\] \w+:|\w*:* ?ERROR: (\w+\(0x\w+\): )?(File cannot be \w+: .*)?)\s*")
_FAULTS = (RuntimeError, ValueError, zlib.error)
"""What damage raises: SimpleITK, the checks of this file, decompression."""


def _read(image_io: str, read_header: Callable[[Path], Header], path: Path) -> Volume:
    with _guarded(path):
        header = read_header(path)
        with vetted(path, header) as file:
            reader, numbers, number_size = _informed(image_io, file)
            check_stored(header, numbers, number_size)
            image = reader.Execute()
    if not header.oriented and image.GetDimension() > 2:
        _log.warning("%s: does not say how it lies in the body; LPS axes are assumed.", path)
    if header.unit_mm != 1:
        _log.warning(
            "%s: positions are not in mm; they are multiplied by %g.", path, header.unit_mm
        )
    array = _array(image, path)
    # ITK keeps no names of channels; three bytes a pixel are how it stores pictures in colour.
    in_colour = array.dtype == np.uint8 and len(array) == 3 and array.ndim == 3
    affine = np.diag([*[header.unit_mm] * 3, 1]) @ _affine(image, path)
    return Volume(array, affine, str(path), in_colour=in_colour)


def _claim(image_io: str, read_header: Callable[[Path], Header], path: Path) -> Claim:
    """Return what a header claims; the voxels are copied once."""
    with _guarded(path):
        with vetted(path, read_header(path)) as file:
            reader, numbers, number_size = _informed(image_io, file)
        channels = reader.GetNumberOfComponents() * math.prod(reader.GetSize()[3:])
        return Claim(values=numbers, num_channels=channels, reading_bytes=2 * numbers * number_size)


def _others(read_header: Callable[[Path], Header], path: Path) -> tuple[Path, ...]:
    with _guarded(path):
        voxels = read_header(path).path
    return () if voxels == path else (voxels,)


def _informed(image_io: str, path: Path) -> tuple[sitk.ImageFileReader, int, int]:
    """Return what reads a file, how many numbers are in it, and how many bytes each takes."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(_utf8(path))
    reader.ReadImageInformation()
    if reader.GetPixelID() in _COMPLEX:
        raise ValueError("its voxels are complex numbers; real ones are needed")
    numbers = math.prod(reader.GetSize()) * reader.GetNumberOfComponents()
    example = sitk.Image([1, 1], reader.GetPixelID())
    return reader, numbers, int(example.GetSizeOfPixelComponent())


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    try:
        yield
    except _FAULTS as error:
        raise FileError(
            f"{path}: cannot be read: {_cause(error)}.",
            remedy="Get the file again if it was damaged or not copied completely.",
        ) from error


def _write(read_header: Callable[[Path], Header], volume: Volume, path: Path) -> None:
    image = _image(volume)
    try:
        sitk.WriteImage(image, _utf8(path), useCompression=True)
        check_stored(read_header(path), volume.array.size, image.GetSizeOfPixelComponent())
    except _FAULTS as error:
        raise OSError(errno.EIO, _cause(error)) from error


FORMATS.register("nrrd")(
    Format(
        suffixes=(".nrrd", ".nhdr"),
        read=partial(_read, "NrrdImageIO", nrrd_header),
        claim=partial(_claim, "NrrdImageIO", nrrd_header),
        others=partial(_others, nrrd_header),
        write=partial(_write, nrrd_header),
        only_read={".nhdr": ".nrrd"},
    )
)
FORMATS.register("metaimage")(
    Format(
        suffixes=(".mha", ".mhd"),
        read=partial(_read, "MetaImageIO", meta_header),
        claim=partial(_claim, "MetaImageIO", meta_header),
        others=partial(_others, meta_header),
        write=partial(_write, meta_header),
        only_read={".mhd": ".mha"},
    )
)


def _utf8(path: Path) -> str:
    try:
        return str(path).encode().decode()
    except UnicodeEncodeError as error:
        raise ValueError("its name is not valid text; rename it") from error


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
    return LPS_TO_RAS @ affine


def _image(volume: Volume) -> sitk.Image:
    dims, spacing, affine = volume.spatial_dims, volume.spacing, LPS_TO_RAS @ volume.affine
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

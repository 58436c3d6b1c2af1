"""Pictures: PNG, JPEG, TIFF and BMP, through Pillow; what a file holds counts, not its suffix.

The array is ``(C, i, j)`` with i the column from the left and j the row from the top, on the affine
that SimpleITK gives pictures too, of orientation LP. The unit is the pixel: the resolution that a
picture may state is one for printing, and nothing here reads a size in mm.

Numbers are those that are stored: greys of 1, 2 and 4 bits count from 0, those of 16 stay 16. Grey
gives one channel; everything else is read as RGB, palettes and CMYK too. Transparency is left out.
The way up that a camera noted (EXIF, TIFF) is applied, so that a picture lies as it is seen and as
masks are drawn. In a label map a palette's index is the label, and red, green and blue that are the
same are one channel.
"""

import errno
import logging
import struct
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lamina.errors import FileError
from lamina.io import smallest_integer
from lamina.io.formats import FORMATS, Format
from lamina.volume import Volume

_log = logging.getLogger(__name__)

_TWO_VALUES = 0.95
"""Share of pixels near black or white from which a lossy mask is taken for one of 0 and 255."""

_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
_KINDS = {
    ".png": "PNG",
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
}
_WRITTEN: dict[str, dict[str, tuple[int, ...]]] = {
    "PNG": {"uint8": (1, 3), "uint16": (1,)},
    "TIFF": {"uint8": (1, 3), "uint16": (1,)},
    "BMP": {"uint8": (1, 3)},
}
"""The numbers of channels that a kind of picture holds exactly, of each type."""
_OPTIONS: dict[str, dict[str, Any]] = {"TIFF": {"compression": "tiff_adobe_deflate"}}
_STORED = ("1", "L", "I", "I;16", "I;16B", "I;16L", "F", "RGB")
"""Pillow's names of what needs no conversion."""
_STEPS = {"1": 255, "L;2": 85, "L;4": 17}
"""How far apart Pillow spreads greys of 1, 2 and 4 bits."""
_UNSIGNED: dict[str, Any] = {"I;16B": np.uint16, "I;32N": np.uint32}
"""What Pillow, or older versions of it, read into signed integers."""
_FAULTS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""What Pillow raises over damage."""
_RECOPY = "Get the file again; it was damaged or not copied completely."


def read(path: Path) -> Volume:
    """Read a picture as it is seen.

    Raises:
        FileError: It is no such picture, damaged, has several pages or colours of 16 bits, or is
            larger than Pillow thinks safe.
    """
    return _read(path, _as_seen)


def read_labels(path: Path) -> Volume:
    """Read a label map: the indices of a palette, else the numbers; errors as for :func:`read`."""
    return _read(path, _as_labels)


def is_picture(path: Path) -> bool:
    """Tell by its suffix whether a file is a picture."""
    return path.suffix.lower() in _KINDS


def used_colours(path: Path) -> dict[int, str]:
    """Return the indices that a picture's pixels have and their colours, such as ``#800000``.

    It is empty where the picture has no palette; errors as for :func:`read`.
    """
    with _opened(path) as picture:
        if picture.mode not in ("P", "PA"):
            return {}
        palette = bytes(picture.getpalette() or [])
        indices = np.unique(np.array(picture.getchannel(0))).tolist()
    return {i: f"#{palette[3 * i : 3 * i + 3].hex()}" for i in indices}


def write(volume: Volume, path: Path) -> None:
    """Write whole numbers of one or three channels; the same volume gives the same bytes."""
    kind = _KINDS[path.suffix.lower()]
    if volume.spatial_dims != 2 or not np.allclose(volume.affine, _AFFINE):
        fault = "a picture cannot tell where its pixels are"
        raise OSError(errno.EINVAL, fault)
    array = volume.array
    if array.dtype.kind in "iu" and array.dtype not in (np.uint8, np.uint16):
        array = array.astype(smallest_integer(array))
    if volume.num_channels not in _WRITTEN[kind].get(array.dtype.name, ()):
        fault = f"{kind} does not hold {volume.num_channels} channels of {array.dtype}"
        raise OSError(errno.EINVAL, f"{fault}; write .nii instead")
    pixels = np.ascontiguousarray(array[0].T if len(array) == 1 else array.T)
    content = BytesIO()
    Image.fromarray(pixels).save(content, kind, **_OPTIONS.get(kind, {}))
    path.write_bytes(content.getbuffer())


FORMATS.register("picture")(
    Format(
        suffixes=tuple(_KINDS),
        read=read,
        write=write,
        unit="px",
        read_labels=read_labels,
        only_read={".jpg": ".png", ".jpeg": ".png"},
    )
)


def _read(path: Path, pixels_of: Callable[[Image.Image, str, Path], NDArray[Any]]) -> Volume:
    with _opened(path) as picture:
        raw = _raw_mode(picture, path)
        ImageOps.exif_transpose(picture, in_place=True)
        pixels = pixels_of(picture, raw, path)
    return Volume(pixels.T, _AFFINE, str(path), "px", in_colour=pixels.shape[2] == 3)


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """Open a picture; whatever Pillow raises within over damage becomes a ``FileError``."""
    with path.open("rb") as stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of tags that are not used
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(stream, formats=sorted(set(_KINDS.values()))) as picture:
                yield picture
        except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
            raise FileError(
                f"{path}: claims more than {Image.MAX_IMAGE_PIXELS} pixels.",
                remedy="Cut it into smaller pictures, or make it smaller.",
            ) from error
        except UnidentifiedImageError as error:
            raise FileError(
                f"{path}: is no PNG, JPEG, TIFF or BMP picture that can be read.",
                remedy="Save it as PNG, or get it again if it was damaged.",
            ) from error
        except _FAULTS as error:
            cause = shorten(str(error), 200)
            raise FileError(f"{path}: cannot be read: {cause}.", remedy=_RECOPY) from error


def _raw_mode(picture: Image.Image, path: Path) -> str:
    """Return Pillow's name of how the pixels are stored, after checking that they can be read."""
    pages = getattr(picture, "n_frames", 1)
    if pages > 1 and picture.format != "MPO":  # a camera's JPEG with previews of itself
        raise FileError(
            f"{path}: holds {pages} pictures.",
            remedy="Save each as a file of its own, or a stack as NIfTI.",
        )
    tiles = getattr(picture, "tile", [])
    arguments = tiles[0][3] if tiles else picture.mode
    raw = arguments if isinstance(arguments, str) else str(arguments[0])
    if ";16" in raw and raw.startswith(("RGB", "LA", "CMYK")):
        raise FileError(
            f"{path}: has several channels of 16 bits, of which Pillow reads the upper 8.",
            remedy="Save it as grey of 16 bits or as colour of 8.",
        )
    return raw


def _as_seen(picture: Image.Image, raw: str, path: Path) -> NDArray[Any]:
    """Return pixels ``(j, i, C)``."""
    if "A" in picture.getbands():
        _log.debug("%s: its transparency is left out.", path)
    if picture.mode == "1":
        picture, raw = picture.convert("L"), "1"
    elif picture.mode not in _STORED:
        picture = picture.convert("L" if picture.mode == "LA" else "RGB")
    pixels = np.atleast_3d(np.array(picture))
    pixels = pixels.astype(_UNSIGNED.get(raw, pixels.dtype.newbyteorder("=")), copy=False)
    step = _STEPS.get(raw[:3], 1)
    return pixels // np.uint8(step) if step > 1 else pixels


def _as_labels(picture: Image.Image, raw: str, path: Path) -> NDArray[Any]:
    if picture.mode in ("P", "PA"):
        return np.atleast_3d(np.array(picture.getchannel(0)))
    pixels = _as_seen(picture, raw, path)
    if not (pixels == pixels[..., :1]).all():
        return pixels
    near_black_or_white = np.abs(pixels[..., 0].astype(int) - 127) > 64
    if picture.format in ("JPEG", "MPO") and near_black_or_white.mean() > _TWO_VALUES:
        _log.warning("%s: a mask stored as JPEG; values above 127 count as 255, others as 0.", path)
        return np.where(pixels[..., :1] > 127, 255, 0).astype(np.uint8)
    return pixels[..., :1]

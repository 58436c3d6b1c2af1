"""The values of DICOM images: decoded, in colour, rescaled.

pydicom reads what is stored plainly or run-length encoded; GDCM, inside SimpleITK, decodes JPEG,
JPEG-LS and JPEG 2000. It is given each frame in a file of its own that holds nothing else, because
it rescales in its own way and trips over headers that do not matter here.

Choices: values are those stored times RescaleSlope plus RescaleIntercept, slice by slice, integers
where that is exact, else float32; or what a modality LUT gives for them. Padding stays as it is,
and so does MONOCHROME1, where high values are dark; SimpleITK turns it round. Tables and windows
that only serve display are not applied. Palette and YBR colours become RGB.

Source: DICOM PS3.3, C.7.6.3 (image pixel) and C.11.1 (modality LUT), and PS3.5, section 8.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from lamina.io import Claim
from lamina.io.dicom_headers import FRAME_TAGS, Frame, count_of, frames_of, guarded, parse

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Decode = Callable[[Path], NDArray[Any]]
"""Returns all frames of a file, as :func:`stored_values` does."""

sitk.ProcessObject.SetGlobalWarningDisplay(False)

_IMAGE_TAGS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
)
_VALUES = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_TABLES = ("ExtendedOffsetTable", "ExtendedOffsetTableLengths")
_PALETTE = tuple(
    f"{colour}PaletteColorLookupTable{part}"
    for colour in ("Red", "Green", "Blue")
    for part in ("Descriptor", "Data")
)
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_FREE_CLAIM = 1 << 26
"""Bytes that compressed values may unpack to, however few they are."""
_MOST_PACKED = 1000
"""Beyond that they may grow so many times; scans grow 2 to 50 times."""


def stored_values(path: Path, *, coloured: bool = True) -> NDArray[Any]:
    """Return the values of a file before they are rescaled: ``(frames, rows, columns, channels)``.

    What a modality LUT gives for them needs no scale any more.

    Args:
        path: A DICOM file with pixels.
        coloured: Turn indices of a palette into its colours.

    Raises:
        FileError: They are fewer than the header claims, damaged, or of an unknown encoding.
    """
    tags = (*_IMAGE_TAGS, *_VALUES, *_TABLES, *_PALETTE, "ModalityLUTSequence", "NumberOfFrames")
    header = parse(path, tags, pixels=True)
    count = count_of(header, path)
    with guarded(path):
        from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
        from pydicom.pixels.utils import pixel_array
        from pydicom.uid import RLELossless

        syntax = header.file_meta.TransferSyntaxUID
        _check_claim(header, count, syntax.is_encapsulated)
        if syntax.is_encapsulated and syntax != RLELossless:
            values = np.stack(list(_decoded(header, count)))
        else:
            values = pixel_array(header)
        if coloured and header.PhotometricInterpretation == "PALETTE COLOR":
            values = apply_color_lut(values, header)
            values = np.asarray(values >> 8 * (values.itemsize - 1), np.uint8)
        if header.get("ModalityLUTSequence"):
            values = apply_modality_lut(values, header)
        return values.reshape(count, header.Rows, header.Columns, -1)


def claim(paths: Iterable[Path]) -> Claim:
    """Return what the headers of a series claim; its values are copied once, and rescaled.

    Raises:
        FileError: A header is damaged.
        GeometryError: Frames of one file do not say where they lie.
    """
    values = found = channels = 0
    whole = True
    for path in paths:
        header = parse(path, (*_IMAGE_TAGS, *FRAME_TAGS), pixels=False)
        frames = frames_of(header, path)
        whole = whole and _are_whole((frame.slope, frame.intercept) for frame in frames)
        with guarded(path):
            channels = _samples(header)
            decoded = len(frames) * int(header.Rows) * int(header.Columns) * channels
            values += decoded
            found += 2 * decoded * math.ceil(int(header.BitsAllocated) / 8)
    rescaled_size = 0 if whole else np.dtype(np.float32).itemsize
    needed = found + rescaled_size * values
    return Claim(values=values, num_channels=channels, reading_bytes=needed)


def stacked(frames: Sequence[Frame], decode: Decode) -> NDArray[Any]:
    """Return the values of slices of one size, rescaled, as ``(C, i, j, k)``.

    Raises:
        FileError: As for :func:`stored_values`.
    """
    stored = [decode(frame.path)[frame.index] for frame in frames]
    array = np.empty((len(frames), *stored[0].shape), _dtype(frames, stored))
    for target, frame, values in zip(array, frames, stored, strict=True):
        target[...] = rescaled(values, frame)
    return array.T


def rescaled(values: NDArray[Any], frame: Frame) -> NDArray[Any]:
    """Return stored values in the unit of the scan, as float64 unless nothing is to be done."""
    if (frame.slope, frame.intercept) == (1, 0):
        return values
    return values * frame.slope + frame.intercept


def _dtype(frames: Sequence[Frame], stored: Sequence[NDArray[Any]]) -> np.dtype[Any]:
    """Return the type that stored values have, or the smallest of integers that is exact."""
    kept = np.result_type(*stored)
    scales = {(frame.slope, frame.intercept) for frame in frames}
    if scales == {(1, 0)}:
        return kept
    if kept.kind not in "iu" or not _are_whole(scales):
        return np.dtype(np.float32)
    ends = [
        rescaled(np.array([values.min(), values.max()], np.float64), frame)
        for frame, values in zip(frames, stored, strict=True)
    ]
    types = [np.dtype(name) for name in ("int16", "int32", "int64")]
    low, high = np.min(ends), np.max(ends)
    return next(kind for kind in types if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max)


def _are_whole(scales: Iterable[tuple[float, float]]) -> bool:
    return all(float(number).is_integer() for pair in scales for number in pair)


def _samples(header: "Dataset") -> int:
    """Return how many channels an image has once its colours are decoded."""
    if header.get("PhotometricInterpretation") == "PALETTE COLOR":
        return 3
    return int(header.get("SamplesPerPixel") or 1)


def _check_claim(header: "Dataset", count: int, packed: bool) -> None:
    """Check that there are as many values as the header claims, or may be once unpacked."""
    found = next((len(header[tag].value or b"") for tag in _VALUES if tag in header), 0)
    claimed = _claimed_bytes(header, count)
    likely = max(_FREE_CLAIM, _MOST_PACKED * found) if packed else found
    if not found or claimed > likely:
        raise ValueError(f"it claims {claimed} bytes of values, {found} are there")


def _claimed_bytes(header: "Dataset", count: int) -> int:
    samples = int(header.get("SamplesPerPixel") or 1)
    halved = header.get("PhotometricInterpretation") == "YBR_FULL_422"
    numbers = count * int(header.Rows) * int(header.Columns) * (2 if halved else samples)
    return math.ceil(numbers * int(header.BitsAllocated) / 8)


def _decoded(header: "Dataset", count: int) -> Iterator[NDArray[Any]]:
    """Yield the values of each frame, as GDCM decodes them."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate, generate_frames
    from pydicom.filewriter import dcmwrite

    alone = Dataset()
    for tag in _IMAGE_TAGS:
        if tag in header:
            alone.add(header[tag])
    if header.SamplesPerPixel == 1:
        alone.PhotometricInterpretation = "MONOCHROME2"
    alone.SOPClassUID, alone.SOPInstanceUID = _SECONDARY_CAPTURE, "2.25.1"
    alone.file_meta = FileMetaDataset()
    alone.file_meta.TransferSyntaxUID = header.file_meta.TransferSyntaxUID

    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    offsets = tuple(header[tag].value for tag in _TABLES if tag in header)
    with TemporaryDirectory() as folder:
        reader.SetFileName(str(Path(folder, "frame.dcm")))
        for frame in generate_frames(
            header.PixelData, number_of_frames=count, extended_offsets=offsets or None
        ):
            alone.PixelData = encapsulate([frame], has_bot=False)
            alone["PixelData"].VR = "OB"
            dcmwrite(reader.GetFileName(), alone, enforce_file_format=True)
            try:
                values = sitk.GetArrayFromImage(reader.Execute())[0]
            except RuntimeError as error:
                syntax = alone.file_meta.TransferSyntaxUID.name
                raise ValueError(f"{syntax} cannot be decoded") from error
            if values.shape[:2] != (header.Rows, header.Columns):
                raise ValueError(f"a frame is of {values.shape[:2]} rows and columns")
            yield values

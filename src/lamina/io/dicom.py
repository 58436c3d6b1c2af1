"""DICOM: a folder that holds a series, or single files; read only.

Series, headers, the grid of the slices and their values have a file each beside this one.

Choices:

* Slices are sorted by where they lie; names of files and instance numbers say nothing.
* A damaged image is ignored if its slice is also there undamaged.
* One image that does not claim to lie in the body, such as an ultrasound picture, is a picture
  ``(C, i, j)``: in mm with a PixelSpacing, else in pixels. ImagerPixelSpacing measures at the
  detector and is not used.
* What measures more than one volume at a place (time, b-values, echoes, segments) is refused.

Source: DICOM PS3.3 and PS3.10.
"""

import logging
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from lamina.errors import FileError, GeometryError
from lamina.io import dicom_pixels
from lamina.io.dicom_geometry import (
    affine_of,
    check_alike,
    check_one_scan,
    differing,
    picture_affine,
    places,
)
from lamina.io.dicom_headers import Frame, frames_of
from lamina.io.dicom_pixels import Decode, rescaled, stacked, stored_values
from lamina.io.dicom_series import chosen, find
from lamina.io.formats import FORMATS, Claim, Format
from lamina.io.structures import DICOM_SUFFIXES
from lamina.volume import Volume

_log = logging.getLogger(__name__)


def read_series(
    folder_or_files: Path | str | Iterable[Path], series_uid: str | None = None
) -> Volume:
    """Read one series of images as a volume.

    Args:
        folder_or_files: A folder, read without its sub-folders; one file; or files.
        series_uid: Which series, by its SeriesInstanceUID or the end of it; needed where there are
            several.

    Returns:
        The volume ``(C, i, j, k)`` of columns, rows and slices, or a picture ``(C, i, j)``.

    Raises:
        FileError: There is no image, more than one series, or a file is damaged.
        GeometryError: Where the slices lie is not told, is uneven, or is the same for several.
    """
    source, frames, decode = _slices(folder_or_files, series_uid)
    if len(frames) == 1 and frames[0].is_picture:
        affine, unit = picture_affine(frames[0])
        array = stacked(frames, decode)[..., 0]
        return Volume(array, affine, source, unit, in_colour=len(array) == 3)
    return Volume(stacked(frames, decode), affine_of(frames, source), source)


def claim(folder_or_file: Path | str, series_uid: str | None = None) -> Claim:
    """Return what the headers of a series claim.

    Args and Raises as for :func:`read_series`.
    """
    source, found = find(folder_or_file)
    return dicom_pixels.claim(chosen(found, series_uid, source))


def slices_of(
    folder_or_files: Path | str | Iterable[Path], series_uid: str | None = None
) -> tuple[Frame, ...]:
    """Return the slices of a series in the order that :func:`read_series` stacks them.

    Args and Raises as there.
    """
    return tuple(_slices(folder_or_files, series_uid)[1])


def _slices(
    folder_or_files: Path | str | Iterable[Path], series_uid: str | None
) -> tuple[str, list[Frame], Decode]:
    """Return what to call a series, its slices in order, a repeated one once, and their reader."""
    source, found = find(folder_or_files)
    headers = chosen(found, series_uid, source)
    check_one_scan(headers.values(), source)
    frames = [frame for path, header in headers.items() for frame in frames_of(header, path)]
    decode = cache(stored_values)
    if len(frames) == 1 and frames[0].is_picture:
        return source, frames, decode
    check_alike(frames, source)
    kept = [_only_one(place, decode, source) for place in places(frames)]
    if len(kept) < len(frames):
        _log.warning(
            "%s: %d of %d slices are repeated and left out.",
            source,
            len(frames) - len(kept),
            len(frames),
        )
    return source, kept, decode


FORMATS.register("dicom")(
    Format(
        suffixes=DICOM_SUFFIXES,
        read=read_series,
        claim=claim,
        only_read=dict.fromkeys(DICOM_SUFFIXES, ".nii.gz"),
    )
)


def _only_one(place: list[Frame], decode: Decode, source: str) -> Frame:
    """Return the sound slice of a place, after checking that all sound ones there are equal."""
    if len(place) == 1:
        return place[0]
    sound: Frame | None = None
    for frame in place:
        try:
            values = rescaled(decode(frame.path)[frame.index], frame)
        except FileError as error:
            _log.warning("%s", error.message)
            fault = error
            continue
        if sound is None:
            sound, first = frame, values
        elif not np.array_equal(values, first):
            raise GeometryError(
                f"{source}: {len(place)} slices lie at one place and differ in "
                f"{differing(place) or 'what they show'}.",
                remedy="A volume has one slice at each place; split it first, such as by dcm2niix.",
            )
    if sound is None:
        raise fault
    return sound

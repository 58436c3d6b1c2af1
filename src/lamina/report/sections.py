"""Slices of a case as drawings for a page: the scan as pixels, contours and letters as lines.

Lines stay sharp at any size, and a reader can take them away.
"""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lamina.geometry import spacing_of
from lamina.report.overlay import longest_bar
from lamina.report.slices import (
    OPPOSITE,
    SOFT_TISSUE_HU,
    Plane,
    as_shown,
    image_on_screen,
    in_body,
    is_photograph,
    planes_of,
    telling_slice,
    to_screen,
    window_of,
)
from lamina.volume import Volume

_STRIP = 6
"""Slices of the first plane, evenly through the structures."""
_MARGIN_MM = 12.0
_MARGIN = 0.25
"""Part of the structures' extent that is shown around them; no less than so many mm."""
_SHARP = 640
"""Pixels of the longer side; smaller crops are interpolated up to it, larger ones down."""

Lines = tuple[tuple[str, str, str], ...]
"""Name of a structure, its colour, and its contours as an SVG path in mm."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """One slice, in mm (or pixels) from the upper left corner."""

    caption: str
    picture: str
    """As a data URI."""
    width: float
    height: float
    reference: Lines
    predicted: Lines
    letters: tuple[str, str, str, str]
    """Where left, right, up and down point to in the body; empty for a picture of no body."""
    bar: float
    """Length of the scale bar."""


@dataclass(frozen=True, eq=False)
class _Stack:
    """One plane's slices ``(rows, columns, slices)``, cropped around the structures."""

    plane: Plane
    image: NDArray[Any]
    """``(rows, columns, slices)``, and a last axis of colours where it is a photograph."""
    reference: NDArray[np.uint8]
    predicted: NDArray[np.uint8]
    affine: NDArray[np.float64]
    spacing: tuple[float, float]
    in_body: bool

    def where(self, index: int) -> str:
        """Return the plane's name and how far from the scanner's origin a slice lies."""
        if not self.in_body:
            return ""
        if self.image.shape[2] == 1:
            return self.plane.name
        rows, columns = (size / 2 for size in self.image.shape[:2])
        middle = self.affine @ (rows, columns, index, 1)
        axis = next(i for i, ends in enumerate(("LR", "PA", "IS")) if self.plane.through in ends)
        letter = ("LPI" if middle[axis] < 0 else "RAS")[axis]
        return f"{self.plane.name}, {letter} {abs(middle[axis]):.0f} mm"


def draw_sections(
    image: Volume,
    reference: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    colours: Mapping[int, tuple[str, str]],
    ct: bool | None = None,
) -> tuple[list[Section], list[Section]]:
    """Draw a case: the slice of each plane that tells most, and slices all through the structures.

    Args:
        image: ``(C, *S)``; the first channel is shown, or the colours of a photograph.
        reference: Class indices ``(1, *S)``, what is to be ignored as background.
        predicted: Likewise.
        colours: Class index -> name and colour.
        ct: Whether the image is a CT; as for :func:`~lamina.report.slices.window_of`.

    Returns:
        A section per plane, and the strip; a picture has no strip.
    """
    window = window_of(image, ct)
    stacks = [_stack(image, reference, predicted, plane) for plane in planes_of(image)]
    telling = [
        _section(s, telling_slice([s.predicted, s.reference]), window, colours) for s in stacks
    ]
    if image.spatial_dims == 2:
        return telling, []
    return telling, [_section(stacks[0], i, window, colours) for i in _through(stacks[0])]


def window_told(image: Volume, ct: bool | None = None) -> str:
    """Return the grey levels that are black and white, for a caption; empty of a photograph."""
    if is_photograph(image):
        return ""
    low, high = window = window_of(image, ct)
    if window == SOFT_TISSUE_HU:
        return f"{low:.0f} to {high:.0f} HU, soft tissue"
    return f"{low:.0f} to {high:.0f}" if high - low > 10 else f"{low:.3g} to {high:.3g}"


def _stack(
    image: Volume,
    reference: NDArray[np.uint8],
    predicted: NDArray[np.uint8],
    plane: Plane,
) -> _Stack:
    turned, affine = image_on_screen(image, plane)
    maps = [to_screen(each, image.affine, plane)[0] for each in (reference, predicted)]
    row_mm, column_mm = spacing_of(affine, 2)
    present = (maps[0] > 0) | (maps[1] > 0)
    rows = _extent(np.asarray(present.any(axis=(1, 2))), row_mm)
    columns = _extent(np.asarray(present.any(axis=(0, 2))), column_mm)
    moved = affine.copy()
    moved[:3, 3] += affine[:3, 0] * rows.start + affine[:3, 1] * columns.start
    return _Stack(
        plane=plane,
        image=turned[rows, columns],
        reference=maps[0][rows, columns],
        predicted=maps[1][rows, columns],
        affine=moved,
        spacing=(row_mm, column_mm),
        in_body=in_body(image),
    )


def _extent(present: NDArray[np.bool_], mm: float) -> slice:
    """Return where something is along one axis, and a margin around it; all if nothing is."""
    found = np.flatnonzero(present)
    if not found.size:
        return slice(0, len(present))
    margin = max(_MARGIN_MM / mm, _MARGIN * (found[-1] - found[0] + 1))
    start = max(0, int(found[0] - margin))
    return slice(start, min(len(present), int(found[-1] + 1 + margin)))


def _through(stack: _Stack) -> list[int]:
    """Return slices evenly through what is there, the foot first."""
    found = np.flatnonzero(((stack.reference > 0) | (stack.predicted > 0)).any(axis=(0, 1)))
    if not found.size:
        return []
    places = found[0] + (np.arange(_STRIP) + 0.5) * (found[-1] + 1 - found[0]) / _STRIP
    return [int(place) for place in np.unique(places.astype(int))]


def _section(
    stack: _Stack,
    index: int,
    window: tuple[float, float],
    colours: Mapping[int, tuple[str, str]],
) -> Section:
    height, width = (n * mm for n, mm in zip(stack.image.shape[:2], stack.spacing, strict=True))
    plane, digits = stack.plane, _digits(stack.spacing)
    letters = (OPPOSITE[plane.right], plane.right, OPPOSITE[plane.down], plane.down)
    return Section(
        caption=stack.where(index),
        picture=_picture(stack.image[:, :, index], (width, height), window),
        width=round(width, digits),
        height=round(height, digits),
        reference=_lines(stack.reference[:, :, index], stack.spacing, colours),
        predicted=_lines(stack.predicted[:, :, index], stack.spacing, colours),
        letters=letters if stack.in_body else ("", "", "", ""),
        bar=longest_bar(width),
    )


def _picture(plane: NDArray[Any], size: tuple[float, float], window: tuple[float, float]) -> str:
    pixels = np.asarray(as_shown(plane, window) * 255, np.uint8)
    scale = _SHARP / max(size)
    width, height = (max(1, round(side * scale)) for side in size)
    stream = io.BytesIO()
    picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
    picture.save(stream, "WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _lines(
    indices: NDArray[np.uint8], spacing: Sequence[float], colours: Mapping[int, tuple[str, str]]
) -> Lines:
    return tuple(
        (name, colour, path)
        for index, (name, colour) in colours.items()
        if (path := _path(indices == index, spacing))
    )


def _digits(spacing: Sequence[float]) -> int:
    """Return the decimals of a place in mm: two, or more where pixels are finer than that."""
    return max(2, 1 - math.floor(math.log10(min(spacing))))


def _path(mask: NDArray[np.bool_], spacing: Sequence[float]) -> str:
    """Return a mask's contours, half-way between its pixels and the next, as an SVG path."""
    from skimage.measure import find_contours

    if not mask.any():
        return ""
    parts, digits = [], _digits(spacing)
    for contour in find_contours(np.pad(mask, 1).astype(np.float32), 0.5):
        places = (contour - 0.5) * spacing
        points = " ".join(f"{x:.{digits}f} {y:.{digits}f}" for y, x in places[:-1])
        parts.append(f"M{points}Z")
    return "".join(parts)

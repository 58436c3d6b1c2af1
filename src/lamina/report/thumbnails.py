"""Small pictures of a case for a page: its planes, with the outlines of its label.

Each is a PNG within the page, of 128 greys or colours and exact outlines.
"""

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor
from scipy import ndimage

from lamina.data.case import Case
from lamina.data.cohort import Cohort
from lamina.data.doctor.reading import read_label_map
from lamina.errors import LaminaError
from lamina.labels import IGNORE_INDEX, LabelSet
from lamina.report.overlay import css_colours
from lamina.report.slices import (
    Plane,
    View,
    as_shown,
    in_body,
    is_photograph,
    planes_of,
    view_of,
    window_of,
)
from lamina.volume import Volume

_HEIGHT = 300
_WIDEST = 600
_OUTLINE = 2
_TONES = 128
"""Greys, or colours, of a picture; outlines have the rest of its palette."""
_UNDECLARED = IGNORE_INDEX - 1
_UNDECLARED_COLOUR = "#ff3b30"


@dataclass(frozen=True)
class Picture:
    """One slice for the page."""

    caption: str
    data: str
    """PNG as a data URI."""
    width: int
    height: int


def draw_case(
    case: Case, cohort: Cohort, *, all_channels: bool = False
) -> tuple[list[Picture], dict[str, str]]:
    """Draw a case's planes with the outlines of its label, where its header puts it.

    Args:
        case: What can be read of it is drawn; unreadable files are left out.
        cohort: The dataset, for the names of labels and channels.
        all_channels: Draw the first plane of the other channels too.

    Returns:
        The pictures, and the colour of each structure that the label holds.
    """
    parts = []
    for path in case.images:
        try:
            parts.append(case.read_part(path))
        except LaminaError:
            return [], {}
    labels = cohort.labels
    indices = _label_on(parts[0], case, labels)
    colours = dict(enumerate(css_colours(labels).values(), start=1))
    colours[_UNDECLARED] = _UNDECLARED_COLOUR
    planes = planes_of(parts[0])
    views = [view_of(parts[0], indices, None, plane) for plane in planes]
    scale = min(min(_HEIGHT / high, _WIDEST / wide) for high, wide in (v.size_mm for v in views))
    photograph = is_photograph(parts[0])
    which = f", {cohort.channels[0]}" if len(cohort.channels) > 1 and not photograph else ""
    window = window_of(parts[0], _is_ct(cohort.channels[0]))
    pictures = [
        _draw(view, window, colours, f"{_name(parts[0], plane)}{which}", scale)
        for plane, view in zip(planes, views, strict=True)
    ]
    if all_channels and not photograph:
        channels = [replace(p, array=p.array[[i]]) for p in parts for i in range(p.num_channels)]
        for number, channel in enumerate(channels[1:], start=1):
            if channel.spatial_shape == parts[0].spatial_shape:
                view = view_of(channel, indices, None, planes[0])
                name = dict(enumerate(cohort.channels)).get(number, f"channel {number}")
                window = window_of(channel, _is_ct(name))
                pictures.append(_draw(view, window, colours, name, scale))
    return pictures, _legend(indices, labels, colours)


def _is_ct(channel: str) -> bool | None:
    return channel.upper() == "CT" or None  # other names may mean anything


def _name(image: Volume, plane: Plane) -> str:
    """Return the plane's name; a picture says nothing of the body."""
    return plane.name if in_body(image) else "picture"


def _label_on(image: Volume, case: Case, labels: LabelSet) -> NDArray[np.uint8]:
    """Return class indices ``(1, *S)`` at the places of the image's voxels; 0 without a label."""
    empty = np.zeros((1, *image.spatial_shape), np.uint8)
    try:
        label = read_label_map(case, labels)
    except LaminaError:
        label = None
    if label is None or label.spatial_dims != image.spatial_dims:
        return empty
    dims = image.spatial_dims
    way = np.linalg.inv(label.affine) @ image.affine
    values = np.rint(np.nan_to_num(label.array[0]))
    coded = np.full(values.shape, _UNDECLARED, np.uint8)
    for index, value in enumerate((labels.background, *labels.values.values())):
        coded[values == value] = index
    if labels.ignore is not None:
        coded[values == labels.ignore] = 0
    if label.spatial_shape == image.spatial_shape and np.allclose(way, np.eye(4), atol=1e-3):
        return coded[None]
    return np.asarray(
        ndimage.affine_transform(
            coded, way[:dims, :dims], way[:dims, 3], image.spatial_shape, order=0, cval=0
        )
    )[None]


def _draw(
    view: View,
    window: tuple[float, float],
    colours: Mapping[int, str],
    name: str,
    scale: float,
) -> Picture:
    high, wide = (max(8, round(side * scale)) for side in view.size_mm)
    plane = Image.fromarray(np.asarray(as_shown(view.image, window) * 255, np.uint8))
    seen = plane.resize((wide, high), Image.Resampling.BICUBIC)
    if seen.mode == "L":
        greys = np.repeat(np.arange(256, dtype=np.uint8)[:, None] * 2, 3, axis=1)
        return _outlined(np.asarray(seen) // 2, greys, view.segmentation, colours, name)
    few = seen.quantize(_TONES)
    tones = np.array(few.getpalette(), np.uint8).reshape(-1, 3)[:_TONES]
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(tones)] = tones
    return _outlined(np.asarray(few), palette, view.segmentation, colours, name)


def _outlined(
    pixels: NDArray[np.uint8],
    palette: NDArray[np.uint8],
    segmentation: NDArray[np.uint8],
    colours: Mapping[int, str],
    name: str,
) -> Picture:
    """Lay outlines over pixels of a palette, which keeps their exact colour, and files small."""
    high, wide = pixels.shape
    resized = Image.fromarray(segmentation).resize((wide, high), Image.Resampling.NEAREST)
    classes = np.asarray(resized)
    for index in np.unique(classes[classes > 0]).tolist():
        mask = classes == index
        edge = mask & ~ndimage.binary_erosion(mask, iterations=_OUTLINE)
        pixels = np.where(edge, _TONES + index % _TONES, pixels)
        palette[_TONES + index % _TONES] = ImageColor.getrgb(colours[index])
    picture = Image.fromarray(pixels.astype(np.uint8), "P")
    picture.putpalette(palette.tobytes())
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    return Picture(name, f"data:image/png;base64,{data}", wide // 2, high // 2)


def _legend(
    indices: NDArray[np.uint8],
    labels: LabelSet,
    colours: Mapping[int, str],
) -> dict[str, str]:
    names = dict(enumerate(labels.foreground, start=1)) | {_UNDECLARED: "undeclared"}
    return {names[index]: colours[index] for index in np.unique(indices[indices > 0]).tolist()}

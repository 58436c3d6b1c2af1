"""Planes of scans on dark paper, in mm from the top left: image, contours, letters, scale bar."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.report.slices import OPPOSITE, Plane, View, as_shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Colour = tuple[float, float, float]
"""Red, green and blue, 0..1."""

BACKGROUND = "#0b0d10"
INK = "#e8eaed"
MUTED = "#9aa0a6"
DASHES = (0, (2.5, 1.5))
_PICTURE: dict[str, Any] = {
    "cmap": "gray",
    "vmin": 0,
    "vmax": 1,
    "interpolation": "bicubic",
    "aspect": "auto",
}


class Paper:
    """A figure that planes and words are put on, at places in inches from the top left corner."""

    def __init__(self, width: float, height: float, inch_per_mm: float) -> None:
        from matplotlib.figure import Figure

        self.width, self.height, self.inch_per_mm = width, height, inch_per_mm
        self.figure: Figure = Figure((width, height), facecolor=BACKGROUND)

    def text(self, left: float, down: float, text: str, **style: Any) -> None:
        """Write at a place."""
        settings: dict[str, Any] = {"color": INK, "size": 10, "va": "center", "parse_math": False}
        self.figure.text(left / self.width, 1 - down / self.height, text, **(settings | style))

    def plane(self, centre: float, middle: float, size_mm: tuple[float, float]) -> "Axes":
        """Return axes in mm from the top left, centred at a place."""
        height, width = (side * self.inch_per_mm for side in size_mm)
        box = self.box(centre - width / 2, middle - height / 2, width, height)
        axes = self.figure.add_axes(box, xlim=(0, size_mm[1]), ylim=(size_mm[0], 0))
        axes.set_axis_off()
        axes.set_autoscale_on(False)
        return axes

    def box(
        self, left: float, top: float, width: float, height: float
    ) -> tuple[float, float, float, float]:
        """Return inches as matplotlib wants them."""
        bottom = self.height - top - height
        w, h = self.width, self.height
        return left / w, bottom / h, width / w, height / h


def draw_image(axes: "Axes", view: View, window: tuple[float, float]) -> None:
    """Draw the scan's slice over all of the axes, in grey, or a photograph in its colours."""
    extent = (*axes.get_xlim(), *axes.get_ylim())
    axes.imshow(as_shown(view.image, window), extent=extent, **_PICTURE)


def outline(
    axes: "Axes",
    view: View,
    colours: Mapping[str, Colour],
    *,
    fill: float = 0.0,
    width: float = 1.6,
) -> None:
    """Draw each predicted structure's contour, half-way between its pixels and the next."""
    for index, colour in enumerate(colours.values(), start=1):
        right, down, mask = _padded_mask(view.segmentation == index, view)
        if not mask.any():
            continue
        if fill:
            axes.contourf(right, down, mask, levels=[0.5, 1.5], colors=[colour], alpha=fill)
        axes.contour(right, down, mask, levels=[0.5], colors=[colour], linewidths=width)


def outline_reference(axes: "Axes", view: View, reference: NDArray[np.uint8]) -> None:
    """Draw the true contours dashed; a border that two share only once, lest the dashes fill up."""
    style: dict[str, Any] = {"colors": ["white"], "linewidths": 1.1, "linestyles": [DASHES]}
    drawn = np.zeros(np.add(reference.shape, 2), dtype=np.bool_)
    for index in np.unique(reference[reference > 0])[::-1]:
        right, down, mask = _padded_mask(reference == index, view)
        axes.contour(right, down, np.ma.masked_array(mask, drawn), levels=[0.5], **style)
        drawn |= mask > 0


def _padded_mask(
    mask: NDArray[np.bool_], view: View
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return where pixels lie (mm to the right, mm down) and the mask, padded so contours close."""
    padded = np.pad(mask, 1).astype(np.float32)
    rows, columns = (np.arange(size) - 0.5 for size in padded.shape)
    return columns * view.spacing[1], rows * view.spacing[0], padded


def draw_marks(axes: "Axes", plane: Plane) -> None:
    """Write where the screen's edges point to in the body."""
    from matplotlib.patheffects import withStroke

    edges = {
        OPPOSITE[plane.right]: (0.02, 0.5, "left", "center"),
        plane.right: (0.98, 0.5, "right", "center"),
        OPPOSITE[plane.down]: (0.5, 0.98, "center", "top"),
        plane.down: (0.5, 0.02, "center", "bottom"),
    }
    for letter, (x, y, ha, va) in edges.items():
        mark = axes.text(x, y, letter, ha=ha, va=va, color=INK, size=9, transform=axes.transAxes)
        mark.set_path_effects([withStroke(linewidth=2, foreground="black")])


def draw_scale_bar(axes: "Axes", length: float) -> None:
    """Draw a bar of so many mm in the lower left corner."""
    from matplotlib.patheffects import withStroke

    style: dict[str, Any] = {
        "color": INK,
        "path_effects": [withStroke(linewidth=3, foreground="black")],
    }
    start, bottom = 0.04 * axes.get_xlim()[1], 0.96 * axes.get_ylim()[0]
    axes.plot((start, start + length), (bottom, bottom), linewidth=2, **style)
    above: dict[str, Any] = {"xytext": (0, 4), "textcoords": "offset points", "size": 8}
    axes.annotate(f"{length:g} mm", (start, bottom), **above, **style)


def shorten(text: str, length: int) -> str:
    """Return a text, or its beginning where it is longer."""
    return text if len(text) <= length else text[: length - 1] + "…"

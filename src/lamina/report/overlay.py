"""Pictures of a segmentation on its scan: planes, outlines, sizes, scale."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.colours import OKABE_ITO
from lamina.explain.quality import sizes, unit_of
from lamina.files import atomic_path
from lamina.labels import IGNORE_INDEX, LabelSet
from lamina.report.drawing import (
    DASHES,
    MUTED,
    Colour,
    Paper,
    draw_image,
    draw_marks,
    draw_scale_bar,
    outline,
    outline_reference,
    shorten,
)
from lamina.report.slices import View, in_body, planes_of, view_of, window_of
from lamina.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BARS_MM = (0.1, 1, 2, 5, 10, 20, 50, 100)
SIDEWAYS: dict[str, Any] = {"rotation": 90, "ha": "center", "color": MUTED}
DPI = 140

# Lengths of the sheet in inches.
PANEL = 3.4
MIN_WIDTH = 2.2
MIN_HEIGHT = 1.0
MAX_HEIGHTS = 10.0
GAP = 0.12
LEFT = 0.4
TOP = 0.85
BOTTOM = 0.25
LEGEND = 3.4
LINE = 0.24
VALUE = 0.85


def label_colours(labels: LabelSet) -> dict[str, Colour]:
    """Return each structure's colour, red, green, blue in 0..1, the same in every picture."""
    colours = {}
    for name in labels.foreground:
        red, green, blue = labels.term(name).colour or (0, 0, 0)
        colours[name] = (red / 255, green / 255, blue / 255)
    return colours


def css_colours(labels: LabelSet) -> dict[str, str]:
    """Return each structure's colour for CSS."""
    return {name: labels.term(name).hex_colour() for name in labels.foreground}


def longest_bar(width: float) -> float:
    """Return the length in mm of a scale bar that is seen well in a picture of that width."""
    return max([mm for mm in BARS_MM if mm <= 0.35 * width], default=BARS_MM[0])


def save_overlay(
    path: Path,
    image: Volume,
    segmentation: Volume,
    labels: LabelSet,
    *,
    reference: Volume | None = None,
    title: str = "",
    ct: bool | None = None,
) -> None:
    """Write a PNG of a segmentation on its image, with true proportions, volumes and a scale.

    Rows are the axial, coronal and sagittal planes that show most of every structure (one row for
    a 2D image); columns are the image, the prediction on it and, with a reference, both outlines.

    Args:
        path: The PNG to write; its folder is made.
        image: Channel 0 is shown, CT in a soft tissue window; a photograph in its colours.
        segmentation: Predicted label map ``(1, *S)`` in file values.
        labels: Names and file values.
        reference: True label map, likewise.
        title: Heading.
        ct: Whether the image is a CT; as for :func:`~lamina.report.slices.window_of`.

    Raises:
        GeometryError: A label map lies on another grid than the image.
        LabelError: A label map holds undeclared values.
        FileError: The picture cannot be written.
    """
    predicted = encoded(segmentation, image, labels)
    true = None if reference is None else encoded(reference, image, labels)
    views = [view_of(image, predicted, true, plane) for plane in planes_of(image)]
    sheet, window, colours = _Sheet(views, title), window_of(image, ct), label_colours(labels)
    for row, view in enumerate(views):
        _draw_row(sheet, row, view, window, colours)
        if in_body(image):
            _name_plane(sheet, row, view)
        if image.unit == "mm":
            draw_scale_bar(sheet.axes(row, 0, view.size_mm), sheet.bar_mm)
    found = [sizes(each, labels) for each in (segmentation, reference) if each is not None]
    heading = f"{'Volume' if image.spatial_dims == 3 else 'Area'}, {unit_of(segmentation)}"
    _draw_legend(sheet, heading, found, colours)
    with atomic_path(path) as part:
        sheet.figure.savefig(part, format="png", dpi=DPI)


def encoded(label: Volume, image: Volume, labels: LabelSet) -> NDArray[np.uint8]:
    """Return class indices on the image's grid; what is to be ignored is not drawn."""
    image.check_grid_of(label)
    indices = labels.encode(label.array, label.source)
    indices[indices == IGNORE_INDEX] = 0
    return indices


class _Sheet(Paper):
    """The page: its size follows from the planes, which all share one scale."""

    def __init__(self, views: Sequence[View], title: str) -> None:
        heights, widths = (np.array(side) for side in zip(*(v.size_mm for v in views), strict=True))
        inch_per_mm = float(min(PANEL / widths.max(), MAX_HEIGHTS / heights.sum()))
        self.bar_mm = longest_bar(float(widths.min()))
        self.column = max(MIN_WIDTH, float(widths.max() * inch_per_mm))
        self.rows: NDArray[np.float64] = np.maximum(MIN_HEIGHT, heights * inch_per_mm)
        headings = ("Image", "Prediction", "Against the reference")
        self.columns = 2 if views[0].reference is None else 3
        self.legend_left = LEFT + self.columns * (self.column + GAP) + GAP
        height = TOP + float((self.rows + GAP).sum()) + BOTTOM
        super().__init__(self.legend_left + LEGEND, height, inch_per_mm)
        self.text(LEFT, 0.3, shorten(title, int(self.width * 8)), size=13, weight="bold")
        for column, heading in enumerate(headings[: self.columns]):
            self.text(self._middle(column), TOP - 0.16, heading, ha="center", color=MUTED)

    def _middle(self, column: int) -> float:
        return LEFT + column * (self.column + GAP) + self.column / 2

    def row_middle(self, row: int) -> float:
        """Return how far below the top edge a row's centre lies."""
        return TOP + float((self.rows[:row] + GAP).sum() + self.rows[row] / 2)

    def axes(self, row: int, column: int, size_mm: tuple[float, float]) -> "Axes":
        """Return a plane's axes, centred in their cell."""
        return self.plane(self._middle(column), self.row_middle(row), size_mm)

    def stroke(self, left: float, length: float, down: float, **style: Any) -> None:
        """Draw a horizontal stroke, in inches."""
        from matplotlib.lines import Line2D

        ends, height = (left / self.width, (left + length) / self.width), 1 - down / self.height
        self.figure.add_artist(Line2D(ends, (height, height), solid_capstyle="butt", **style))


def _draw_row(
    sheet: _Sheet,
    row: int,
    view: View,
    window: tuple[float, float],
    colours: Mapping[str, Colour],
) -> None:
    for column in range(sheet.columns):
        axes = sheet.axes(row, column, view.size_mm)
        draw_image(axes, view, window)
        if column > 0:
            outline(axes, view, colours, fill=0.35 if column == 1 else 0.0)
        if column == 2 and view.reference is not None:
            outline_reference(axes, view, view.reference)


def _name_plane(sheet: _Sheet, row: int, view: View) -> None:
    sheet.text(LEFT / 2, sheet.row_middle(row), view.plane.name, **SIDEWAYS)
    for column in range(sheet.columns):
        draw_marks(sheet.axes(row, column, view.size_mm), view.plane)


def _draw_legend(
    sheet: _Sheet,
    heading: str,
    found: Sequence[Mapping[str, float]],
    colours: Mapping[str, Colour],
) -> None:
    """List the structures that occur, with colour and sizes, as a table beside the planes."""
    shown = [name for name in colours if any(each[name] for each in found)]
    left, compared = sheet.legend_left, sheet.columns == 3
    heads = ("predicted", "reference") if compared else ("predicted",)
    ends = [sheet.width - 0.2 - VALUE * (len(heads) - 1 - i) for i in range(len(heads))]
    sheet.text(left, TOP - 0.16, heading, color=MUTED)
    for end, head in zip(ends, heads, strict=True):
        sheet.text(end, TOP - 0.16, head, ha="right", color=MUTED, size=9)
    fitting = int((sheet.height - TOP - BOTTOM) / LINE) - 2
    down = TOP + LINE / 2
    for name in shown[:fitting]:
        sheet.stroke(left, 0.18, down, color=colours[name], linewidth=7)
        sheet.text(left + 0.28, down, shorten(name, 14 if compared else 24))
        for end, each in zip(ends, found, strict=True):
            sheet.text(end, down, _three_digits(each[name]), ha="right")
        down += LINE
    if len(shown) > fitting:
        sheet.text(left + 0.28, down, f"and {len(shown) - fitting} more", color=MUTED)
    elif not shown:
        sheet.text(left, down, "nothing found", color=MUTED)
    if compared:
        _draw_line_key(sheet)


def _draw_line_key(sheet: _Sheet) -> None:
    down = sheet.height - BOTTOM - LINE / 2
    for left, name, colour, style in (
        (sheet.legend_left, "predicted", OKABE_ITO[0], "solid"),
        (sheet.legend_left + 1.4, "reference", "white", DASHES),
    ):
        sheet.stroke(left, 0.35, down, color=colour, linewidth=1.6, linestyle=style)
        sheet.text(left + 0.45, down, name, color=MUTED, size=9)


def _three_digits(value: float) -> str:
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"

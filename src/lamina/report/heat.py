"""A sheet of maps over a scan: one row per map, one column per plane."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.files import atomic_path
from lamina.labels import LabelSet
from lamina.report.drawing import (
    MUTED,
    Colour,
    Paper,
    draw_image,
    draw_marks,
    draw_scale_bar,
    outline,
    shorten,
)
from lamina.report.overlay import DPI, encoded, label_colours, longest_bar
from lamina.report.slices import View, in_body, planes_of, to_screen, view_of, window_of
from lamina.volume import Volume

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap

MOST_ROWS = 12
"""Maps on a sheet; the files hold all."""

# Lengths in inches.
_PANEL = 2.7
_LEAST = 1.1
_GAP = 0.1
_LEFT = 2.1
_TOP = 0.75
_BOTTOM = 0.35
_LINE = 0.22
_BAR = 1.5

_WORDS = 22
"""Letters of a line of words."""
_SEEN = 0.02
_THICK, _THIN = 1.6, 0.6
"""Outlines, in points; thin over maps, for what is unsure lies at borders."""
_STRONG = 0.8
"""How opaque the greatest value is; the least one is clear."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Heat:
    """One map of a scan."""

    name: str
    array: NDArray[np.float32]
    """``(*S)``, from 0."""
    high: float
    """Value of the brightest colour."""
    structures: tuple[str, ...] = ()
    """What it is about, which then chooses the slices; else all that was found."""

    @property
    def is_flat(self) -> bool:
        """Whether it is the same everywhere, give or take what nobody would see."""
        return float(self.array.max() - self.array.min()) <= _SEEN * self.high


def save_heat(
    path: Path,
    image: Volume,
    segmentation: Volume,
    labels: LabelSet,
    heats: Sequence[Heat],
    *,
    title: str = "",
    note: str = "",
    ct: bool | None = None,
) -> None:
    """Write a PNG: the scan with what was segmented, then each map over it.

    Colours run from dark red to yellow, and grow as bright as they do opaque, so that they are read
    alike with any colour vision, and what is hardly there leaves the scan as it is.

    Args:
        path: The PNG to write.
        image: Channel 0 is shown; a photograph in its colours.
        segmentation: ``(1, *S)`` in file values, whose outlines are drawn.
        labels: Names and file values.
        heats: At most :data:`MOST_ROWS` are drawn, and none that is flat.
        title: Heading.
        note: What there is to say of all maps, in a line.
        ct: Whether the image is a CT; as for :func:`~lamina.report.slices.window_of`.

    Raises:
        FileError: The picture cannot be written.
    """
    indices = encoded(segmentation, image, labels)
    shown = [heat for heat in heats if not heat.is_flat][:MOST_ROWS]
    kept = [indices, *(_only(indices, labels, heat.structures) for heat in shown)]
    rows = [[view_of(image, each, None, plane) for plane in planes_of(image)] for each in kept]
    page, colours, window = _Page(rows, title), label_colours(labels), window_of(image, ct)
    if in_body(image):
        page.name_planes(rows[0])
    for row, views in enumerate(rows):
        heat = shown[row - 1] if row else None
        for column, view in enumerate(views):
            axes = page.axes(row, column, view)
            draw_image(axes, view, window)
            if heat is not None:
                _lay_over(axes, heat, image, view)
            outline(axes, view, colours, width=_THICK if heat is None else _THIN)
            if in_body(image):
                draw_marks(axes, view.plane)
        if image.unit == "mm":
            draw_scale_bar(page.axes(row, 0, views[0]), longest_bar(views[0].size_mm[1]))
        if heat is None:
            present = np.unique(indices)
            page.key({n: c for i, (n, c) in enumerate(colours.items(), 1) if i in present})
        else:
            page.scale(row, heat)
    more = len(heats) - len(shown)
    left_out = f"{more} more maps, flat ones among them, are in files." if more else ""
    page.note(" ".join(filter(None, (note, left_out))))
    with atomic_path(path) as part:
        page.figure.savefig(part, format="png", dpi=DPI)


def _only(
    indices: NDArray[np.uint8], labels: LabelSet, structures: Sequence[str]
) -> NDArray[np.uint8]:
    """Return the map of some structures, or of all where none is named."""
    wanted = [labels.foreground.index(name) + 1 for name in structures]
    return np.where(np.isin(indices, wanted), indices, 0).astype(np.uint8) if wanted else indices


def _lay_over(axes: "Axes", heat: Heat, image: Volume, view: View) -> None:
    plane = to_screen(heat.array[None], image.affine, view.plane)[0][:, :, view.index]
    extent = (*axes.get_xlim(), *axes.get_ylim())
    style: dict[str, Any] = {"interpolation": "bilinear", "aspect": "auto"}
    axes.imshow(plane, extent=extent, cmap=_colours(), vmin=0, vmax=heat.high, **style)


@cache
def _colours() -> "ListedColormap":
    """Return colours that grow brighter and more opaque with the value."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    table = colormaps["inferno"](np.linspace(0.4, 1, 256))  # violets would look pink on tissue
    table[:, 3] = _STRONG * np.linspace(0, 1, 256) ** 1.2
    return ListedColormap(table)


class _Page(Paper):
    """The sheet: words and scales on the left, planes beside them, all to one scale."""

    def __init__(self, rows: Sequence[Sequence[View]], title: str) -> None:
        heights, widths = np.array([view.size_mm for view in rows[0]]).T
        inch_per_mm = float(_PANEL / max(heights.max(), widths.max()))
        self.columns = np.maximum(_LEAST, widths * inch_per_mm)
        self.row = max(_LEAST, float(heights.max()) * inch_per_mm)
        width = _LEFT + float((self.columns + _GAP).sum())
        super().__init__(width, _TOP + len(rows) * (self.row + _GAP) + _BOTTOM, inch_per_mm)
        self.text(_GAP, 0.28, shorten(title, int(self.width * 9)), size=13, weight="bold")

    def name_planes(self, views: Sequence[View]) -> None:
        """Write the planes' names above their columns."""
        for view, left, width in zip(views, self._lefts, self.columns, strict=True):
            self.text(left + width / 2, _TOP - 0.16, view.plane.name, ha="center", color=MUTED)

    @property
    def _lefts(self) -> list[float]:
        ends = np.cumsum(self.columns + _GAP)
        return [_LEFT, *(_LEFT + float(end) for end in ends[:-1])]

    def axes(self, row: int, column: int, view: View) -> "Axes":
        """Return a plane's axes, centred in their cell."""
        centre = self._lefts[column] + self.columns[column] / 2
        return self.plane(centre, self._top(row) + self.row / 2, view.size_mm)

    def key(self, colours: Mapping[str, Colour]) -> None:
        """Name the outlines, as far as there is room."""
        from matplotlib.patches import Rectangle

        down = self._top(0) + 0.15
        self.text(_GAP, down, "Segmentation", weight="bold")
        fitting = int((self.row - 0.4) / _LINE)
        for name, colour in list(colours.items())[:fitting]:
            down += _LINE
            box = self.box(_GAP, down - 0.04, 0.2, 0.08)
            self.figure.add_artist(Rectangle(box[:2], *box[2:], color=colour))
            self.text(_GAP + 0.3, down, shorten(name, 20))
        if len(colours) > fitting:
            self.text(_GAP + 0.3, down + _LINE, f"and {len(colours) - fitting} more", color=MUTED)
        elif not colours:
            self.text(_GAP, down + _LINE, "nothing found", color=MUTED)

    def scale(self, row: int, heat: Heat) -> None:
        """Name a map, and show what its colours mean."""
        from matplotlib.patches import Rectangle

        top = self._top(row) + 0.15
        for line, words in enumerate(wrap(heat.name, _WORDS)[:2]):
            self.text(_GAP, top + line * _LINE, words, weight="bold")
        axes = self.figure.add_axes(self.box(_GAP, top + 0.4, _BAR, 0.12))
        axes.add_patch(Rectangle((0, 0), 256, 1, color="0.5", zorder=-1))  # as over tissue
        extent = (0, 256, 0, 1)
        axes.imshow(np.linspace(0, 1, 256)[None], extent=extent, cmap=_colours(), aspect="auto")
        axes.set_axis_off()
        self.text(_GAP, top + 0.66, "0", size=9, color=MUTED)
        end: dict[str, Any] = {"ha": "right", "size": 9, "color": MUTED}
        self.text(_GAP + _BAR, top + 0.66, f"{heat.high:.3g}", **end)

    def note(self, text: str) -> None:
        """Write below all rows."""
        self.text(_GAP, self.height - _BOTTOM / 2, text, color=MUTED)

    def _top(self, row: int) -> float:
        return _TOP + row * (self.row + _GAP)

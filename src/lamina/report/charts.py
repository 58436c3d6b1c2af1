"""Charts of scores, sizes and training, drawn once for the page and for print.

Their colours are those of the page in daylight; on it they follow the reader's theme.
"""

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote, unquote

import numpy as np
from numpy.typing import NDArray

from lamina.colours import OKABE_ITO
from lamina.evaluation.metrics import Metric
from lamina.report.drawing import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

INK, MUTED, LINE = "#1c2127", "#5f6b7a", "#e1e5ea"
_THEME = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)"}

_WIDTH = 4.8
_HEIGHT = 3.0
_ROW = 0.44
"""Height of a structure's row, in inches like the other lengths..."""
_LOW_ROW = 0.27
"""...and where there are many."""
_MANY = 12
DASHES = ("solid", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)))
_LONGEST = 24
"""Characters of a name."""
_FEW_EPOCHS = 15
_FEW_NAMES = 8
"""So many names, and no more, leave room for the lines that they name."""
_NAME = 0.2
"""Height of a row of two names below a chart."""
_GOLDEN = 0.618034

_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": 11,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "lamina",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "ytick.major.size": 3,
}


@dataclass(frozen=True, eq=False)
class Chart:
    """One figure with its words."""

    title: str
    caption: str
    figure: "Figure"

    @property
    def svg(self) -> str:
        """The figure as markup for a page; what leads to a case has its name for a tip."""
        stream = io.StringIO()
        with styled():
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            self.figure.savefig(stream, format="svg", metadata=nothing)
        text = stream.getvalue()
        text = text[text.index("<svg") :]
        for colour, variable in _THEME.items():
            text = text.replace(colour, variable)
        text = re.sub(r' (xmlns(:xlink)?|width|height)="[^"]*"', "", text, count=4)
        return re.sub(
            r'<a xlink:href="#case-([^"]*)"[^>]*>',
            lambda link: f'<a href="#case-{link[1]}"><title>{escape(unquote(link[1]))}</title>',
            text,
        )


def score_chart(
    metric: Metric, values: Mapping[str, Mapping[str, float]], colours: Mapping[str, str]
) -> Chart:
    """Draw a metric of every case, by structure: each a dot, quartiles a box, the median a bar.

    Args:
        metric: What it is.
        values: Structure -> case -> value; NaN where the metric does not apply.
        colours: Structure -> colour; regions are grey.
    """
    with drawing(1.0 + (_ROW if len(values) <= _MANY else _LOW_ROW) * len(values)) as axes:
        for row, (label, by_case) in enumerate(values.items()):
            found = {case: v for case, v in by_case.items() if np.isfinite(v)}
            _strip(axes, row, found, colours.get(label, MUTED))
        _tick(axes, nbins=6)
        axes.set_yticks(range(len(values)), [shorten(label, _LONGEST) for label in values])
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{metric.title}, {metric.unit}" if metric.unit else metric.title)
        if metric.higher_is_better is None:
            axes.axvline(0, color=MUTED, linewidth=1, zorder=0)
    return Chart(metric.title, metric.definition, figure_of(axes))


def curve_chart(
    title: str,
    caption: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    colours: Mapping[str, str],
    *,
    mark: float | None = None,
    axis: str = "Epoch",
) -> Chart:
    """Draw what training measured in each epoch, or along another axis.

    Args:
        title: Of the chart, and its vertical axis.
        caption: What it shows.
        lines: Name -> pairs of epoch, from 1, and value.
        colours: Name -> colour; others take theirs in turn.
        mark: Epoch that was kept.
        axis: What the horizontal axis is.
    """
    with drawing() as axes:
        others, dashes = cycle(OKABE_ITO[::-1]), cycle(DASHES)
        drawn: dict[str, Line2D] = {}
        for name, points in lines.items():
            epochs, values = zip(*points, strict=True)
            marker = "o" if len(points) <= _FEW_EPOCHS else ""
            style: dict[str, Any] = {"linestyle": next(dashes), "marker": marker, "markersize": 4}
            colour = colours.get(name) or next(others)
            (drawn[name],) = axes.plot(epochs, values, color=colour, linewidth=1.7, **style)
        if mark is not None:
            axes.axvline(mark, color=MUTED, linewidth=1, linestyle=(0, (2, 2)), zorder=0)
            axes.annotate(
                f"kept: {mark:g}",
                (mark, 0.02),
                xycoords=("data", "axes fraction"),
                xytext=(-3, 0),
                textcoords="offset points",
                ha="right",
                size=9,
                color=MUTED,
            )
        axes.set_xlabel(axis)
        axes.set_ylabel(title)
        _tick(axes, integer=True)
        if len(lines) > 1:
            name_lines(axes, drawn)
    return Chart(title, caption, figure_of(axes))


@contextmanager
def drawing(height: float = _HEIGHT) -> Iterator["Axes"]:
    """Yield axes, so many inches high with their words, in the style of all charts."""
    from matplotlib.figure import Figure

    with styled():
        yield Figure((_WIDTH, height), layout="constrained").add_subplot()


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of all charts."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        yield


def name_lines(
    axes: "Axes", lines: "Mapping[str, Line2D]", loc: Literal["best", "lower right"] = "best"
) -> None:
    """Add a legend: among the lines where there are few, below where it would cover them."""
    handles, figure = [*lines.values()], figure_of(axes)
    if len(lines) <= _FEW_NAMES:
        axes.legend(handles, [shorten(name, _LONGEST) for name in lines], loc=loc, fontsize=9)
        return
    figure.set_figheight(figure.get_figheight() + _NAME * math.ceil(len(lines) / 2))
    names = [shorten(name, 20) for name in lines]
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=9)


def figure_of(axes: "Axes") -> "Figure":
    """Return the figure that axes are the only ones of."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _tick(axes: "Axes", **settings: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(**{"steps": [1, 2, 2.5, 5, 10]} | settings))


def _strip(axes: "Axes", row: int, values: Mapping[str, float], colour: str) -> None:
    if not values:
        return
    shown = np.array([*values.values()])
    axes.boxplot(
        [shown],
        orientation="horizontal",
        positions=[row],
        widths=0.62,
        showfliers=False,
        showcaps=False,
        boxprops={"color": MUTED, "linewidth": 1},
        whiskerprops={"color": MUTED, "linewidth": 1},
        medianprops={"color": INK, "linewidth": 2.2},
        manage_ticks=False,
        zorder=3,
    )
    axes.scatter(shown, row + _jitter(len(shown)), **dots(colour, values))


def _jitter(count: int) -> NDArray[np.float64]:
    """Return offsets that spread dots over a row evenly and always in the same way."""
    places = (np.arange(count) * _GOLDEN) % 1 - 0.5
    return np.asarray(places / 2 if count > 1 else np.zeros(count))


def dots(colour: str, cases: Iterable[str]) -> dict[str, Any]:
    """Return the style of dots that lead to their cases."""
    links = [f"#case-{quote(case, errors='backslashreplace')}" for case in cases]
    style = {"s": 26, "color": colour, "edgecolors": MUTED, "linewidths": 0.5, "zorder": 2}
    return style | {"urls": links}

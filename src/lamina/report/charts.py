"""Charts of scores, sizes and training, drawn once for the page and for print.

Their colours are those of the page in daylight; on it they follow the reader's theme.
"""

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.colours import OKABE_ITO
from lamina.evaluation.metrics import Metric
from lamina.report.sheets import signed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
_FEW_EPOCHS = 15
_GOLDEN = 0.618034
LIMITS = 1.96
"""Limits of agreement in standard deviations: 95 % of differences, were they normal."""

_STYLE: Any = {
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
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
}


@dataclass(frozen=True, eq=False)
class Chart:
    """One figure with its words."""

    title: str
    caption: str
    figure: "Figure"

    @property
    def svg(self) -> str:
        """The figure as markup for a page; what is linked has the link's target for a tip."""
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
            r'<a xlink:href="(#[^"]*)"[^>]*>', r'<a href="\1"><title>\1</title>', text
        ).replace("<title>#case-", "<title>")


def score_chart(
    metric: Metric, values: Mapping[str, Mapping[str, float]], colours: Mapping[str, str]
) -> Chart:
    """Draw a metric of every case, by structure: each a dot, quartiles a box, the median a bar.

    Args:
        metric: What it is.
        values: Structure -> case -> value; NaN where the metric does not apply.
        colours: Structure -> colour; regions are grey.
    """
    with styled():
        axes = _axes(1.0 + (_ROW if len(values) <= _MANY else _LOW_ROW) * len(values))
        for row, (label, by_case) in enumerate(values.items()):
            found = {case: v for case, v in by_case.items() if np.isfinite(v)}
            _strip(axes, row, found, colours.get(label, MUTED))
        _tick(axes, nbins=6)
        axes.set_yticks(range(len(values)), [_short(label) for label in values])
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{metric.title}, {metric.unit}" if metric.unit else metric.title)
        if metric.higher_is_better is None:
            axes.axvline(0, color=MUTED, linewidth=1, zorder=0)
        _finish(axes)
    return Chart(metric.title, metric.definition, figure_of(axes))


def agreement_chart(
    label: str,
    reference: NDArray[np.float64],
    predicted: NDArray[np.float64],
    cases: Sequence[str],
    unit: str,
    colour: str,
) -> Chart:
    """Draw how far two measures of a size agree (Bland and Altman 1986).

    Args:
        label: The structure.
        reference: Its true size in each case.
        predicted: Likewise.
        cases: Names of the cases.
        unit: Of the sizes.
        colour: Of the structure.
    """
    mean, error = (reference + predicted) / 2, predicted - reference
    bias, spread = float(error.mean()), float(error.std(ddof=1)) if len(error) > 1 else 0.0
    limits = [bias - LIMITS * spread, bias + LIMITS * spread]
    digits = _digits(max(map(abs, limits)))
    with styled():
        axes = _axes()
        axes.scatter(mean, error, urls=[f"#case-{case}" for case in cases], **_dots(colour))
        for value, name, dashes in (
            (bias, "bias", "solid"),
            (limits[1], "+1.96 SD", (0, (4, 2))),
            (limits[0], "−1.96 SD", (0, (4, 2))),
        ):
            axes.axhline(value, color=INK, linewidth=1, linestyle=dashes, zorder=1)
            place: dict[str, Any] = {"va": "center", "size": 9}
            place["transform"] = axes.get_yaxis_transform()
            axes.text(1.02, value, f"{name}\n{signed(value, digits)}", **place)
        axes.axhline(0, color=LINE, linewidth=1.5, zorder=0)
        axes.margins(x=0.1, y=0.18)
        axes.set_xlabel(f"Mean of both, {unit}")
        axes.set_ylabel(f"Predicted − reference, {unit}")
        _finish(axes)
    low, high = (signed(limit, digits) for limit in limits)
    told = f"Bias {signed(bias, digits)} {unit}, limits of agreement {low} to {high} {unit}"
    return Chart(label, f"{told}; {len(error)} cases.", figure_of(axes))


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
    with styled():
        axes = _axes()
        others, dashes = cycle(OKABE_ITO[::-1]), cycle(DASHES)
        for name, points in lines.items():
            epochs, values = zip(*points, strict=True)
            marker = "o" if len(points) <= _FEW_EPOCHS else ""
            style: dict[str, Any] = {"linestyle": next(dashes), "marker": marker, "markersize": 4}
            colour = colours.get(name) or next(others)
            axes.plot(epochs, values, color=colour, linewidth=1.7, label=_short(name), **style)
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
            axes.legend(loc="best", fontsize=9)
        _finish(axes)
    return Chart(title, caption, figure_of(axes))


@contextmanager
def drawing() -> Iterator["Axes"]:
    """Yield axes in the style of all charts, and finish them."""
    with styled():
        axes = _axes()
        yield axes
        _finish(axes)


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of all charts."""
    from matplotlib import rc_context

    with rc_context(_STYLE):
        yield


def _axes(height: float = _HEIGHT) -> "Axes":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((_WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure.add_subplot()


def figure_of(axes: "Axes") -> "Figure":
    """Return the figure that axes are the only ones of."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def _tick(axes: "Axes", **settings: Any) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(**{"steps": [1, 2, 2.5, 5, 10]} | settings))


def _finish(axes: "Axes") -> None:
    axes.set_axisbelow(True)
    axes.tick_params(length=3)


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
    links = [f"#case-{case}" for case in values]
    axes.scatter(shown, row + _jitter(len(shown)), urls=links, **_dots(colour))


def _jitter(count: int) -> NDArray[np.float64]:
    """Return offsets that spread dots over a row evenly and always in the same way."""
    places = (np.arange(count) * _GOLDEN) % 1 - 0.5
    return np.asarray(places / 2 if count > 1 else np.zeros(count))


def _dots(colour: str) -> dict[str, Any]:
    return {"s": 26, "color": colour, "edgecolors": MUTED, "linewidths": 0.5, "zorder": 2}


def _digits(largest: float) -> int:
    """Return the decimals by which values up to the largest have three digits that matter."""
    return max(0, 2 - math.floor(math.log10(largest))) if largest else 3


def _short(name: str, length: int = 24) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"

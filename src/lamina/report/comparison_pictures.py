"""Pictures of a comparison of methods, for any colour vision and for print."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.evaluation.statistics.comparison import Comparison, Pair
from lamina.files import atomic_path
from lamina.report.comparison import difference, heading, p_value, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008; place or words tell the same as the colours.
BLUE, ORANGE = "#0072B2", "#D55E00"
INK, MUTED, FAINT = "#1a1c1f", "#5f6368", "#dadce0"
DPI = 160
MAX_PAIRS = 15
"""Beyond, only the pairs of the best method are drawn."""

# Lengths in inches.
WIDTH = 8.0
TOP = 0.78
BOTTOM = 0.68
CHARACTER = 0.082
CELL = 0.8
GAP = 0.15
BAR = 0.14

_LONGEST = 26
_DOTS = 7
"""Heights, within a row, among which the dots of patients take turns."""


def save_pictures(out: Path, found: Comparison) -> tuple[str, ...]:
    """Draw single patients and ranks; of three methods or more, the tests of all pairs, too.

    Args:
        out: Folder for ``differences.png``, ``rank_stability.png``, ``critical_difference.png`` and
            ``significance.png``.
        found: What to draw.

    Returns:
        Names of the files, what to look at first before the others.

    Raises:
        FileError: The folder cannot be written.
    """
    pictures = {"differences": differences(found), "rank_stability": rank_stability(found)}
    ranks = found.friedman
    if ranks and ranks.critical_difference is not None:
        pictures["critical_difference"] = critical_difference(
            found, ranks.mean_ranks, ranks.critical_difference
        )
    if ranks:
        pictures["significance"] = significance(found)
    for name, figure in pictures.items():
        with atomic_path(out / f"{name}.png") as part:
            figure.savefig(part, dpi=DPI)
    return tuple(f"{name}.png" for name in pictures)


def critical_difference(found: Comparison, mean_ranks: Sequence[float], apart: float) -> "Figure":
    """Place methods by mean rank; a bar joins those that are not ``apart``, Nemenyi's distance."""
    places = np.array(mean_ranks)
    order = np.argsort(places, kind="stable")
    cliques = _cliques(places[order], apart)
    names = [_short(found.methods[i].name) for i in order]
    note = "Mean rank, 1 is best. A bar joins methods that cannot be told apart at 5 %."
    axes = _rows(
        found,
        "Mean ranks over the patients",
        note,
        names,
        0.34,
        top=1.1,
        right=0.3 + BAR * len(cliques),
    )
    axes.set_xlim(0.85, len(names) + 0.15)
    axes.set_xticks(range(1, len(names) + 1))
    axes.hlines(range(len(names)), 0.85, places[order], color=FAINT, linewidth=1)
    axes.plot(places[order], range(len(names)), "o", color=BLUE, markersize=7, clip_on=False)
    for row, place in enumerate(places[order]):
        _note(axes, (place, row), f"{place:.2f}", (8, 0), color=MUTED)
    inches = axes.get_position().width * _figure(axes).get_figwidth()
    for level, (first, last) in enumerate(cliques):
        x, ends = 1 + (0.2 + BAR * level) / inches, (first - 0.25, last + 0.25)
        style: dict[str, Any] = {"color": INK, "linewidth": 4, "solid_capstyle": "butt"}
        axes.plot((x, x), ends, transform=axes.get_yaxis_transform(), clip_on=False, **style)
    _ruler(axes, apart, len(names))
    return _figure(axes)


def rank_stability(found: Comparison) -> "Figure":
    """Show in which share of the resamples each method holds each rank."""
    names = [_short(method.name) for method in found.methods]
    shares = np.array([method.stability.shares for method in found.methods])
    note = "Rank, and the share of the resamples in which a method holds it."
    axes = _rows(found, "Ranks when patients are drawn again", note, names, 0.42, cells=len(names))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), [str(rank) for rank in range(1, len(names) + 1)])
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.55 else INK if share else MUTED
        axes.text(column, row, percent(share), ha="center", va="center", color=colour, size=10)
    _grid(axes, shares.shape)
    return _figure(axes)


def significance(found: Comparison) -> "Figure":
    """Show which method (row) is significantly better than which (column), and by which p."""
    names = [method.name for method in found.methods]
    place = {name: i for i, name in enumerate(names)}
    wins = np.zeros((len(names), len(names)))
    told = np.full(wins.shape, "", dtype=object)
    for pair in found.pairs:
        i, j = place[pair.first], place[pair.second]
        better, worse = ((i, j), (j, i)) if pair.effect >= 0 else ((j, i), (i, j))
        wins[better] = pair.significant
        told[better] = p_value(pair.holm_p)
        told[worse] = "worse" if pair.significant else p_value(pair.holm_p)
    title = "Which method is significantly better than which"
    note = "Filled: the row is better than the column. Figures: Holm-corrected p of the pair."
    numbered = [f"{_short(name)}   {i}" for i, name in enumerate(names, start=1)]
    axes = _rows(found, title, note, numbered, 0.42, cells=len(names))
    axes.imshow(0.8 * wins, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(names)), [str(i) for i in range(1, len(names) + 1)])
    for (row, column), text in np.ndenumerate(told):
        colour = "white" if wins[row, column] else MUTED
        axes.text(column, row, text, ha="center", va="center", color=colour, size=9)
    _grid(axes, wins.shape)
    return _figure(axes)


def differences(found: Comparison) -> "Figure":
    """Show each patient's difference in each pair, with the mean and its interval."""
    pairs, best = found.pairs, found.methods[0].name
    if len(pairs) > MAX_PAIRS:
        pairs = tuple(pair for pair in pairs if best in (pair.first, pair.second))
    names = [f"{_short(pair.first, 16)} − {_short(pair.second, 16)}" for pair in pairs]
    whose = "each pair" if len(pairs) == len(found.pairs) else "the best method and each other"
    better = "right" if found.subject.higher_is_better else "left"
    unit = f", {found.subject.unit}" if found.subject.unit else ""
    note = f"Difference{unit}: to the {better}, the first is better. Bar: mean with 95 % interval."
    said = [_figures(found, pair) for pair in pairs]
    right = GAP + CHARACTER * max(map(len, chain.from_iterable(said)))
    axes = _rows(found, f"Patient by patient: {whose}", note, names, 0.62, right=right)
    values = {method.name: np.array(method.values) for method in found.methods}
    axes.axvline(0, color=INK, linewidth=1)
    for row, (pair, lines) in enumerate(zip(pairs, said, strict=True)):
        _draw_pair(axes, row, pair, values[pair.first] - values[pair.second], found)
        beside: dict[str, Any] = {"xycoords": axes.get_yaxis_transform()}
        weight = "bold" if pair.significant else "normal"
        _note(axes, (1, row - 0.2), lines[0], (7, 0), color=INK, weight=weight, **beside)
        _note(axes, (1, row + 0.16), lines[1], (7, 0), color=MUTED, **beside)
    axes.margins(x=0.06)
    return _figure(axes)


def _draw_pair(
    axes: "Axes", row: int, pair: Pair, apart: NDArray[np.float64], found: Comparison
) -> None:
    """Draw a pair's patients below its mean and interval."""
    sign = 1 if found.subject.higher_is_better else -1
    turns = np.argsort(np.argsort(apart, kind="stable")) * 3 % _DOTS
    down = row - 0.02 + 0.34 * turns / (_DOTS - 1)
    for side, colour, marker in ((1, BLUE, "o"), (-1, ORANGE, "v"), (0, MUTED, "s")):
        some = np.sign(np.round(sign * apart, 10)) == side
        style: dict[str, Any] = {"markersize": 4.5, "alpha": 0.6, "markeredgewidth": 0}
        axes.plot(apart[some], down[some], marker, color=colour, **style)
    interval = pair.difference
    if not interval.missing:
        axes.plot((interval.low, interval.high), (row - 0.24,) * 2, color=INK, linewidth=2.5)
    axes.plot(interval.mean, row - 0.24, "D", color=INK, markersize=6)


def _figures(found: Comparison, pair: Pair) -> tuple[str, str]:
    """Return what to say of a pair, in two lines."""
    mean = f"{difference(found, pair.difference.mean)}   p (Holm) {p_value(pair.holm_p, '= ')}"
    equal = f", {pair.ties} equal" if pair.ties else ""
    return mean, f"{pair.wins} better, {pair.losses} worse{equal}"


def _rows(
    found: Comparison,
    title: str,
    note: str,
    names: Sequence[str],
    line: float,
    *,
    top: float = TOP,
    right: float = 0.3,
    cells: int = 0,
) -> "Axes":
    """Return axes with a row, ``line`` inches high, for each name, counted from the top.

    They are wide enough for so many ``cells``.
    """
    from matplotlib.figure import Figure

    shown = [_short(name, 2 * _LONGEST) for name in names]
    left = 0.35 + CHARACTER * max(map(len, shown))
    inner = max(WIDTH - left - right, CELL * cells)
    size = width, height = left + inner + right, top + line * len(names) + BOTTOM
    figure = Figure(size, facecolor="white")
    box = np.divide((left, BOTTOM, inner, line * len(names)), (*size, *size))
    axes = figure.add_axes(tuple(box))
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(range(len(names)), shown)
    for label in axes.get_yticklabels():
        label.set_parse_math(False)
    axes.tick_params(length=0, labelsize=10, colors=INK)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(MUTED)
    style: dict[str, Any] = {"va": "center", "parse_math": False}
    figure.text(GAP / width, 1 - 0.26 / height, title, size=13, color=INK, **style)
    figure.text(GAP / width, 1 - 0.52 / height, heading(found), size=9.5, color=MUTED, **style)
    figure.text(GAP / width, 0.2 / height, note, size=9.5, color=MUTED, **style)
    return axes


def _ruler(axes: "Axes", length: float, last: int) -> None:
    """Draw the critical difference at the top right, as long as it is."""
    end, up = last + 0.15, -0.72
    start = end - length
    axes.plot((start, end), (up, up), color=INK, linewidth=1.5, clip_on=False)
    for x in (start, end):
        axes.plot((x, x), (up - 0.1, up + 0.1), color=INK, linewidth=1.5, clip_on=False)
    _note(axes, (end, up), f"critical difference {length:.2f}", (0, 12), ha="right", color=INK)


def _note(
    axes: "Axes", place: tuple[float, float], text: str, offset: tuple[float, float], **style: Any
) -> None:
    settings: dict[str, Any] = {"va": "center", "size": 9, "annotation_clip": False} | style
    axes.annotate(text, place, xytext=offset, textcoords="offset points", **settings)


def _grid(axes: "Axes", shape: tuple[int, ...]) -> None:
    """Part the cells of a map by white lines."""
    for row in range(1, shape[0]):
        axes.axhline(row - 0.5, color="white", linewidth=2)
    for column in range(1, shape[1]):
        axes.axvline(column - 0.5, color="white", linewidth=2)
    axes.spines[:].set_visible(False)


def _cliques(places: NDArray[np.float64], apart: float) -> list[tuple[int, int]]:
    """Return first and last of the longest stretches of methods that no test tells apart.

    Args:
        places: Mean ranks in ascending order.
        apart: The critical difference.
    """
    ends = [int(np.flatnonzero(places <= place + apart)[-1]) for place in places]
    stretches = [(i, end) for i, end in enumerate(ends) if i == 0 or end > ends[i - 1]]
    return [(first, last) for first, last in stretches if last > first]


def _figure(axes: "Axes") -> "Figure":
    from matplotlib.figure import Figure

    assert isinstance(axes.figure, Figure)
    return axes.figure


def _short(text: str, length: int = _LONGEST) -> str:
    """Return a text, or its ends where it is longer: runs of a sweep differ in their last words."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[head + 1 - length :]}"

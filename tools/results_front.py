"""Draw what accuracy costs, from the records in ``docs/results``.

    python tools/results_front.py

One panel for each group of runs that had the same time, or as many steps. Records whose prediction
was not timed are left out.
"""

from collections.abc import Sequence
from math import ceil
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from results_page import RECORDS, called, dice_of, groups_of, interval_of, read_records

from lamina.report.comparison_pictures import BLUE, DPI, FAINT, INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE = RECORDS / "front.png"
_COLUMNS = 2
_PANEL = 4.6, 3.2  # inches
_LINE = 0.07  # share of a panel's height that a name takes


def main() -> None:
    """Draw the picture."""
    panels = {
        f"{name}, {group}": [record for record in records if "prediction" in record]
        for name, of_set in read_records().items()
        for group, records in groups_of(of_set).items()
        if group
    }
    draw({title: records for title, records in panels.items() if records}).savefig(PICTURE, dpi=DPI)


def draw(panels: dict[str, list[dict[str, Any]]]) -> Figure:
    """Return one panel for each title, networks as points: seconds a scan, and Dice."""
    rows = ceil(len(panels) / _COLUMNS)
    figure = Figure(figsize=(_COLUMNS * _PANEL[0], rows * _PANEL[1]), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).ravel()
    for ax, (title, records) in zip(axes, panels.items(), strict=False):
        _panel(ax, title, records)
    for ax in axes[len(panels) :]:
        ax.axis("off")
    return figure


def _panel(ax: "Axes", title: str, records: list[dict[str, Any]]) -> None:
    best = front(records)
    ax.plot(*zip(*map(_place, best), strict=True), color=BLUE, linewidth=1, zorder=1)
    for record in records:
        x, y = _place(record)
        interval = interval_of(record)
        if not interval.missing:
            ax.plot([x, x], [interval.low, interval.high], color=FAINT, linewidth=2, zorder=0)
        ax.plot(x, y, "o", color=BLUE if record in best else MUTED, markersize=5, zorder=2)
    ax.set_xlim(0, 1.1 * max(_place(record)[0] for record in records))
    _name(ax, records, best)
    ax.set_title(title, loc="left", fontsize=9, color=INK)
    ax.set_xlabel("Seconds a scan, one CPU thread", fontsize=8, color=MUTED)
    ax.set_ylabel("Dice", fontsize=8, color=MUTED)
    ax.tick_params(labelsize=7, colors=MUTED)
    ax.spines[["top", "right"]].set_visible(False)


def _name(ax: "Axes", records: list[dict[str, Any]], best: list[dict[str, Any]]) -> None:
    """Write the names beside the panel, each as near to the height of its point as room allows."""
    bottom, top = ax.get_ylim()
    upwards = sorted(records, key=dice_of)
    heights = [(dice_of(record) - bottom) / (top - bottom) for record in upwards]
    for record, level in zip(upwards, spread(heights), strict=True):
        ax.annotate(
            f"{called(record)}, {record['model_mb']:.0f} MB",
            _place(record),
            (1.03, level),
            textcoords="axes fraction",
            arrowprops={"arrowstyle": "-", "color": FAINT, "linewidth": 0.7, "zorder": 0},
            color=BLUE if record in best else MUTED,
            fontsize=7,
            va="center",
        )


def spread(heights: Sequence[float]) -> list[float]:
    """Return ascending heights, a line apart from each other at least, none at the very top."""
    levels: list[float] = []
    for height in heights:
        levels.append(max(height, levels[-1] + _LINE) if levels else height)
    limit = 0.97
    for place in reversed(range(len(levels))):
        levels[place] = min(levels[place], limit)
        limit = levels[place] - _LINE
    return levels


def front(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the records that no other beats in both time and Dice, the quickest first."""
    kept: list[dict[str, Any]] = []
    for record in sorted(records, key=lambda record: (_place(record)[0], -_place(record)[1])):
        if not kept or _place(record)[1] > _place(kept[-1])[1]:
            kept.append(record)
    return kept


def _place(record: dict[str, Any]) -> tuple[float, float]:
    return record["prediction"]["seconds"], dice_of(record)


if __name__ == "__main__":
    main()

"""Radar charts: several measures of several methods at one glance."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np

from lamina.colours import OKABE_ITO
from lamina.report.charts import DASHES, Chart, styled

_SIDE = 5.2
"""Inches."""
_NEVER_NARROWER = 10.0
_COLOURS = tuple(colour for colour in OKABE_ITO[::-1] if colour != "#F0E442")
"""Without the yellow, of which a thin line vanishes on white."""


def radar_chart(
    title: str, caption: str, axes: Sequence[str], lines: Mapping[str, Sequence[float]]
) -> Chart:
    """Draw one closed line per method; dashes tell lines apart where colours do not.

    All axes have the same scale, which ends at 100 and begins below the smallest value: what looks
    large here may be small, so the rings are labelled.

    Args:
        title: Of the chart.
        caption: What it shows.
        axes: Names of three measures or more.
        lines: Name -> percentages, one for each axis.
    """
    from matplotlib.figure import Figure

    angles = np.linspace(0, 2 * np.pi, len(axes), endpoint=False)
    smallest = min(min(values) for values in lines.values())
    low = max(0.0, min(10 * np.floor(smallest / 10 - 0.5), 100 - _NEVER_NARROWER))
    with styled():
        figure = Figure((_SIDE, _SIDE), layout="constrained")
        polar: Any = figure.add_subplot(projection="polar")
        polar.set_theta_zero_location("N")
        polar.set_theta_direction(-1)
        dashes = cycle(DASHES)
        for colour, (name, values) in zip(cycle(_COLOURS), lines.items(), strict=False):
            style: dict[str, Any] = {"color": colour, "linestyle": next(dashes), "linewidth": 1.8}
            closed = [*values, values[0]]
            polar.plot([*angles, angles[0]], closed, label=name, marker="o", markersize=3, **style)
        polar.set_xticks(angles, list(axes))
        polar.set_ylim(low, 100)
        polar.set_rlabel_position(180 / len(axes))
        polar.tick_params(pad=8)
        polar.spines["polar"].set_visible(False)
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
        figure.suptitle(title, size=11)
    return Chart(title, caption, figure)

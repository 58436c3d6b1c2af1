"""A chart of how far probabilities can be trusted."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.report.charts import LINE, MUTED, Chart, drawing, figure_of, name_lines

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

_FEWEST = 0.001
"""Share of a structure's voxels below which a bin says too little to be drawn."""


def reliability_chart(
    found: Mapping[str, NDArray[np.float64]], colours: Mapping[str, str]
) -> Chart:
    """Draw how often a structure is there, by the probability it was given (Guo et al. 2017).

    Args:
        found: Structure -> ``(3, bins)``: voxels, sum of their probabilities, and how many of them
            are of the structure.
        colours: Structure -> colour.
    """
    with drawing() as axes:
        axes.plot((0, 1), (0, 1), color=LINE, linewidth=1.5, zorder=0)
        drawn: dict[str, Line2D] = {}
        for label, (voxels, likely, there) in found.items():
            often = voxels > _FEWEST * voxels.sum()
            style: dict[str, Any] = {
                "color": colours.get(label, MUTED),
                "linewidth": 1.6,
                "markersize": 4,
            }
            line = likely[often] / voxels[often], there[often] / voxels[often]
            (drawn[label],) = axes.plot(*line, marker="o", **style)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("Probability")
        axes.set_ylabel("Share that is the structure")
        name_lines(axes, drawn, loc="lower right")
    told = (
        "Voxels in the boxes around each structure, all cases together. On the straight line the "
    )
    return Chart(
        "Reliability", f"{told}model is as sure as right, below it too sure.", figure_of(axes)
    )

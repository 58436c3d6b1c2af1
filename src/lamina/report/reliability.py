"""A chart of how far probabilities can be trusted."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.report.charts import LINE, MUTED, Chart, drawing, figure_of

_FEWEST = 0.001
"""Share of a structure's voxels below which a bin says too little to be drawn."""

_MANY = 8
"""Structures beyond which their names would cover the chart; the colours are those of the page."""


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
        for label, (voxels, likely, there) in found.items():
            often = voxels > _FEWEST * voxels.sum()
            style: dict[str, Any] = {
                "color": colours.get(label, MUTED),
                "linewidth": 1.6,
                "markersize": 4,
            }
            line = likely[often] / voxels[often], there[often] / voxels[often]
            axes.plot(*line, marker="o", label=label, **style)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("Probability")
        axes.set_ylabel("Share that is the structure")
        if len(found) <= _MANY:
            axes.legend(loc="lower right", fontsize=9)
    told = (
        "Voxels in the boxes around each structure, all cases together. On the straight line the "
    )
    return Chart(
        "Reliability", f"{told}model is as sure as right, below it too sure.", figure_of(axes)
    )

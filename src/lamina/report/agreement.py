"""A chart of how far predicted sizes agree with the true ones."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.evaluation.figures import decimals
from lamina.report.charts import INK, LINE, Chart, dots, drawing, figure_of
from lamina.report.sheets import signed

_LIMITS = 1.96
"""Limits of agreement in standard deviations: 95 % of differences, were they normal."""


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
    limits = [bias - _LIMITS * spread, bias + _LIMITS * spread]
    digits = decimals(max(map(abs, limits)), unit)
    with drawing() as axes:
        axes.scatter(mean, error, **dots(colour, cases))
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
    low, high = (signed(limit, digits) for limit in limits)
    told = f"Bias {signed(bias, digits)} {unit}, limits of agreement {low} to {high} {unit}"
    return Chart(label, f"{told}; {len(error)} cases.", figure_of(axes))

"""Metrics: one file each, and one rule for masks that are empty.

A metric compares two masks on one grid. What lies outside the arrays is background, so a structure
that touches the border has its surface there, and cropping to both structures changes nothing. What
an empty mask means is not the formula's business but a declared rule: wherever a metric has a
better direction, a missed or an invented structure takes its worst value, so that missing one never
improves a score.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lamina.registry import Registry

Mask = NDArray[np.bool_]
Unit = Literal["mm", "px"]
"""What lengths are measured in: pixels where pictures do not tell how large theirs are."""
Outcome = float | Literal["computed", "not applicable", "grid diagonal"]
"""A value; the formula's own; NaN, kept out of means and counted; or the grid's diagonal."""
EmptyCase = Literal["", "prediction empty", "reference empty", "both empty"]
"""Which masks of a comparison were empty; ``""`` when neither was."""


def empty_case(prediction: Mask, reference: Mask) -> EmptyCase:
    """Tell which of two masks are empty."""
    if prediction.any():
        return "" if reference.any() else "reference empty"
    return "prediction empty" if reference.any() else "both empty"


@dataclass(frozen=True, kw_only=True)
class EmptyRule:
    """What stands in for a metric's value when a mask is empty."""

    prediction_empty: Outcome
    """The structure was missed."""
    reference_empty: Outcome
    """The structure was invented."""
    both_empty: Outcome = "not applicable"
    """The structure was rightly left out."""

    def outcome(self, case: EmptyCase) -> Outcome:
        """Return what the rule says about a case; ``"computed"`` when no mask is empty."""
        outcomes: dict[EmptyCase, Outcome] = {
            "": "computed",
            "prediction empty": self.prediction_empty,
            "reference empty": self.reference_empty,
            "both empty": self.both_empty,
        }
        return outcomes[case]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


ZERO_WHEN_WRONG = EmptyRule(prediction_empty=0.0, reference_empty=0.0)
"""For overlaps between 0 and 1."""
DIAGONAL_WHEN_WRONG = EmptyRule(prediction_empty="grid diagonal", reference_empty="grid diagonal")
"""For distances: no two voxels of the grid are further apart than its diagonal."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A comparison of two masks and everything a reader must know to use its value."""

    name: str
    title: str
    """How tables call it, with its parameters."""
    unit: Literal["", "mm", "ml", "px"]
    higher_is_better: bool | None
    """None for signed errors, which have no better direction."""
    definition: str
    """One sentence that tells it from its namesakes."""
    empty: EmptyRule
    function: Callable[[Mask, Mask, Sequence[float]], float]
    """``(prediction (*S), reference (*S), spacing) -> value``; called if the rule says so."""
    in_pixels: "Metric | None" = None
    """What takes its place where lengths are in pixels; None if it has nothing to do with them."""

    def measured_in(self, unit: Unit) -> "Metric":
        """Return the metric whose name and unit say what lengths are measured in."""
        return self.in_pixels if unit == "px" and self.in_pixels else self

    def value(
        self, prediction: Mask, reference: Mask, spacing: Sequence[float], diagonal: float
    ) -> float:
        """Compare two masks under the metric's empty-mask rule.

        Args:
            prediction: Mask ``(*S)`` of two or three axes.
            reference: Mask of the same shape.
            spacing: Voxel size along each axis, in mm or pixels.
            diagonal: The whole grid's diagonal, also when the masks are cropped from it.

        Returns:
            The value in ``unit``; NaN when the metric does not apply.
        """
        outcome = self.empty.outcome(empty_case(prediction, reference))
        if outcome == "computed":
            return float(self.function(prediction, reference, spacing))
        if outcome == "grid diagonal":
            return diagonal
        return float("nan") if isinstance(outcome, str) else outcome


METRICS: Registry[Metric] = Registry("metric", __name__)

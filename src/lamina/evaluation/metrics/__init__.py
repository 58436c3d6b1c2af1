"""Metrics: one file each, and one rule for masks that are empty.

A metric compares two masks on one grid. What lies outside the arrays is background, so a structure
that touches the border has its surface there, and cropping to both structures changes nothing. What
an empty mask means is not the formula's business but a declared rule: wherever a metric has a
better direction, a missed or an invented structure takes its worst value, so that missing one never
improves a score.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from lamina.evaluation.comparison import Comparison, EmptyCase
from lamina.registry import Registry

Unit = Literal["mm", "px"]
"""What lengths are measured in: pixels where pictures do not tell how large theirs are."""
Outcome = float | Literal["computed", "not applicable", "grid diagonal", "grid volume"]
"""A value; the formula's own; NaN, kept out of means and counted; or what the grid measures."""


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


def when_wrong(worst: Outcome) -> EmptyRule:
    """Return the rule that a missed and an invented structure are as bad as can be."""
    return EmptyRule(prediction_empty=worst, reference_empty=worst)


ZERO_WHEN_WRONG = when_wrong(0.0)
"""For overlaps between 0 and 1."""
DIAGONAL_WHEN_WRONG = when_wrong("grid diagonal")
"""For distances: no two voxels of the grid are further apart than its diagonal."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A comparison of two masks and everything a reader must know to use its value."""

    name: str
    title: str
    """How tables call it, with its parameters."""
    unit: Literal["", "mm", "ml", "px", "%", "voxels"]
    higher_is_better: bool | None
    """None for signed errors, which have no better direction."""
    definition: str
    """One sentence that tells it from its namesakes."""
    empty: EmptyRule
    function: Callable[[Comparison], float]
    """Called if the rule says so."""
    in_pixels: "Metric | None" = None
    """What takes its place where lengths are in pixels; None if it has nothing to do with them."""
    counts_background: bool = False
    """Whether the voxels in neither mask count, so that a larger grid changes the value."""
    needs_probability: bool = False
    """Whether it compares probabilities rather than a mask with the reference."""

    @property
    def best(self) -> float:
        """The best value there can be."""
        return 1.0 if self.higher_is_better else 0.0

    def measured_in(self, unit: Unit) -> "Metric":
        """Return the metric whose name and unit say what lengths are measured in."""
        return self.in_pixels if unit == "px" and self.in_pixels else self

    def value(self, comparison: Comparison) -> float:
        """Return the comparison's value in ``unit`` under the metric's empty-mask rule.

        It is NaN where the metric does not apply.
        """
        outcome = self.empty.outcome(comparison.empty)
        if outcome == "computed":
            return float(self.function(comparison))
        if outcome == "grid diagonal":
            return comparison.diagonal
        if outcome == "grid volume":
            return comparison.num_voxels * (comparison.voxel_ml if self.unit == "ml" else 1.0)
        return float("nan") if isinstance(outcome, str) else outcome


METRICS: Registry[Metric] = Registry("metric", __name__)

"""The range of the scans that a model was trained on, by which it knows a scan unlike them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from math import log, prod
from typing import Any, Literal

import numpy as np
from scipy.special import stdtrit

from lamina.config import resolve
from lamina.data.fingerprint import Fingerprint
from lamina.data.plan import Normalisation, Plan
from lamina.errors import ConfigError

LEVELS = ("p00_5", "median", "p99_5")
"""Percentiles of a scan's intensities that are looked at."""
KEY = "ranges"
"""Where a bundle's record of its training has them."""

_COVERED = 0.999
"""Part of scans like those of training that an expected range holds."""
_SLACK = log(1.1)
"""A tenth more or less never matters, however alike the training scans are."""
_SLACK_DEVIATIONS = 0.25
_SLACK_WINDOW = 0.1
_WIDEST = log(1000)


@dataclass(frozen=True, kw_only=True)
class Range:
    """What was seen of a quantity in training, and what may then be expected."""

    low: float
    """Least value that was seen."""
    high: float
    least: float
    """Least value that one more such scan has but once in a thousand; no higher than ``low``."""
    most: float

    def holds(self, value: float) -> bool:
        """Tell whether a value is to be expected."""
        return self.least <= value <= self.most

    def joined(self, other: "Range") -> "Range":
        """Return the range that holds both."""
        return Range(
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            least=min(self.least, other.least),
            most=max(self.most, other.most),
        )


@dataclass(frozen=True, kw_only=True)
class Ranges:
    """Ranges of everything that can be told of a scan before anybody looks at it."""

    cases: int
    """Scans that it was trained on."""
    unit: Literal["mm", "px"]
    spacing: tuple[Range, ...]
    """In ``unit`` along each axis, of volumes in the order right, front, head."""
    extent: tuple[Range, ...]
    """Length of what is not background, likewise."""
    intensity: tuple[dict[str, Range], ...]
    """Of each channel, percentile by percentile, as :func:`levels_of` has them."""
    size: dict[str, Range]
    """Of each structure, in cubic (square) ``unit``, in the scans that have it."""
    absent: dict[str, int]
    """Structure -> scans that lack it."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

    def joined(self, other: "Ranges") -> "Ranges":
        """Return the ranges of two models that decide together."""
        return Ranges(
            cases=max(self.cases, other.cases),
            unit=self.unit,
            spacing=tuple(map(Range.joined, self.spacing, other.spacing)),
            extent=tuple(map(Range.joined, self.extent, other.extent)),
            intensity=tuple(map(_joined, self.intensity, other.intensity)),
            size=_joined(self.size, other.size),
            absent={name: max(n, other.absent.get(name, 0)) for name, n in self.absent.items()},
        )


def ranges_of(training: Mapping[str, Any], plan: Plan) -> Ranges | None:
    """Return what a bundle's record of its training holds; ``None`` for models that are older.

    Raises:
        ConfigError: It is not as training wrote it, or not of such scans as the plan is for.
    """
    if KEY in training:
        return _checked(resolve(Ranges, training[KEY]), plan)
    members = [ranges_of(member, plan) for member in training.get("members", {}).values()]
    known = [ranges for ranges in members if ranges is not None]
    return reduce(Ranges.joined, known) if known and len(known) == len(members) else None


def training_ranges(found: Fingerprint, plan: Plan, cases: Iterable[str]) -> Ranges | None:
    """Return the ranges of the cases that a model is trained on; ``None`` if it knows none of them.

    Args:
        found: Of all cases.
        plan: Whose normalisation says what intensities mean to the network.
        cases: Ids of those that it is trained on.
    """
    wanted = set(cases)
    facts = [case for case in found.cases if case.case_id in wanted]
    if not facts:
        return None
    dims = found.spatial_dims
    lengths = [tuple(np.multiply(case.shape, case.spacing)) for case in facts]
    sizes = {
        name: [case.voxels.get(name, 0) * prod(case.spacing) for case in facts]
        for name in plan.labels.foreground
    }
    present = {name: [size for size in of_cases if size] for name, of_cases in sizes.items()}
    return Ranges(
        cases=len(facts),
        unit=found.unit,
        spacing=tuple(_of_ratios([c.spacing[axis] for c in facts]) for axis in range(dims)),
        extent=tuple(_of_ratios([length[axis] for length in lengths]) for axis in range(dims)),
        intensity=tuple(
            _of_channel([case.intensity[channel] for case in facts], how)
            for channel, how in enumerate(plan.normalisation)
        ),
        size={name: _of_ratios(those) for name, those in present.items() if those},
        absent={name: len(facts) - len(those) for name, those in present.items()},
    )


def levels_of(intensity: Mapping[str, float], how: Normalisation) -> dict[str, float]:
    """Return percentiles of a scan as the network is concerned by them.

    Where all scans are normalised by the same numbers, as CT is, they stay as they are; where each
    is by its own, they are deviations from its mean, in standard deviations.
    """
    if how.scheme == "ct":
        return {name: intensity[name] for name in LEVELS}
    spread = intensity["std"] or 1.0
    return {name: (intensity[name] - intensity["mean"]) / spread for name in LEVELS}


def _checked(ranges: Ranges, plan: Plan) -> Ranges:
    axes, channels = len(ranges.spacing), len(ranges.intensity)
    if (
        (axes, channels) != (plan.spatial_dims, len(plan.channels))
        or len(ranges.extent) != axes
        or any(levels.keys() != set(LEVELS) for levels in ranges.intensity)
    ):
        raise ConfigError(
            f"ranges: are of {axes} axes and {channels} channels, or lack some; the plan has "
            f"{plan.spatial_dims} and {len(plan.channels)}."
        )
    return ranges


def _of_channel(facts: Sequence[Mapping[str, float]], how: Normalisation) -> dict[str, Range]:
    slack = _SLACK_WINDOW * (how.high - how.low) if how.scheme == "ct" else _SLACK_DEVIATIONS
    levels = [levels_of(each, how) for each in facts]
    return {name: _fitted([level[name] for level in levels], slack) for name in LEVELS}


def _of_ratios(values: Sequence[float]) -> Range:
    """Return the range of sizes, which vary by factors."""
    logs = _fitted([log(value) for value in values], _SLACK)
    least, most = max(logs.least, logs.low - _WIDEST), min(logs.most, logs.high + _WIDEST)
    return Range(
        low=min(values), high=max(values), least=float(np.exp(least)), most=float(np.exp(most))
    )


def _fitted(values: Sequence[float], slack: float) -> Range:
    """Return the range of values, and the prediction interval of a normal distribution around it.

    Of few values the interval is wide: they say little about the next.
    """
    n, low, high = len(values), min(values), max(values)
    spread = float(np.std(values, ddof=1)) if n > 1 else 0.0
    margin = (
        float(stdtrit(n - 1, (1 + _COVERED) / 2)) * spread * (1 + 1 / n) ** 0.5 if spread else 0
    )
    middle = float(np.mean(values))
    return Range(
        low=low,
        high=high,
        least=min(low - slack, middle - margin),
        most=max(high + slack, middle + margin),
    )


def _joined(one: Mapping[str, Range], other: Mapping[str, Range]) -> dict[str, Range]:
    shared = {name: one[name].joined(other[name]) for name in one if name in other}
    return {**other, **one, **shared}

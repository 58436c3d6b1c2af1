"""Several methods on one measure and the same patients: all figures, and when not to trust them."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.evaluation.statistics import ALPHA, DIGITS
from lamina.evaluation.statistics.intervals import Interval, caution_of, mean_interval
from lamina.evaluation.statistics.paired import holm, patients_needed, signed_rank
from lamina.evaluation.statistics.ranking import Friedman, Stability, friedman, nemenyi, stability
from lamina.evaluation.statistics.seeds import SeedSpread, seed_spread

Values = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What is compared."""

    measure: str
    """Such as ``Dice, mean over the structures``."""
    unit: str
    higher_is_better: bool
    patients: tuple[str, ...]
    num_cases: int
    """Scans of these patients."""
    remarks: tuple[str, ...] = ()
    """What was left out or replaced, and what could not be checked, as sentences."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """What one method reaches."""

    name: str
    interval: Interval
    """Mean over the patients."""
    stability: Stability
    seeds: SeedSpread | None
    """Where there are two trainings or more; a patient's value is then their mean."""
    values: tuple[float, ...]
    """Of each patient."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two methods, the one with the better mean first."""

    first: str
    second: str
    difference: Interval
    """Mean of first minus second over the patients."""
    wins: int
    """Patients on whom the first is better."""
    ties: int
    losses: int
    p: float
    """Wilcoxon signed-rank, two-sided."""
    holm_p: float
    """Corrected for the number of pairs."""
    effect: float
    """Matched-pairs rank-biserial correlation, -1..1; above zero where the first is better."""
    nemenyi_p: float | None
    """Where there is a critical difference."""

    @property
    def significant(self) -> bool:
        """Whether the corrected p-value is below 5 %."""
        return self.holm_p < ALPHA


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All figures of a comparison."""

    subject: Subject
    methods: tuple[Method, ...]
    """Best mean first."""
    pairs: tuple[Pair, ...]
    """In the order of the methods."""
    friedman: Friedman | None
    """Where there are three methods or more; mean ranks in the order of the methods."""

    @property
    def cautions(self) -> tuple[str, ...]:
        """Sentences on what these figures cannot tell."""
        return (*_of_size(self), *_of_seeds(self), *_of_disagreement(self))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; NaN becomes None."""
        plain: dict[str, Any] = _plain(asdict(self))
        for pair, found in zip(plain["pairs"], self.pairs, strict=True):
            pair["significant"] = found.significant
        return plain | {"cautions": list(self.cautions)}


def compare_methods(subject: Subject, values: Mapping[str, Values]) -> Comparison:
    """Compare methods on the same patients.

    Args:
        subject: What the values are.
        values: Method -> ``(seeds, patients)``, none of them NaN, patients as in ``subject``.
    """
    higher = subject.higher_is_better
    means = {name: found.mean(axis=0) for name, found in values.items()}

    def badness(name: str) -> float:
        mean = round(float(means[name].mean()), DIGITS)
        return -mean if higher else mean

    order = sorted(values, key=badness)
    table = np.stack([means[name] for name in order])
    methods = tuple(
        Method(
            name=name,
            interval=mean_interval(means[name]),
            stability=found,
            seeds=seed_spread(values[name]) if len(values[name]) > 1 else None,
            values=tuple(float(value) for value in means[name]),
        )
        for name, found in zip(order, stability(table, higher), strict=True)
    )
    ranks = friedman(table, higher) if len(order) > 2 else None
    return Comparison(
        subject=subject, methods=methods, pairs=_pairs(order, table, higher, ranks), friedman=ranks
    )


def _pairs(
    names: Sequence[str], table: Values, higher: bool, ranks: Friedman | None
) -> tuple[Pair, ...]:
    places = list(combinations(range(len(names)), 2))
    sign = 1 if higher else -1
    tests = [signed_rank(sign * (table[i] - table[j])) for i, j in places]
    corrected = holm([test.p for test in tests])
    of_ranks = None
    if ranks and ranks.critical_difference is not None:
        of_ranks = nemenyi(ranks.mean_ranks, table.shape[1])
    return tuple(
        Pair(
            first=names[i],
            second=names[j],
            difference=mean_interval(table[i] - table[j]),
            wins=test.positive,
            ties=test.zero,
            losses=test.negative,
            p=test.p,
            holm_p=p,
            effect=test.rank_biserial,
            nemenyi_p=None if of_ranks is None else float(of_ranks[i, j]),
        )
        for (i, j), test, p in zip(places, tests, corrected, strict=True)
    )


def _of_size(found: Comparison) -> Iterator[str]:
    n, tests = len(found.subject.patients), len(found.pairs)
    needed = patients_needed(tests)
    if n < needed:
        of = "" if tests == 1 else f" with {tests} pairs of methods"
        yield (
            f"With {_count(n, 'patient')} no difference can become significant, however large: "
            f"the test takes at least {needed}{of}."
        )
    if few := caution_of([n]):
        yield few


def _of_seeds(found: Comparison) -> Iterator[str]:
    single = [method.name for method in found.methods if method.seeds is None]
    if single:
        whose = "each method" if len(single) == len(found.methods) else ", ".join(single)
        yield f"One training of {whose}: another seed may reverse small differences."
    spread = {method.name: method.seeds.between for method in found.methods if method.seeds}
    for pair in found.pairs:
        both = max(spread.get(pair.first, 0.0), spread.get(pair.second, 0.0))
        if pair.significant and abs(pair.difference.mean) < both:
            yield (
                f"{pair.first} and {pair.second} differ by less than seeds of one of them do: "
                "a test over patients cannot see that."
            )


def _of_disagreement(found: Comparison) -> Iterator[str]:
    """Name pairs whose means and ranks point in opposite directions."""
    for pair in found.pairs:
        clear = pair.p < ALPHA or not pair.difference.low <= 0 <= pair.difference.high
        if pair.effect < 0 and clear and not pair.difference.missing:
            yield (
                f"{pair.first} has the better mean, but the test over patients favours "
                f"{pair.second} ({pair.wins} patients better, {pair.losses} worse): a few of them "
                "decide about the mean. Look at these."
            )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + "s" * (number != 1)


def _plain(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return None if isinstance(data, float) and math.isnan(data) else data

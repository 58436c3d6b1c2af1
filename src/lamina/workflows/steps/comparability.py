"""Whether several scores can be compared, and what a reader must know of the cases behind them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, combinations
from pathlib import Path

from lamina.errors import DatasetError, some
from lamina.evaluation.statistics.pairing import Paired
from lamina.folders.evaluation import Evaluation, unrecorded_told

_NAMED = 5
"""Cases that are listed before the others are only counted."""

_NTH = ("first", "second")


def check_comparable(evaluations: Sequence[Evaluation], metric: str) -> None:
    """Refuse scores that answer different questions.

    Raises:
        DatasetError: Two of them differ in structures, the metric's definition or rules, cases,
            references, or in which patients these are of.
    """
    for first, other in combinations(evaluations, 2):
        for fault, remedy in (
            (_structures(first, other), "Score both with labels that say the same."),
            (_rules(first, other, metric), f"Score both with one version of Lamina and {metric}."),
            (_cases(first, other), "Segment the same cases with both, and score them again."),
            (_references(first, other), "Score both against the same references."),
            (_patients(first, other), "Mend the dataset that is wrong; segment and score again."),
        ):
            if fault:
                raise DatasetError(f"{first.path} and {other.path}: {fault}", remedy=remedy)


def remarks(
    methods: Mapping[str, Sequence[Path]],
    evaluations: Sequence[Evaluation],
    found: Paired,
    structures: Sequence[str],
    best: float,
) -> Iterator[str]:
    """Say which cases count and which do not, and what could not be checked.

    Args:
        methods: Name -> where its evaluations came from, in their order.
        evaluations: Of all methods.
        found: Their values, case by case.
        structures: The ones that are compared.
        best: The best value there can be.
    """
    tried = frozenset[str]().union(*(e.tried for e in evaluations))
    lost = tried - {*found.cases, *found.not_applicable}
    if idle := frozenset[str]().union(*(e.cases for e in evaluations)) - tried:
        yield f"References for which no method has a segmentation: {_named(idle)}."
    if lost:
        lacking = _per_method(methods, [len(lost - e.present.keys()) for e in evaluations])
        yield f"Left out, because a score is missing: {_named(lost)}. Missing: {lacking}."
    if found.not_applicable:
        yield (
            "Left out, because there is nothing to find and nobody found anything: "
            f"{_named(found.not_applicable)}."
        )
    if found.granted:
        yield (
            f"Who rightly found nothing where another invented something gets {best:g}: "
            f"{_named(found.granted)}."
        )
    compared = {(case, name) for case in found.cases for name in structures}
    missed = [len(e.missed & compared) for e in evaluations]
    if any(missed):
        told = _per_method(methods, missed)
        yield f"Structures that were missed, and count as the metric's rule says: {told}."
    versions = {e.scores.version or "one that does not say" for e in evaluations}
    if len(versions) > 1:
        yield f"Measured by different versions of Lamina: {', '.join(sorted(versions))}."
    yield from _unchecked(evaluations, found.cases)


def _unchecked(evaluations: Sequence[Evaluation], cases: Sequence[str]) -> Iterator[str]:
    if not all(set(cases) <= e.references.keys() for e in evaluations):
        yield (
            "That the references are the same was checked by the structures they have, no further: "
            "some of these scores do not say more."
        )
    recorded = dict(chain.from_iterable(e.patients.items() for e in evaluations))
    if told := unrecorded_told(cases, recorded):
        yield told


def _structures(first: Evaluation, other: Evaluation) -> str:
    names = [
        (list(e.scores.labels.values), e.scores.labels.regions, e.scores.labels.ignore)
        for e in (first, other)
    ]
    one, two = (", ".join(values) for values, _, _ in names)
    if one != two:
        return f"structures differ: {one} in one, {two} in the other."
    return "" if names[0] == names[1] else "regions, or what is ignored, differ."


def _rules(first: Evaluation, other: Evaluation, metric: str) -> str:
    if metric not in other.metrics:
        return f"{metric} is missing in the second."
    for name, rule in first.metrics[metric].items():
        if rule != other.metrics[metric][name]:
            return f"{metric}: {name} differs: {rule} and {other.metrics[metric][name]}."
    return ""


def _cases(first: Evaluation, other: Evaluation) -> str:
    """Tell of cases that one was tried on and the other knows nothing of."""
    only = [sorted(first.tried - other.cases), sorted(other.tried - first.cases)]
    parts = [f"{_named(cases)} only in the {nth}" for cases, nth in zip(only, _NTH, strict=True)]
    told = ", ".join(part for part, cases in zip(parts, only, strict=True) if cases)
    return f"cases differ: {told}." if told else ""


def _references(first: Evaluation, other: Evaluation) -> str:
    for case in sorted(first.present.keys() & other.present.keys()):
        known = {e.references[case] for e in (first, other) if case in e.references}
        if len(known) > 1 or first.present[case] != other.present[case]:
            return f"{case} was scored against different references."
    return ""


def _patients(first: Evaluation, other: Evaluation) -> str:
    for case in sorted(first.patients.keys() & other.patients.keys()):
        if first.patients[case] != other.patients[case]:
            whose = f"{first.patients[case]} and {other.patients[case]}"
            return f"{case} is said to be of different patients, {whose}."
    return ""


def _per_method(methods: Mapping[str, Sequence[Path]], counts: Sequence[int]) -> str:
    """Add up counts of evaluations, method by method."""
    left = iter(counts)
    return ", ".join(f"{name} {sum(next(left) for _ in paths)}" for name, paths in methods.items())


def _named(cases: frozenset[str] | set[str] | Sequence[str]) -> str:
    return f"{len(cases)} case{'s' * (len(cases) != 1)} ({some(sorted(cases), _NAMED)})"

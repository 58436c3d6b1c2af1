"""Scores of a row's trainings: values of cases and patients, and what two rows differ by."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from lamina.evaluation.metrics import METRICS
from lamina.evaluation.protocols import find_metric
from lamina.evaluation.statistics.pairing import ByCase, grant, mean_over, pair
from lamina.study.schema import CHANNELS, Column, Study


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The scores of one training of a row."""

    seed: int
    structures: tuple[str, ...]
    """Those that a mean is over where a column names none."""
    values: Mapping[str, Mapping[str, Mapping[str, float]]]
    """Metric -> case -> structure or region -> value; NaN where the metric does not apply."""
    patients: Mapping[str, str]
    """Case -> patient."""
    failed: int = 0
    """Cases that could not be scored."""


def by_patient(column: Column, trainings: Sequence[Scored]) -> dict[str, float]:
    """Return each patient's mean over scans, then over the trainings that have scored them."""
    found: dict[str, list[float]] = {}
    for training in trainings:
        for patient, value in patients_of(column, training).items():
            found.setdefault(patient, []).append(value)
    return {patient: fmean(values) for patient, values in found.items()}


def patients_of(column: Column, training: Scored) -> dict[str, float]:
    """Return each patient's mean over scans in one training."""
    found: dict[str, list[float]] = {}
    for case, value in _case_values(column, training).items():
        found.setdefault(training.patients[case], []).append(value)
    return {patient: fmean(values) for patient, values in found.items()}


def by_case(column: Column, trainings: Sequence[Scored]) -> dict[str, float]:
    """Return each case's mean over the trainings that have scored it."""
    found: dict[str, list[float]] = {}
    for training in trainings:
        for case, value in _case_values(column, training).items():
            found.setdefault(case, []).append(value)
    return {case: fmean(values) for case, values in found.items()}


def differences(
    study: Study, column: Column, ours: Sequence[Scored], theirs: Sequence[Scored]
) -> dict[str, float]:
    """Return ours minus theirs on each patient that both have, paired as methods are compared."""
    best = _best(study, column)
    given = grant([_structures_of(column, training) for training in (*ours, *theirs)], best)
    sides = [_over_trainings(each) for each in (given[: len(ours)], given[len(ours) :])]
    patients = dict(item for training in (*ours, *theirs) for item in training.patients.items())
    found = pair(sides, patients, best)
    return dict(zip(found.patients, map(float, found.values[0] - found.values[1]), strict=True))


def _case_values(column: Column, training: Scored) -> dict[str, float]:
    """Return a column's value of each case; cases to which it does not apply are left out."""
    rows = _structures_of(column, training)
    means = {case: mean_over(row, [*row]) for case, row in rows.items()}
    return {case: value for case, value in means.items() if not math.isnan(value)}


def _structures_of(column: Column, training: Scored) -> ByCase:
    """Return what a column is the mean of, for each case that has all of it."""
    names = ("",) if column.metric == CHANNELS else column.of or training.structures
    rows = training.values.get(column.metric, {})
    known = {case: row for case, row in rows.items() if set(names) <= row.keys()}
    return {case: {name: row[name] for name in names} for case, row in known.items()}


def _best(study: Study, column: Column) -> float:
    if column.metric == CHANNELS:
        return 1.0
    own = None if column.metric in METRICS else study.protocol
    return find_metric(column.metric, own).best


def _over_trainings(given: Sequence[ByCase]) -> ByCase:
    """Return the mean of each case's rows over the trainings that have scored it."""
    rows: dict[str, list[Mapping[str, float]]] = {}
    for values in given:
        for case, row in values.items():
            rows.setdefault(case, []).append(row)
    return {
        case: {name: fmean(row[name] for row in those) for name in those[0]}
        for case, those in rows.items()
    }

"""How sure the means of one evaluation are, structure by structure."""

import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from lamina.evaluation.scores import Scores
from lamina.evaluation.statistics.intervals import Interval, mean_interval

MEAN = ""
"""Stands for the mean over the structures of each case."""


def intervals_of(
    scores: Scores, patients: Mapping[str, str], metrics: tuple[str, ...]
) -> dict[str, dict[str, Interval]]:
    """Return the mean of patients, and its interval, by structure or region and by metric.

    Scans of one patient are averaged first.

    Args:
        scores: Of all cases.
        patients: Case -> patient; a case that is missing is a patient of its own.
        metrics: Names of those that count, as the rows have them.

    Returns:
        Structure, region or :data:`MEAN` -> metric -> interval.
    """
    found: dict[str, dict[str, list[tuple[str, float]]]] = defaultdict(lambda: defaultdict(list))
    for row in scores.rows:
        if row.metric in metrics and not math.isnan(row.value):
            found[row.label][row.metric].append((row.case, row.value))
    for metric in metrics:
        found[MEAN][metric] = [*scores.case_means(metric).items()]
    return {
        label: {metric: _of_patients(values, patients) for metric, values in of_label.items()}
        for label, of_label in found.items()
    }


def _of_patients(values: list[tuple[str, float]], patients: Mapping[str, str]) -> Interval:
    by_patient: dict[str, list[float]] = defaultdict(list)
    for case, value in values:
        by_patient[patients.get(case, case)].append(value)
    return mean_interval(np.array([np.mean(those) for those in by_patient.values()]))

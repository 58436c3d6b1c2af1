"""From scores of scans to one table of values that all methods have, patient by patient."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What several evaluations found on the same patients, and what became of the other cases."""

    values: NDArray[np.float64]
    """``(evaluations, patients)``: the mean over a patient's cases."""
    patients: tuple[str, ...]
    cases: tuple[str, ...]
    """Those that count."""
    incomplete: tuple[str, ...]
    """Cases left out, because an evaluation lacks them."""
    not_applicable: tuple[str, ...]
    """Cases left out, because there is nothing to measure in any evaluation."""
    granted: tuple[str, ...]
    """Cases in which an evaluation had nothing to measure and was given the best value."""


def pair(
    found: Sequence[Mapping[str, float]], patient_of: Mapping[str, str], best: float
) -> Paired:
    """Bring evaluations onto the same patients.

    A case counts if all evaluations have it. NaN means that a structure is absent and was rightly
    left out; where another evaluation invented it, that is the best a method can do, so that
    leaving the case out would favour the one that was wrong.

    Args:
        found: For each evaluation, case -> value.
        patient_of: Case -> patient.
        best: The best value there can be.
    """
    everything = sorted({case for values in found for case in values})
    complete = [case for case in everything if all(case in values for values in found)]
    table = np.array([[values[case] for case in complete] for values in found], np.float64)
    absent = np.isnan(table)
    counts, granted = ~absent.all(axis=0), absent.any(axis=0) & ~absent.all(axis=0)
    names = np.array(complete, dtype=object)
    cases, kept = names[counts], np.where(absent, best, table)[:, counts]
    owners = [patient_of[case] for case in cases]
    patients = tuple(dict.fromkeys(owners))
    columns = [[i for i, owner in enumerate(owners) if owner == p] for p in patients]
    means = [kept[:, column].mean(axis=1) for column in columns]
    return Paired(
        values=np.stack(means, axis=1) if means else np.empty((len(found), 0)),
        patients=patients,
        cases=tuple(cases),
        incomplete=tuple(case for case in everything if case not in set(complete)),
        not_applicable=tuple(names[~counts]),
        granted=tuple(names[granted]),
    )


def mean_over(values: Mapping[str, float], structures: Sequence[str]) -> float:
    """Return the mean over those structures that a metric applies to, NaN if over none.

    Args:
        values: Structure -> value of one case.
        structures: The ones that count.
    """
    defined = [values[name] for name in structures if not math.isnan(values[name])]
    if not defined:
        return math.nan
    return float(np.mean(defined))

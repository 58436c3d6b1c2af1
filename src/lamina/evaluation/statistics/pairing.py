"""From scores of scans to one table of values that all methods have, patient by patient."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ByCase = Mapping[str, Mapping[str, float]]
"""Of one evaluation: case -> structure -> value."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What several evaluations found on the same patients, and what became of the other cases."""

    values: NDArray[np.float64]
    """``(evaluations, patients)``: the mean over a patient's cases."""
    patients: tuple[str, ...]
    cases: tuple[str, ...]
    """Those that count."""
    not_applicable: tuple[str, ...]
    """Cases left out, because there is nothing to measure in any evaluation."""
    granted: tuple[str, ...]
    """Cases in which an evaluation rightly found nothing and was given the best value for it."""


def pair(found: Sequence[ByCase], patient_of: Mapping[str, str], best: float) -> Paired:
    """Bring evaluations onto the same patients.

    A case counts if all evaluations have it, with the mean over those structures that are there or
    that some evaluation invented (see :func:`grant`).

    Args:
        found: Evaluations, with the structures that count.
        patient_of: Case -> patient.
        best: The best value there can be.
    """
    complete = sorted(set.intersection(*map(set, found)))
    given = grant(found, best)
    table = np.array([[mean_over(v[case], [*v[case]]) for case in complete] for v in given])
    counts = ~np.isnan(table).any(axis=0)
    names = np.array(complete, dtype=object)
    cases, kept = names[counts], table[:, counts]
    owners = [patient_of[case] for case in cases]
    patients = tuple(dict.fromkeys(owners))
    columns = [[i for i, owner in enumerate(owners) if owner == p] for p in patients]
    means = [kept[:, column].mean(axis=1) for column in columns]
    return Paired(
        values=np.stack(means, axis=1) if means else np.empty((len(found), 0)),
        patients=patients,
        cases=tuple(cases),
        not_applicable=tuple(names[~counts]),
        granted=tuple(c for c in cases if len({_defined(v[c]) for v in found}) > 1),
    )


def grant(found: Sequence[ByCase], best: float) -> list[ByCase]:
    """Give the best value to who rightly found nothing where another invented something.

    NaN means that a structure is absent and was rightly left out. That is the best a method can do;
    to leave the structure out would favour the one that was wrong. What nobody found stays NaN.

    Args:
        found: Evaluations; one may lack cases that others have.
        best: The best value there can be.
    """
    met = {
        (case, name)
        for values in found
        for case, row in values.items()
        for name, value in row.items()
        if not math.isnan(value)
    }

    def granted(case: str, name: str, value: float) -> float:
        return best if math.isnan(value) and (case, name) in met else value

    return [
        {
            case: {name: granted(case, name, value) for name, value in row.items()}
            for case, row in values.items()
        }
        for values in found
    ]


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


def _defined(row: Mapping[str, float]) -> frozenset[str]:
    return frozenset(name for name, value in row.items() if not math.isnan(value))

"""Who stands in which fold: patients are dealt out in rounds, one to every fold.

Where it is known how much of each structure a scan holds, each goes where it evens out the folds'
numbers of scans, of scans with each structure, and the sizes of these.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lamina.data.case import Case
from lamina.errors import DatasetError

Strata = Mapping[str, Mapping[str, float]]
"""Case id -> structure -> how much of it there is, such as ``CaseFacts.voxels``."""


def traits_of(
    cases: Sequence[Case], groups: Sequence[str], strata: Strata | None
) -> NDArray[np.float64]:
    """Return what each group adds to a fold ``(groups, traits)``, with mean 0 and deviation 1000.

    These are whole numbers, so that the order of adding them decides nothing. Without ``strata``
    there are no traits.

    Raises:
        DatasetError: ``strata`` lacks a case.
    """
    if strata is None:
        return np.zeros((len(groups), 0))
    if strange := [case.case_id for case in cases if case.case_id not in strata]:
        raise DatasetError(f"strata: {len(strange)} cases are not in them: {strange[:5]}.")
    ordered = sorted(cases, key=lambda case: case.case_id)
    names = sorted({name for case in ordered for name in strata[case.case_id]})
    rows: list[NDArray[Any]] = [np.ones(len(ordered))]
    for name in names:
        amounts = np.array([strata[case.case_id].get(name, 0) for case in ordered], float)
        present = amounts > 0
        ranks = np.unique(np.where(present, amounts, 0), return_inverse=True)[1]
        rows += [present, np.where(present, ranks - ranks.sum() / max(present.sum(), 1), 0)]
    traits = np.zeros((len(groups), len(rows)))
    owners = np.searchsorted(groups, [case.group for case in ordered])
    np.add.at(traits, owners, np.stack(rows, axis=1))
    traits -= traits.mean(axis=0)
    spread = traits.std(axis=0)
    return np.round(1000 * traits / np.where(spread > 1e-9, spread, 1))


def deal(traits: NDArray[np.float64], num_folds: int, seed: int) -> list[int]:
    """Return the fold of each group.

    Unusual groups come first, as later ones can make up for them; in each round every fold gets
    the group whose traits point most away from what the fold has.
    """
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(traits))
    unusual = (traits**2).sum(axis=1)[order] * rng.uniform(0.5, 1, len(order))
    order = order[np.argsort(-unusual, kind="stable")]
    sums = np.zeros((num_folds, traits.shape[1]))
    dealt = np.zeros(len(traits), np.int64)
    for start in range(0, len(order), num_folds):
        dealing = order[start : start + num_folds]
        folds, chosen = linear_sum_assignment(sums @ traits[dealing].T)
        dealt[dealing[chosen]] = folds
        sums[folds] += traits[dealing[chosen]]
    return dealt.tolist()

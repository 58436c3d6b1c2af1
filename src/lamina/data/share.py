"""A part of the patients to train on, for curves of what more data bring."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lamina.data.case import Case
from lamina.data.folds import Fold

_SEED = 0


def share_of(fold: Fold, cases: Sequence[Case], share: float) -> Fold:
    """Return a fold with a share of its training patients; the other sides stay as they are.

    The patients of a smaller share are among those of a larger one, whatever seed trains on them.

    Args:
        fold: The whole fold.
        cases: Its cases; all those of a patient are kept or left out together.
        share: Above 0, at most 1; one patient is always left.
    """
    patient = {case.case_id: case.group for case in cases}
    patients = sorted({patient[case_id] for case_id in fold.train})
    count = max(1, round(share * len(patients)))
    order = np.random.default_rng(_SEED).permutation(len(patients))
    kept = {patients[place] for place in order[:count]}
    return replace(fold, train=tuple(i for i in fold.train if patient[i] in kept))

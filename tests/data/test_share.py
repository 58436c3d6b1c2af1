"""A share of the training patients."""

import pytest

from lamina.data.case import Case
from lamina.data.folds import Fold
from lamina.data.share import share_of

CASES = [
    Case(case_id=f"p{patient:02d}_scan{scan}", group=f"p{patient:02d}", images=())
    for patient in range(12)
    for scan in range(1 + patient % 3)
]
FOLD = Fold(
    train=tuple(case.case_id for case in CASES if case.group < "p10"),
    val=tuple(case.case_id for case in CASES if case.group >= "p10"),
)


def patients_of(fold):
    return {case_id.partition("_")[0] for case_id in fold.train}


@pytest.mark.parametrize(("share", "count"), [(1.0, 10), (0.75, 8), (0.5, 5), (0.25, 2), (1e-9, 1)])
def test_whole_patients_are_kept_and_the_other_side_stays(share, count):
    part = share_of(FOLD, CASES, share)
    kept = patients_of(part)
    assert len(kept) == count
    assert part.train == tuple(i for i in FOLD.train if i.partition("_")[0] in kept)
    assert part.val == FOLD.val


def test_a_smaller_share_is_within_a_larger_one_in_any_order_of_cases():
    parts = [share_of(FOLD, CASES, share) for share in (0.1, 0.3, 0.6, 1.0)]
    for smaller, larger in zip(parts, parts[1:], strict=False):
        assert patients_of(smaller) < patients_of(larger)
    assert share_of(FOLD, CASES[::-1], 0.3) == parts[1]

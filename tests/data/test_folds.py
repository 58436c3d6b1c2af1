"""Folds keep patients apart and every case is validated on once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.data.case import Case
from lamina.data.folds import Fold, given_fold, make_folds, read_fold, write_folds
from lamina.errors import ConfigError, DatasetError, FileError
from lamina.files import write_json


def cases_of(groups) -> list[Case]:
    return [
        Case(case_id=f"case_{number}", group=f"patient_{group}", images=())
        for number, group in enumerate(groups)
    ]


def patients(cases, ids) -> set[str]:
    return {case.group for case in cases if case.case_id in ids}


groups = st.lists(st.integers(0, 12), min_size=2, max_size=40).filter(lambda g: len(set(g)) > 1)


@settings(deadline=None)
@given(groups=groups, num_folds=st.integers(2, 7), seed=st.integers(0, 3))
def test_patients_stay_apart_and_each_case_is_kept_out_once(groups, num_folds, seed):
    cases = cases_of(groups)
    folds = make_folds(cases, num_folds, seed)
    assert len(folds) == min(num_folds, len(set(groups)))
    kept_out = [case_id for fold in folds for case_id in fold.val]
    assert sorted(kept_out) == sorted(case.case_id for case in cases)
    numbers = []
    for fold in folds:
        assert not patients(cases, fold.train) & patients(cases, fold.val)
        assert sorted(fold.train + fold.val) == sorted(case.case_id for case in cases)
        assert fold.train
        numbers.append(len(patients(cases, fold.val)))
    assert max(numbers) - min(numbers) <= 1


@settings(deadline=None)
@given(groups=groups, order=st.randoms(use_true_random=False))
def test_the_order_of_cases_changes_no_split(groups, order):
    cases = cases_of(groups)
    shuffled = [*cases]
    order.shuffle(shuffled)
    for fold, same in zip(make_folds(cases), make_folds(shuffled), strict=True):
        assert set(fold.val) == set(same.val)


def test_the_seed_decides_the_split():
    cases = cases_of(range(20))
    assert make_folds(cases, seed=3) == make_folds(cases, seed=3)
    assert make_folds(cases, seed=3) != make_folds(cases, seed=4)


def test_one_patient_cannot_be_split():
    with pytest.raises(DatasetError, match="3 usable scans of 1 patient") as caught:
        make_folds(cases_of([7, 7, 7]))
    assert "_visit" in caught.value.remedy


@pytest.mark.parametrize("num_folds", [1, 0, -3])
def test_a_single_fold_is_no_split(num_folds):
    with pytest.raises(ConfigError, match=f"{num_folds} folds: at least 2"):
        make_folds(cases_of(range(4)), num_folds)


def test_folds_come_back_from_their_file(tmp_path):
    folds = make_folds(cases_of(range(7)), 3)
    write_folds(tmp_path / "splits.json", folds)
    assert tuple(read_fold(tmp_path / "splits.json", number) for number in range(3)) == folds
    for number in (-1, 3):
        with pytest.raises(DatasetError, match=rf"--fold {number}: .* has folds 0 to 2"):
            read_fold(tmp_path / "splits.json", number)
    with pytest.raises(FileError, match=r"none\.json"):
        read_fold(tmp_path / "none.json", 0)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": ["a"], "val": ["b"]}, "not a list of train and val"),
        ([["a"], ["b"]], "not a list of train and val"),
        ([{"train": ["a"]}], "not a list of train and val"),
        (5, "not a list of train and val"),
        ([{"train": ["a"], "val": []}], "fold 0 has an empty side"),
        ([{"train": [], "val": ["a"]}], "fold 0 has an empty side"),
        ([{"train": ["a", "b"], "val": ["b"]}], r"fold 0 has \['b'\] on both sides"),
    ],
)
def test_splits_of_ones_own_are_checked(tmp_path, splits, message):
    write_json(tmp_path / "splits.json", splits)
    with pytest.raises(DatasetError, match=rf"splits\.json: {message}"):
        read_fold(tmp_path / "splits.json", 0)


def test_splits_of_ones_own_are_taken(tmp_path):
    write_json(tmp_path / "splits.json", [{"train": ["b", "a"], "val": ["c"]}])
    assert read_fold(tmp_path / "splits.json", 0) == Fold(("b", "a"), ("c",))


def sided(**sides) -> list[Case]:
    return [Case(case_id=i, group=f"of_{i[0]}", images=(), side=side) for i, side in sides.items()]


def test_a_split_of_the_datasets_own_is_taken():
    assert given_fold(sided(a1="train", a2="train", b1="val")) == Fold(("a1", "a2"), ("b1",))
    assert given_fold(sided(a1="train", b1="train")) is None
    assert given_fold(sided(a1="", b1="")) is None


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ({"a1": "train", "a2": "val"}, r"on both sides of the split: \['of_a'\]"),
        ({"a1": "train", "b1": "val", "c1": ""}, r"1 cases are neither .*\['c1'\]"),
        ({"a1": "val"}, "no case for training"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(sides, message):
    with pytest.raises(DatasetError, match=message):
        given_fold(sided(**sides))

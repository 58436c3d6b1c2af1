"""Folds keep patients apart and every case is validated on once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.data.case import Case
from lamina.data.folds import (
    Fold,
    drop_cases,
    given_fold,
    given_folds,
    leaks,
    make_folds,
    read_fold,
    read_folds,
    write_folds,
)
from lamina.errors import ConfigError, DatasetError, FileError
from lamina.files import read_json, write_json


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
    assert "cannot be used" not in str(caught.value)


def test_too_few_patients_are_told_with_why_the_others_are_refused():
    refused = {f"c{number}": f"c{number}.nii: is damaged." for number in range(7)}
    with pytest.raises(DatasetError, match="^1 usable scan of 1 patient; .* 7 cannot") as caught:
        make_folds(cases_of([7]), excluded=refused)
    assert "c0: c0.nii: is damaged." in caught.value.message
    assert "c6" not in caught.value.message
    assert "mend those" in caught.value.remedy


@pytest.mark.parametrize("num_folds", [1, 0, -3])
def test_a_single_fold_is_no_split(num_folds):
    with pytest.raises(ConfigError, match=f"{num_folds} folds: at least 2"):
        make_folds(cases_of(range(4)), num_folds)


def test_folds_come_back_from_their_file(tmp_path):
    folds = make_folds(cases_of(range(7)), 3)
    write_folds(tmp_path / "splits.json", folds)
    assert tuple(read_fold(tmp_path / "splits.json", number) for number in range(3)) == folds
    for number in (-1, 3):
        with pytest.raises(DatasetError, match=rf"fold {number}: .* has folds 0 to 2"):
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
        ({"a1": "train", "a2": "val"}, r"patient of_a is on both sides .*train \(a1\), val \(a2\)"),
        ({"a1": "train", "b1": "val", "c1": ""}, r"1 cases are neither .*\['c1'\]"),
        ({"a1": "val"}, "no case for training"),
    ],
)
def test_a_split_that_makes_no_sense_is_refused(sides, message):
    with pytest.raises(DatasetError, match=message):
        given_fold(sided(**sides))


@pytest.fixture
def rare():
    """A hundred scans of forty patients: liver in all, a tumour in every eighth patient."""
    rng = np.random.default_rng(0)
    cases = [
        Case(case_id=f"case_{number:03d}", group=f"patient_{number * 2 // 5:02d}", images=())
        for number in range(100)
    ]
    strata = {
        case.case_id: {
            "liver": float(rng.lognormal(8, 1)),
            "tumour": 500 * (int(case.group[-2:]) % 8 == 0),
        }
        for case in cases
    }
    return cases, strata


@pytest.mark.parametrize("seed", range(5))
def test_folds_have_equally_many_scans_with_a_rare_structure_and_as_large_ones(rare, seed):
    cases, strata = rare
    folds = make_folds(cases, 5, seed, strata=strata)
    assert [len(patients(cases, fold.val)) for fold in folds] == [8] * 5
    assert {len(fold.val) for fold in folds} == {20}
    assert [len({*patients(cases, [i for i in f.val if strata[i]["tumour"]])}) for f in folds] == [
        1
    ] * 5
    logs = [np.mean([np.log(strata[i]["liver"]) for i in fold.val]) for fold in folds]
    plain = make_folds(cases, 5, seed)
    apart = [np.mean([np.log(strata[i]["liver"]) for i in fold.val]) for fold in plain]
    assert np.ptp(logs) < 0.5 * np.ptp(apart)


def test_the_seed_decides_balanced_folds_too(rare):
    cases, strata = rare
    assert make_folds(cases, strata=strata) == make_folds(cases, strata=strata)
    others = {fold.val for fold in make_folds(cases, seed=1, strata=strata)}
    assert others.isdisjoint(fold.val for fold in make_folds(cases, strata=strata))


def test_folds_have_equally_many_scans_though_patients_have_not():
    cases = cases_of([number for number in range(20) for _ in range(1 + 5 * (number % 4 == 0))])
    folds = make_folds(cases, strata={case.case_id: {} for case in cases})
    assert [len(fold.val) for fold in folds] == [9] * 5


amounts = st.dictionaries(st.sampled_from("abc"), st.floats(0, 1e9) | st.just(np.nan))


@settings(deadline=None)
@given(data=st.data(), groups=groups, num_folds=st.integers(2, 7))
def test_balanced_folds_keep_every_promise_whatever_the_amounts(data, groups, num_folds):
    cases = cases_of(groups)
    strata = {case.case_id: data.draw(amounts) for case in cases}
    folds = make_folds(cases, num_folds, strata=strata)
    assert len(folds) == min(num_folds, len(set(groups)))
    kept_out = [case_id for fold in folds for case_id in fold.val]
    assert sorted(kept_out) == sorted(case.case_id for case in cases)
    assert leaks(folds, cases) == ()
    numbers = [len(patients(cases, fold.val)) for fold in folds]
    assert max(numbers) - min(numbers) <= 1
    backwards = make_folds(cases[::-1], num_folds, strata=strata)
    assert [{*fold.val} for fold in backwards] == [{*fold.val} for fold in folds]


def test_without_amounts_folds_are_dealt_out_by_chance_alone():
    cases = cases_of(range(7))
    order = np.random.default_rng(2).permutation(7)
    expected = [{f"case_{number}" for number in order[fold::3]} for fold in range(3)]
    assert [{*fold.val} for fold in make_folds(cases, 3, seed=2)] == expected


def test_a_case_without_amounts_is_named():
    with pytest.raises(DatasetError, match=r"1 cases are not in them: \['case_1'\]"):
        make_folds(cases_of([0, 1]), strata={"case_0": {"liver": 3}})


def test_as_many_folds_as_asked_can_be_insisted_on():
    cases = cases_of([0, 0, 1, 2])
    assert len(make_folds(cases, 3, exact=True)) == 3
    with pytest.raises(DatasetError, match="4 folds: there are 3 patients") as caught:
        make_folds(cases, 4, exact=True)
    assert caught.value.remedy == "Make 3 folds at most."


def test_the_test_side_stands_in_no_fold():
    cases = sided(a1="train", b1="train", c1="train", d1="test", d2="test")
    folds = make_folds(cases, 3)
    assert {fold.test for fold in folds} == {("d1", "d2")}
    assert all({*fold.train, *fold.val} == {"a1", "b1", "c1"} for fold in folds)
    fold = given_fold(sided(a1="train", b1="val", d1="test"))
    assert fold == Fold(("a1",), ("b1",), ("d1",))


def test_the_test_side_goes_to_the_file_and_comes_back(tmp_path):
    folds = (Fold(("a",), ("b",), ("c",)), Fold(("b",), ("a",)))
    write_folds(tmp_path / "splits.json", folds)
    assert read_json(tmp_path / "splits.json")[1] == {"train": ["b"], "val": ["a"]}
    assert read_folds(tmp_path / "splits.json") == folds


@pytest.fixture
def splits(tmp_path):
    """Write folds to a file."""

    def write(*folds):
        write_json(tmp_path / "splits.json", folds)
        return tmp_path / "splits.json"

    return write


def test_folds_of_nnunets_form_are_taken_as_they_are(splits):
    cases = sided(a1="", a2="", b1="", c1="", d1="test")
    path = splits({"train": ["b1", "a1"], "val": ["c1"]}, {"train": ["c1"], "val": ["a1", "a2"]})
    assert given_folds(path, cases) == (
        Fold(("b1", "a1"), ("c1",), ("d1",)),
        Fold(("c1",), ("a1", "a2"), ("d1",)),
    )


@pytest.mark.parametrize(
    ("fold", "message"),
    [
        ({"train": ["a1"], "val": ["b1.nii.gz"]}, r"1 cases are not in the dataset: \['b1.nii.gz'"),
        ({"train": ["a1"], "val": ["b1"], "test": ["z"]}, r"1 cases are not in .*\['z'\]"),
        ({"train": ["a1"], "val": ["d1"]}, r"has cases of the test side .*\['d1'\]"),
        ({"train": ["a1"], "val": ["b1", "a1"]}, r"fold 0 has \['a1'\] on both sides"),
        ({"train": ["a1", "a1"], "val": ["b1"]}, r"fold 0 has \['a1'\] .*twice"),
        ({"train": ["b1"], "val": ["a1"], "test": ["b1"]}, r"fold 0 has \['b1'\] on both sides"),
        ({"train": ["a1", 5], "val": ["b1"]}, "not a list .* each a list of names"),
        ({"train": "a1", "val": ["b1"]}, "not a list .* each a list of names"),
    ],
)
def test_folds_that_do_not_fit_the_cases_are_refused(splits, fold, message):
    cases = sided(a1="", a2="", b1="", d1="test")
    for allow_leakage in (False, True):
        with pytest.raises(DatasetError, match=rf"splits\.json: {message}"):
            given_folds(splits(fold), cases, allow_leakage=allow_leakage)


def test_a_file_without_folds_is_refused(splits):
    with pytest.raises(DatasetError, match="not a list of train and val"):
        given_folds(splits(), sided(a1="", b1=""))


def test_a_divided_patient_is_refused_with_its_cases_unless_allowed(splits):
    cases = sided(a1="", a2="", b1="")
    path = splits({"train": ["a1"], "val": ["b1"]}, {"train": ["b1", "a2"], "val": ["a1"]})
    words = r"patient of_a is on both sides of fold 1: train \(a2\), val \(a1\)"
    with pytest.raises(DatasetError, match=words) as caught:
        given_folds(path, cases)
    assert "--allow-leakage" in caught.value.remedy
    assert given_folds(path, cases, allow_leakage=True)[1] == Fold(("b1", "a2"), ("a1",))


def test_a_patient_in_training_and_test_is_refused_even_without_validation():
    cases = sided(a1="train", a2="test", b1="train")
    with pytest.raises(DatasetError, match=r"patient of_a .*train \(a1\), test \(a2\)"):
        given_fold(cases)
    assert given_fold(cases, allow_leakage=True) is None


def test_a_case_on_no_side_is_learnt_from_and_its_patient_is_not_to_be_tested():
    cases = sided(a1="", a2="test", b1="", c1="")
    with pytest.raises(DatasetError, match=r"patient of_a .*train \(a1\), test \(a2\)"):
        given_fold(cases)
    assert given_fold(cases, allow_leakage=True) is None
    assert given_fold(sided(a1="test", a2="test", b1="", c1="")) is None


def test_unusable_cases_are_taken_out_of_given_folds():
    folds = (Fold(("a", "b"), ("c",), ("d",)), Fold(("c", "a"), ("b", "d")))
    assert drop_cases(folds, {"b", "x"}) == (
        Fold(("a",), ("c",), ("d",)),
        Fold(("c", "a"), ("d",)),
    )
    with pytest.raises(DatasetError, match=r"folds \[0\]: no case"):
        drop_cases(folds, ["c"])


def test_the_audit_names_patients_and_images_once():
    cases = sided(a1="", a2="", a3="", b1="", c1="", c2="")
    folds = (
        Fold(("a1", "a2", "c1"), ("b1",)),
        Fold(("b1", "a1"), ("a2", "a3"), ("c1", "c2")),
        Fold(("a1",), ("a2",)),
    )
    (patient,) = leaks(folds, cases)
    assert (patient.severity, patient.case, patient.other) == ("error", "a1", "a2")
    assert patient.message == ("patient of_a is on both sides of fold 1: train (a1), val (a2, a3).")
    digests = {"b1": "same", "c1": "same", "c2": "other", "elsewhere": "same"}
    both = leaks(folds, cases, digests)
    assert both[0] == patient
    assert [(leak.case, leak.other) for leak in both[1:]] == [("c1", "b1")]
    assert both[1].message == ("the image of b1 is on both sides of fold 0: train (c1), val (b1).")

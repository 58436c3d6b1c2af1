"""A whole comparison: order, signs, and the cautions that come with it."""

import json
import math

import numpy as np
import pytest

from lamina.evaluation.statistics.comparison import Subject, compare_methods
from lamina.evaluation.statistics.intervals import FEW_TOLD


def subject(n, **extra):
    given = {"measure": "Dice", "unit": "", "higher_is_better": True, "num_cases": n}
    return Subject(patients=tuple(f"p{i}" for i in range(n)), **given | extra)


def compared(values, **extra):
    arrays = {name: np.atleast_2d(found) for name, found in values.items()}
    return compare_methods(subject(next(iter(arrays.values())).shape[1], **extra), arrays)


def beta(n, seed=0):
    return np.random.default_rng(seed).beta(30, 5, n)


def test_the_better_method_comes_first_whatever_better_means():
    base = beta(30)
    for higher, order in ((True, ["high", "low"]), (False, ["low", "high"])):
        found = compared({"low": base - 0.1, "high": base}, higher_is_better=higher)
        assert [method.name for method in found.methods] == order
        (pair,) = found.pairs
        assert (pair.first, pair.second) == tuple(order)
        assert (pair.wins, pair.ties, pair.losses) == (30, 0, 0)
        assert pair.effect == 1
        assert pair.significant
        assert pair.difference.mean == pytest.approx(0.1 if higher else -0.1)


def test_two_methods_have_no_test_of_many():
    found = compared({"a": beta(30), "b": beta(30, 1)})
    assert found.friedman is None
    assert found.pairs[0].nemenyi_p is None
    assert found.pairs[0].holm_p == found.pairs[0].p


def test_pairs_are_corrected_for_their_number():
    base = beta(9)
    found = compared({"a": base, "b": base - 0.1, "c": base - 0.2})
    assert [pair.p for pair in found.pairs] == pytest.approx([2 / 512] * 3)
    assert [pair.holm_p for pair in found.pairs] == pytest.approx([6 / 512] * 3)
    assert found.friedman.mean_ranks == (1, 2, 3)


def test_seeds_are_averaged_patient_by_patient():
    base = beta(30)
    found = compared({"a": np.stack([base, base + 0.02]), "b": base})
    a, b = found.methods
    assert a.values == pytest.approx(base + 0.01)
    assert a.seeds.between == pytest.approx(0.02 / math.sqrt(2))
    assert b.seeds is None


@pytest.mark.parametrize(("n", "said"), [(5, True), (6, False)])
def test_says_that_few_patients_cannot_be_significant(n, said):
    found = compared({"a": beta(n), "b": beta(n) - 0.2})
    assert said == any("can become significant" in line for line in found.cautions)
    assert found.pairs[0].significant is not said


def test_three_methods_take_one_patient_more():
    values = {name: beta(6) - 0.1 * i for i, name in enumerate("abc")}
    found = compared(values)
    assert any("takes at least 7 with 3 pairs" in line for line in found.cautions)
    assert not any(pair.significant for pair in found.pairs)


@pytest.mark.parametrize(("n", "said"), [(4, True), (19, True), (20, False)])
def test_says_that_intervals_of_few_patients_are_too_narrow(n, said):
    assert (FEW_TOLD in compared({"a": beta(n), "b": beta(n, 1)}).cautions) is said


def test_says_that_one_training_is_one():
    base = beta(30)
    told = compared({"a": np.stack([base, base + 0.01]), "b": base}).cautions
    assert any(line.startswith("One training of b:") for line in told)
    told = compared({"a": base, "b": base}).cautions
    assert any(line.startswith("One training of each method:") for line in told)


def test_says_when_seeds_differ_more_than_methods():
    base = beta(40)
    found = compared({"a": np.stack([base - 0.04, base + 0.05]), "b": np.stack([base, base])})
    assert found.pairs[0].significant
    assert any("less than seeds of one of them" in line for line in found.cautions)


def test_says_when_few_patients_decide_about_the_mean():
    base = np.full(30, 0.8)
    often = base + 0.01
    often[:2] = 0.0
    told = compared({"steady": base, "often better": often}).cautions
    assert any("a few of them decide" in line for line in told)


def test_identical_methods_are_equal_in_every_figure():
    found = compared({"a": beta(30), "b": beta(30)})
    assert [method.stability.rank for method in found.methods] == [1, 1]
    (pair,) = found.pairs
    assert (pair.wins, pair.ties, pair.losses, pair.p, pair.effect) == (0, 30, 0, 1, 0)
    assert pair.difference.missing == "all values are the same"


def test_one_patient_gives_means_and_no_interval():
    found = compared({"a": [0.9], "b": [0.8], "c": [0.7]})
    assert found.methods[0].interval.missing == "a single patient"
    assert found.friedman.p == pytest.approx(math.exp(-1))
    json.dumps(found.as_dict(), allow_nan=False)


def test_a_better_mean_that_the_test_speaks_against_is_said_with_its_counts():
    # A few large successes make the mean; the ranks of the differences favour the other method,
    # although it is not the better one on most patients.
    base = np.full(118, 0.5)
    apart = np.repeat([0.001, 0.4, -0.01], [60, 8, 50])
    found = compared({"lucky": base + apart, "steady": base})
    (pair,) = found.pairs
    assert (pair.first, pair.wins, pair.losses) == ("lucky", 68, 50)
    assert pair.effect < 0
    (line,) = (line for line in found.cautions if "decide about the mean" in line)
    assert "favours steady (68 patients better, 50 worse)" in line
    assert "most patients" not in line

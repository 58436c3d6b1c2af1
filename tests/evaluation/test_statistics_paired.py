"""Signed-rank test and Holm's correction: by hand, by enumeration, against scipy and tables."""

import itertools

import numpy as np
import pytest
from scipy.stats import rankdata, wilcoxon

from lamina.evaluation.statistics.paired import holm, patients_needed, signed_rank


def enumerated_p(differences):
    """Two-sided p by writing down every choice of signs."""
    kept = differences[differences != 0]
    ranks = rankdata(np.abs(kept))
    smaller = min(ranks[kept > 0].sum(), ranks[kept < 0].sum())
    signs = np.array(list(itertools.product((0, 1), repeat=len(ranks))))
    return min(1.0, 2 * float((signs @ ranks <= smaller).mean()))


@pytest.mark.parametrize(
    ("n", "negative", "p"),
    [(6, [], 0.03125), (8, [3], 0.0390625), (10, [8], 50 / 1024), (5, [], 0.0625)],
)
def test_agrees_with_the_published_table(n, negative, p):
    """Critical values of W at 5 %, two-sided: 0 for 6 patients, 3 for 8, 8 for 10; none for 5."""
    differences = np.arange(1.0, n + 1)
    differences[[rank - 1 for rank in negative]] *= -1
    assert signed_rank(differences).p == pytest.approx(p, abs=1e-15)


@pytest.mark.parametrize("n", [7, 20, 49])
def test_agrees_with_scipy_where_it_is_exact(n):
    differences = np.random.default_rng(n).normal(0.3, 1, n)
    exact = wilcoxon(differences, method="exact")
    assert signed_rank(differences).p == pytest.approx(exact.pvalue, rel=1e-10)


def test_many_patients_are_counted_as_scipy_approximates_them():
    differences = np.round(np.random.default_rng(0).normal(0.1, 1, 400), 1)
    approximate = wilcoxon(differences, correction=False, method="approx")
    assert signed_rank(differences).p == pytest.approx(approximate.pvalue, rel=1e-10)


def test_the_approximation_takes_over_without_a_jump():
    rng = np.random.default_rng(2)
    exact = signed_rank(values := rng.normal(0.15, 1, 200))
    approximate = wilcoxon(values, correction=False, method="approx")
    assert exact.p == pytest.approx(approximate.pvalue, rel=0.02)


@pytest.mark.parametrize("seed", range(6))
def test_is_exact_with_ties_and_zeros(seed):
    differences = np.random.default_rng(seed).integers(-2, 4, 11) / 4
    assert signed_rank(differences).p == pytest.approx(enumerated_p(differences), abs=1e-14)


def test_effect_and_counts_by_hand():
    """Ranks 1, 2.5, 2.5, 4 and a zero left out; the negative one has rank 1."""
    found = signed_rank(np.array([-0.1, 0.2, 0.2, 0.0, 0.3]))
    assert (found.positive, found.zero, found.negative) == (3, 1, 1)
    assert found.rank_biserial == pytest.approx((9 - 1) / 10)


def test_turning_the_difference_round_turns_the_effect_and_keeps_p():
    values = np.random.default_rng(4).normal(0.2, 1, 15)
    one, other = signed_rank(values), signed_rank(-values)
    assert one.p == pytest.approx(other.p)
    assert one.rank_biserial == pytest.approx(-other.rank_biserial)
    assert (one.positive, one.negative) == (other.negative, other.positive)


def test_rounding_breaks_no_ties():
    found = signed_rank(np.array([0.1 + 0.2 - 0.3, 0.3, 0.1 + 0.2, -0.3]))
    assert (found.positive, found.zero, found.negative) == (2, 1, 1)
    assert found.rank_biserial == pytest.approx(1 / 3)


def test_equal_methods_are_no_evidence():
    found = signed_rank(np.zeros(8))
    assert (found.p, found.rank_biserial, found.zero) == (1.0, 0.0, 8)


def test_holm_by_definition():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_holm_rejects_what_his_procedure_rejects():
    for seed in range(20):
        p = np.random.default_rng(seed).beta(0.3, 4, 7)
        rejected = set()
        for done, test in enumerate(np.argsort(p)):
            if p[test] > 0.05 / (len(p) - done):
                break
            rejected.add(int(test))
        assert {i for i, value in enumerate(holm(p)) if value <= 0.05} == rejected


@pytest.mark.parametrize(("tests", "needed"), [(1, 6), (3, 7), (10, 9)])
def test_says_how_many_patients_a_test_takes(tests, needed):
    def smallest(n):
        return holm([signed_rank(np.arange(1.0, n + 1)).p] * tests)[0]

    assert patients_needed(tests) == needed
    assert smallest(needed) <= 0.05 < smallest(needed - 1)

"""Which cases count, and what a patient's value is."""

import math

import pytest

from lamina.evaluation.statistics.pairing import grant, mean_over, pair

NAN = math.nan


def owners(*cases):
    return {case: case[0] for case in cases}


def paired(*found, patients):
    """Pair evaluations of a single structure, case -> value."""
    rows = [{case: {"it": value} for case, value in values.items()} for values in found]
    return pair(rows, patients, best=1)


def test_scans_of_one_patient_are_averaged_first():
    found = paired(
        {"a1": 0.2, "a2": 0.4, "b1": 0.9},
        {"a1": 0.0, "a2": 1.0, "b1": 0.8},
        patients=owners("a1", "a2", "b1"),
    )
    assert found.patients == ("a", "b")
    assert found.values.tolist() == [pytest.approx([0.3, 0.9]), pytest.approx([0.5, 0.8])]
    assert found.cases == ("a1", "a2", "b1")


def test_a_case_that_one_lacks_is_left_out():
    found = paired({"a": 0.5, "b": 0.6}, {"b": 0.7}, patients=owners("a", "b"))
    assert found.patients == ("b",)


def test_a_structure_that_all_rightly_left_out_does_not_count():
    found = paired({"a": NAN, "b": 0.6}, {"a": NAN, "b": 0.7}, patients=owners("a", "b"))
    assert found.not_applicable == ("a",)
    assert found.patients == ("b",)


def test_inventing_a_structure_costs_even_where_the_others_have_nothing_to_measure():
    found = paired({"a": NAN, "b": 0.6}, {"a": 0.0, "b": 0.7}, patients=owners("a", "b"))
    assert found.granted == ("a",)
    assert found.values[:, 0].tolist() == [1, 0]


def test_what_is_granted_counts_beside_other_structures():
    honest, inventor = {"organ": 0.2, "lesion": NAN}, {"organ": 1.0, "lesion": 0.0}
    found = pair([{"a": honest}, {"a": inventor}], owners("a"), best=1)
    assert found.values[:, 0].tolist() == [pytest.approx(0.6), 0.5]
    assert found.granted == ("a",)


def test_who_invents_one_structure_is_granted_another():
    one, other = {"x": NAN, "y": 0.0}, {"x": 0.0, "y": NAN}
    found = pair([{"a": one}, {"a": other}], owners("a"), best=1)
    assert found.values[:, 0].tolist() == [0.5, 0.5]
    assert found.granted == ("a",)


def test_a_structure_that_nobody_found_is_in_no_mean():
    rows = [{"a": {"x": value, "y": NAN}} for value in (0.5, 0.7)]
    found = pair(rows, owners("a"), best=1)
    assert found.values[:, 0].tolist() == [0.5, 0.7]
    assert found.granted == ()


def test_an_evaluation_that_lacks_a_case_is_granted_nothing():
    assert grant([{"a": {"x": NAN}}, {"b": {"x": 0.0}}], 1.0)[1] == {"b": {"x": 0.0}}


def test_nothing_in_common_leaves_nothing():
    found = paired({"a": 0.5}, {"b": 0.5}, patients=owners("a", "b"))
    assert found.values.shape == (2, 0)


def test_the_mean_is_over_the_structures_that_a_metric_applies_to():
    values = {"liver": 0.5, "tumour": NAN, "spleen": -0.7, "both": 0.1}
    structures = ["liver", "tumour", "spleen"]
    assert mean_over(values, structures) == pytest.approx(-0.1)
    assert math.isnan(mean_over(values, ["tumour"]))

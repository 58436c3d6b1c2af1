"""Which cases count, and what a patient's value is."""

import math

import pytest

from lamina.evaluation.statistics.pairing import mean_over, pair

NAN = math.nan


def owners(*cases):
    return {case: case[0] for case in cases}


def test_scans_of_one_patient_are_averaged_first():
    found = pair(
        [{"a1": 0.2, "a2": 0.4, "b1": 0.9}, {"a1": 0.0, "a2": 1.0, "b1": 0.8}],
        owners("a1", "a2", "b1"),
        best=1,
    )
    assert found.patients == ("a", "b")
    assert found.values.tolist() == [pytest.approx([0.3, 0.9]), pytest.approx([0.5, 0.8])]
    assert found.cases == ("a1", "a2", "b1")


def test_a_case_that_one_lacks_is_left_out_and_named():
    found = pair([{"a": 0.5, "b": 0.6}, {"b": 0.7}], owners("a", "b"), best=1)
    assert found.incomplete == ("a",)
    assert found.patients == ("b",)


def test_a_structure_that_all_rightly_left_out_does_not_count():
    found = pair([{"a": NAN, "b": 0.6}, {"a": NAN, "b": 0.7}], owners("a", "b"), best=1)
    assert found.not_applicable == ("a",)
    assert found.patients == ("b",)


def test_inventing_a_structure_costs_even_where_the_others_have_nothing_to_measure():
    found = pair([{"a": NAN, "b": 0.6}, {"a": 0.0, "b": 0.7}], owners("a", "b"), best=1)
    assert found.granted == ("a",)
    assert found.values[:, 0].tolist() == [1, 0]


def test_nothing_in_common_leaves_nothing():
    found = pair([{"a": 0.5}, {"b": 0.5}], owners("a", "b"), best=1)
    assert found.values.shape == (2, 0)
    assert found.incomplete == ("a", "b")


def test_the_mean_is_over_the_structures_that_a_metric_applies_to():
    values = {"liver": 0.5, "tumour": NAN, "spleen": -0.7, "both": 0.1}
    structures = ["liver", "tumour", "spleen"]
    assert mean_over(values, structures) == pytest.approx(-0.1)
    assert math.isnan(mean_over(values, ["tumour"]))

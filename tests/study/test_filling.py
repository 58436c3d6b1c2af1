"""Measured beside printed: patients as the unit, changes and tests on common patients."""

import math
from dataclasses import replace

import pytest

from lamina.errors import ConfigError
from lamina.study.filling import fill
from lamina.study.schema import Column, Row, Study
from lamina.study.scored import Scored

STUDY = Study(
    name="paper/table1",
    title="Rows",
    paper="paper",
    source="Paper, Table 1",
    in_channels=1,
    num_classes=2,
    size=(32, 32),
    columns=(
        Column(title="Dice", metric="dice"),
        Column(title="Left", metric="dice", of=("left",)),
        Column(title="Change", metric="dice", change=True),
        Column(title="Weights", metric="parameters", unit="M"),
    ),
    rows={
        "ours": Row(model="unet", published=(90.0, None, None, 2.0)),
        "other": Row(model="unext", base="ours", published=(80.0, None, -10.0, 1.0)),
        "theirs": Row(missing="Not here.", published=(95.0, 96.0, None, 3.0)),
    },
    reference="ours",
)
NAN = math.nan


def scored(seed, **cases):
    """Return scores of cases, each named after its patient and a visit, of two structures."""
    values = {case: dict(zip(("left", "right"), pair, strict=True)) for case, pair in cases.items()}
    patients = {case: case.partition("_")[0] for case in cases}
    return Scored(
        seed=seed, structures=("left", "right"), values={"dice": values}, patients=patients
    )


def cells(found):
    titles = [column.title for column in found.study.columns]
    return {row.key: dict(zip(titles, row.cells, strict=True)) for row in found.rows}


def test_scans_of_a_patient_and_trainings_are_averaged_before_patients():
    first = scored(0, p1_a=(0.2, 0.4), p1_b=(0.6, 0.8), p2_a=(0.9, 0.9))
    second = scored(1, p1_a=(0.3, 0.5), p1_b=(0.7, 0.9), p2_a=(0.7, 0.7))
    cell = cells(fill(STUDY, {"ours": [first, second]}, {}, {}))["ours"]["Dice"]
    assert cell.measured == pytest.approx(100 * ((0.5 + 0.6) / 2 + (0.9 + 0.7) / 2) / 2)
    assert (cell.patients, cell.published) == (2, 90)
    assert cell.spread == pytest.approx(100 * abs(0.7 - 0.65) / math.sqrt(2))
    assert (cell.low, cell.high) == (None, None)  # of two patients there is no interval
    assert cell.difference == pytest.approx(cell.measured - 90)


def test_folds_of_one_seed_add_patients_and_no_spread():
    folds = [scored(0, p1=(0.4, 0.4)), scored(0, p2=(0.8, 0.8))]
    cell = cells(fill(STUDY, {"ours": folds}, {}, {}))["ours"]["Dice"]
    assert (cell.measured, cell.patients, cell.spread) == (pytest.approx(60), 2, None)


def test_what_does_not_apply_is_left_out_and_no_value_is_no_measure():
    found = fill(STUDY, {"ours": [scored(0, p1=(NAN, 0.4), p2=(NAN, 0.6))]}, {}, {})
    row = cells(found)["ours"]
    assert row["Dice"].measured == pytest.approx(50)
    assert (row["Left"].measured, row["Left"].why) == (None, "no case has it")
    assert "These scans have nothing to measure it on: Left." in found.notes()


def test_a_change_is_on_the_patients_that_both_have():
    ours = scored(0, p1=(0.5, 0.5), p2=(0.7, 0.7), p3=(0.1, 0.1))
    other = scored(0, p1=(0.4, 0.4), p2=(0.5, 0.5))
    found = cells(fill(STUDY, {"ours": [ours], "other": [other]}, {}, {}))
    change = found["other"]["Change"]
    assert (change.measured, change.patients) == (pytest.approx(-15), 2)
    assert change.difference == pytest.approx(-5)
    assert found["ours"]["Change"].measured is None


def test_means_of_enough_patients_have_an_interval():
    ours = scored(0, **{f"p{n}": (0.5 + n / 20, 0.6) for n in range(6)})
    cell = cells(fill(STUDY, {"ours": [ours]}, {}, {}))["ours"]["Dice"]
    assert cell.low < cell.measured < cell.high


def test_inventing_counts_against_a_row_where_the_other_rightly_found_nothing():
    """On the patients that have the structure, the inventor is a little better."""
    silent = {f"p{n}": ((0.80, 0.8) if n < 10 else (NAN, 0.8)) for n in range(20)}
    inventor = {f"p{n}": ((0.81, 0.8) if n < 10 else (0.0, 0.8)) for n in range(20)}
    rows = {"ours": [scored(0, **silent)], "other": [scored(0, **inventor)]}
    found = cells(fill(STUDY, rows, {}, {}))["other"]
    assert found["Change"].patients == 20
    assert found["Change"].measured == pytest.approx(100 * (10 * 0.005 - 10 * 0.5) / 20)
    assert found["Left"].mark == ""  # 10 a little better, 10 much worse: p = 0.06
    more = {f"q{n}": (0.0, 0.8) for n in range(10)}
    rows = {
        "ours": [scored(0, **silent, **dict.fromkeys(more, (NAN, 0.8)))],
        "other": [scored(0, **inventor, **more)],
    }
    assert cells(fill(STUDY, rows, {}, {}))["other"]["Left"].mark == "**"


def test_a_seed_that_invents_counts_beside_one_that_does_not():
    ours = [scored(0, p1=(NAN, 0.8))]
    other = [scored(0, p1=(0.0, 0.8)), scored(1, p1=(NAN, 0.8))]
    change = cells(fill(STUDY, {"ours": ours, "other": other}, {}, {}))["other"]["Change"]
    assert change.measured == pytest.approx(-25)


def test_rows_that_differ_from_the_reference_on_enough_patients_are_marked():
    ours = {f"p{n}": (0.8 + n / 1000, 0.8) for n in range(10)}
    worse = {
        name: (left - 0.1 - int(name[1:]) / 999, right) for name, (left, right) in ours.items()
    }
    table = fill(STUDY, {"ours": [scored(0, **ours)], "other": [scored(0, **worse)]}, {}, {})
    found = cells(table)
    assert (found["other"]["Dice"].mark, found["ours"]["Dice"].mark) == ("**", "")
    few = {name: [scored(0, **dict(list(row.items())[:4]))] for name, row in
           (("ours", ours), ("other", worse))}  # fmt: skip
    assert cells(fill(STUDY, few, {}, {}))["other"]["Dice"].mark == ""


def test_weights_are_counted_and_reasons_are_told():
    counts = {"ours": {"parameters": 2_004_000.0}}
    found = fill(STUDY, {}, counts, {"other": "too large"}, ["Other scans."])
    weights = cells(found)["ours"]["Weights"]
    assert (weights.measured, weights.patients) == (pytest.approx(2.004), 0)
    assert weights.difference == pytest.approx(0.004)
    notes = list(found.notes())
    assert notes[0] == "Other scans."
    assert {"other: too large", "theirs: Not here."} <= {*notes}


def test_a_table_of_cases_has_those_printed_then_others_then_their_mean():
    table = replace(
        STUDY,
        rows={"ours": STUDY.rows["ours"]},
        cases={"27": (93.0, None, None, None), "28": (94.0, None, None, None)},
    )
    found = fill(table, {"ours": [scored(0, **{"28": (0.5, 0.7), "x": (0.2, 0.4)})]}, {}, {})
    assert [row.title for row in found.rows] == ["27", "28", "x", "Mean of all"]
    missed, met, more, mean = (row.cells[0] for row in found.rows)
    assert (missed.published, missed.measured) == (93, None)
    assert (met.measured, met.difference) == (pytest.approx(60), pytest.approx(-34))
    assert (more.published, more.measured) == (None, pytest.approx(30))
    assert (mean.measured, mean.published) == (pytest.approx(45), 90)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"rows": {"a": Row(model="unet", published=(1.0,))}}, "a: 4 figures are needed"),
        ({"rows": {"a": Row()}}, "a: needs either a model or a reason"),
        ({"rows": {"a b": Row(model="unet")}}, "a b: cannot be the name of a folder"),
        ({"reference": "nobody"}, "no row 'nobody'"),
        ({"columns": (*STUDY.columns[:3], Column(title="Time"))}, "Time: needs a note"),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(change, fault):
    with pytest.raises(ConfigError, match=fault):
        replace(STUDY, **{"reference": ""} | change)

"""Rows, summaries and files of an evaluation."""

import csv
import json
import math

import numpy as np
import pytest

from lamina.errors import FileError, GeometryError, UnknownNameError
from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS
from lamina.evaluation.records import read_recorded
from lamina.evaluation.scores import Scores, score_case
from lamina.evaluation.summary import Score
from lamina.labels import IGNORE_INDEX, LabelSet

LABELS = LabelSet(
    values={"liver": 3, "tumour": 7}, regions={"whole liver": ("liver", "tumour")}, ignore=9
)
SPACING = (1.0, 2.0, 5.0)
OF_MASKS = tuple(name for name in METRICS if not METRICS.get(name).needs_probability)


def blank():
    return np.zeros((8, 6, 5), np.uint8)


def by_label(rows, metric):
    return {row.label: row for row in rows if row.metric == metric}


def scores_of(pairs, metrics=("dice", "hd95", "volume_error_ml"), **extra):
    rows = [
        row
        for case, (prediction, reference) in pairs.items()
        for row in score_case(case, prediction, reference, LABELS, SPACING, metrics)
    ]
    return Scores(labels=LABELS, metrics=tuple(metrics), rows=tuple(rows), **extra)


@pytest.fixture
def three_cases():
    """Return a perfect case, one with a missed tumour, and one without any tumour at all."""
    full = blank()
    full[1:4, 1:4, 1:4] = 1
    full[5, 1:3, 1] = 2
    no_tumour = np.where(full == 2, 0, full).astype(np.uint8)
    return {"a": (full, full), "b": (no_tumour, full), "c": (no_tumour, no_tumour)}


def test_scores_structures_and_regions_in_order(three_cases):
    rows = score_case("a", *three_cases["b"], LABELS, SPACING, ["dice"])
    assert [row.label for row in rows] == ["liver", "tumour", "whole liver"]
    assert [row.value for row in rows] == pytest.approx([1, 0, 2 * 27 / (27 + 29)])


def test_a_row_says_which_mask_was_empty(three_cases):
    full, no_tumour = three_cases["a"][0], three_cases["c"][0]
    for pair, rule in [
        ((full, full), ""),
        ((no_tumour, full), "prediction empty"),
        ((full, no_tumour), "reference empty"),
        ((no_tumour, no_tumour), "both empty"),
    ]:
        for metric in OF_MASKS:
            assert (
                by_label(score_case("x", *pair, LABELS, SPACING, [metric]), metric)["tumour"].rule
                == rule
            )


def test_a_missed_structure_costs_the_diagonal_of_the_whole_grid(three_cases):
    rows = by_label(score_case("b", *three_cases["b"], LABELS, SPACING, ["hd95"]), "hd95")
    assert rows["tumour"].value == pytest.approx(math.sqrt(8**2 + 12**2 + 25**2))


def test_cropping_gives_the_values_of_the_whole_arrays():
    rng = np.random.default_rng(3)
    prediction, reference = rng.choice(3, size=(2, 8, 6, 5), p=[0.9, 0.05, 0.05]).astype(np.uint8)
    for row in score_case("x", prediction, reference, LABELS, SPACING, OF_MASKS):
        masks = (LABELS.masks(indices)[row.label] for indices in (prediction, reference))
        whole = Comparison(*masks, SPACING)
        assert row.value == pytest.approx(METRICS.get(row.metric).function(whole))


def test_ignored_voxels_count_on_neither_side():
    prediction, reference = blank(), blank()
    prediction[2:5], reference[2:5] = 1, 1
    prediction[6], reference[6] = 1, IGNORE_INDEX
    rows = score_case("x", prediction, reference, LABELS, SPACING, OF_MASKS)
    for metric in OF_MASKS:
        best = 1 if METRICS.get(metric).higher_is_better else 0
        assert by_label(rows, metric)["liver"].value == pytest.approx(best), metric
    assert (prediction[6] == 1).all(), "the caller's array was changed"


def test_a_structure_that_is_wholly_ignored_is_not_missed():
    prediction, reference = blank(), blank()
    reference[2:5] = IGNORE_INDEX
    rows = score_case("x", prediction, reference, LABELS, SPACING, ["dice"])
    assert {row.rule for row in rows} == {"both empty"}


def test_images_are_scored_like_volumes():
    prediction, reference = np.zeros((2, 6, 6), np.uint8)
    prediction[1, 1:3] = reference[1, 1:5] = 1
    rows = score_case("x", prediction, reference, LABELS, (0.5, 0.5), OF_MASKS)
    assert by_label(rows, "dice")["liver"].value == pytest.approx(4 / 6)


def test_maps_of_different_size_are_refused():
    with pytest.raises(GeometryError, match="case_1: sizes differ"):
        score_case("case_1", blank(), blank()[1:], LABELS, SPACING, ["dice"])


def test_an_unknown_metric_is_refused_with_the_nearest_name():
    with pytest.raises(UnknownNameError, match="dice"):
        score_case("x", blank(), blank(), LABELS, SPACING, ["dise"])


def test_summary_counts_what_its_means_leave_out(three_cases):
    summary = scores_of(three_cases).summary()
    tumour = summary["tumour"]["dice"]
    assert (tumour.n, tumour.not_applicable, tumour.missed, tumour.invented) == (2, 1, 1, 0)
    assert (tumour.mean, tumour.median, tumour.min, tumour.max) == (0.5, 0.5, 0, 1)
    assert tumour.std == pytest.approx(math.sqrt(0.5))
    volume = summary["tumour"]["volume_error_ml"]
    assert (volume.n, volume.not_applicable, volume.missed) == (2, 1, 1)
    assert volume.mean == pytest.approx(-2 * 10 / 1000 / 2)


def test_mean_foreground_averages_structures_within_a_case_first(three_cases):
    scores = scores_of(three_cases)
    # a: liver 1, tumour 1; b: liver 1, tumour 0; c: liver 1, tumour not applicable.
    assert scores.mean_foreground("dice") == pytest.approx((1 + 0.5 + 1) / 3)


def test_missing_a_structure_lowers_the_mean(three_cases):
    found = scores_of({"a": three_cases["a"], "b": three_cases["a"]})
    missed = scores_of({"a": three_cases["a"], "b": three_cases["b"]})
    assert missed.mean_foreground("dice") < found.mean_foreground("dice")
    assert missed.mean_foreground("hd95") > found.mean_foreground("hd95")


def test_nothing_scored_is_not_a_number_rather_than_a_score():
    scores = Scores(labels=LABELS, metrics=("dice",), rows=(), failures={"a": "damaged"})
    assert math.isnan(scores.mean_foreground("dice"))
    assert scores.summary()["liver"]["dice"].n == 0
    assert scores.as_dict()["mean_foreground"] == {"dice": None}


def test_files_agree_with_each_other_and_with_the_rows(three_cases, tmp_path):
    scores = scores_of(three_cases, failures={"d": "damaged"}, not_predicted=("e",))
    scores.write(tmp_path)
    data = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    with (tmp_path / "scores.csv").open(encoding="utf-8", newline="") as stream:
        lines = {(line["case"], line["label"]): line for line in csv.DictReader(stream)}
    assert len(lines) == 3 * 3
    assert data == scores.as_dict()
    for row in data["rows"]:
        line = lines[row["case"], row["label"]]
        assert line["rule"] == row["rule"]
        assert (float(line[row["metric"]]) if line[row["metric"]] else None) == row["value"]
    read = tuple(
        Score(**row | {"value": math.nan if row["value"] is None else row["value"]})
        for row in data["rows"]
    )
    assert [repr(row) for row in read] == [repr(row) for row in scores.rows]
    assert (data["failures"], data["not_predicted"]) == ({"d": "damaged"}, ["e"])
    assert data["rules"]["hd95"]["prediction_empty"] == "grid diagonal"
    assert LabelSet.from_dict(data["labels"]) == LABELS
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scores.csv", "scores.json"]


def test_pixels_are_never_called_millimetres(tmp_path):
    prediction, reference = np.zeros((2, 9, 9), np.uint8)
    prediction[1:6, 1:4] = reference[1:5, 1:4] = 1
    names = ("dice", "hd95", "nsd", "volume_error_ml")
    rows = score_case("x", prediction, reference, LABELS, (1.0, 1.0), names, "px")
    scores = Scores(labels=LABELS, metrics=names, rows=tuple(rows), unit="px")
    scores.write(tmp_path)
    header = (tmp_path / "scores.csv").read_text(encoding="utf-8").partition("\n")[0]
    assert header == "case,label,dice,hd95_px,nsd_px,volume_error_px,rule"
    data = json.loads((tmp_path / "scores.json").read_text(encoding="utf-8"))
    assert data["unit"] == "px"
    assert data["units"] == {"dice": "", "hd95_px": "px", "nsd_px": "", "volume_error_px": "px"}
    assert data["summary"]["liver"]["volume_error_px"]["mean"] == 3
    assert data["summary"]["liver"]["hd95_px"]["mean"] == 1
    assert not any("mm" in text for text in data["definitions"].values())
    assert "mm" not in (tmp_path / "scores.csv").read_text(encoding="utf-8")


def test_what_was_written_is_read_back(three_cases, tmp_path):
    places = {"predictions": "/seg", "references": "/ref"}
    lost = {"failures": {"x": "why"}, "not_predicted": ("y",)}
    scores = scores_of(three_cases, **lost, **places)
    scores.write(tmp_path)
    found = read_recorded(tmp_path / "scores.json").scores
    assert found.as_dict() == scores.as_dict()
    assert math.isnan(by_label([r for r in found.rows if r.case == "c"], "dice")["tumour"].value)


def test_other_files_are_not_taken_for_scores(tmp_path):
    for content in ("[]", '{"unit": "mm"}', '{"unit": "mm", "labels": {"values": {"a": 1}}}'):
        (tmp_path / "scores.json").write_text(content)
        with pytest.raises(FileError, match="is not what evaluate writes"):
            read_recorded(tmp_path / "scores.json")


def test_case_means_are_what_the_mean_rests_on(three_cases):
    scores = scores_of(three_cases)
    means = scores.case_means("dice")
    assert means == {"a": 1, "b": 0.5, "c": 1}
    assert scores.mean_foreground("dice") == pytest.approx(sum(means.values()) / 3)

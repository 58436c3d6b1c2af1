"""What a reader of the printed table sees."""

import io
import math
from dataclasses import replace

import pytest
from rich.console import Console

from lamina.cli.scores import CASES_SHOWN, render_scores
from lamina.evaluation.figures import cell, number
from lamina.evaluation.metrics import METRICS
from lamina.evaluation.scores import Scores
from lamina.evaluation.summary import Score
from lamina.labels import LabelSet

LABELS = LabelSet(values={"[red]liver": 1, "tumour": 2}, regions={"both": ("[red]liver", "tumour")})


def rows(label, *values, metric="dice", rule=""):
    return tuple(
        Score(case=f"case_{i}", label=label, metric=metric, value=value, rule=rule)
        for i, value in enumerate(values)
    )


def rendered(scores, width=100, every=False):
    console = Console(file=io.StringIO(), width=width)
    console.print(render_scores(scores, every=every))
    return console.file.getvalue()


def line_with(text, start):
    return next(
        line
        for line in (" ".join(line.split()) for line in text.splitlines())
        if line.startswith(start)
    )


def test_shows_means_deviations_and_the_mean_foreground():
    scores = Scores(
        labels=LABELS,
        metrics=("dice", "hd95", "volume_error_ml"),
        rows=rows("[red]liver", 0.9, 0.8)
        + rows("tumour", 0.5, 0.7)
        + rows("tumour", 3.0, 4.0, metric="hd95")
        + rows("tumour", 1.5, metric="volume_error_ml"),
    )
    text = rendered(scores)
    assert "0.850 ± 0.071" in line_with(text, "[red]liver")
    assert all(
        part in line_with(text, "tumour") for part in ("0.600 ± 0.141", "3.50 ± 0.71", "+1.50")
    )
    assert line_with(text, "Mean") == "Mean foreground 0.725 3.50"
    assert "Scores of 2 cases" in text


def test_there_is_no_table_where_no_case_was_scored():
    failed = {"a": "a.png: damaged."}
    scores = Scores(labels=LABELS, metrics=("dice", "hd95"), rows=(), failures=failed)
    text = rendered(replace(scores, not_predicted=("b",)))
    assert line_with(text, "Failed cases") == "Failed cases 1 a"
    assert line_with(text, "Not predicted cases") == "Not predicted cases 1 b"
    assert "HD95" not in text
    assert "mm" not in text


def test_lists_what_the_means_would_hide():
    scores = Scores(
        labels=LABELS,
        metrics=("dice",),
        rows=rows("tumour", 0.0, 0.0, rule="prediction empty")
        + rows("[red]liver", 0.0, rule="reference empty")
        + rows("both", float("nan"), rule="both empty"),
        failures={"case_7": "damaged.nii.gz: truncated."},
        not_predicted=tuple(f"missing_{i}" for i in range(CASES_SHOWN + 2)),
    )
    text = rendered(scores)
    assert line_with(text, "Missed") == "Missed structures 2 tumour in 2 cases"
    assert line_with(text, "Invented") == "Invented structures 1 [red]liver in 1 case"
    assert line_with(text, "Not app") == "Not applicable 1 both in 1 case"
    assert line_with(text, "Failed") == "Failed cases 1 case_7"
    assert f"cases {CASES_SHOWN + 2} missing_0, " in line_with(text, "Not predicted")
    assert "and 2 more" in text


def test_prints_the_rule_of_every_metric_for_empty_masks():
    metrics = tuple(METRICS)
    text = rendered(Scores(labels=LABELS, metrics=metrics, rows=rows("tumour", 0.5)))
    rules = text[text.index("If a structure is") :]
    assert "NSD at 1 mm" in rules
    assert line_with(rules, "HD95") == "HD95 grid diagonal grid diagonal not applicable"
    assert line_with(rules, "Dice") == "Dice 0 0 not applicable"


@pytest.mark.parametrize("width", [40, 100])
def test_fits_the_console(width):
    labels = LabelSet(values={"left " * 12: 1})
    scores = Scores(
        labels=labels,
        metrics=tuple(METRICS),
        rows=tuple(
            row for name in METRICS for row in rows("left " * 12, 231.1, 163.4, metric=name)
        ),
    )
    text = rendered(scores, width)
    assert max(map(len, text.splitlines())) <= width
    if width == 100:
        assert "197 ± 48" in text


@pytest.mark.parametrize("width", [80, 100])
def test_the_usual_table_of_a_few_structures_is_never_wrapped_or_cut(width):
    labels = LabelSet(values={"Anterior": 1, "Posterior": 2})
    found = Scores(
        labels=labels,
        metrics=tuple(METRICS),
        rows=tuple(
            row
            for label in labels.values
            for name in METRICS
            for row in rows(
                label, *((10.25, 21.75) if METRICS.get(name).unit else (0.25, 0.75)), metric=name
            )
        ),
    )
    text = rendered(found, width)
    table = text[: text.index("Missed structures")]
    assert "…" not in table
    assert table.count("Structure") == 1
    for label in labels.values:
        cells = line_with(table, label).removeprefix(f"{label} 2 ").replace(" ± ", "±").split()
        assert cells == ["0.500±0.354", "16.00±8.13", "0.500±0.354", "+16.00±8.13"]
    every = rendered(found, width, every=True)
    every = every[: every.index("Missed structures")]
    assert "…" not in every
    assert every.count("Structure") == every.count("Anterior") > 1
    assert all(word in every for word in ("IoU", "Specificity", "|Volume error| / mean"))


def test_few_metrics_are_all_shown():
    scores = Scores(
        labels=LABELS,
        metrics=("iou", "dice"),
        rows=rows("tumour", 0.5, metric="iou") + rows("tumour", 0.7),
    )
    assert line_with(rendered(scores), "tumour") == "tumour 1 0.700 0.500"


def test_says_where_a_mean_rests_on_other_cases_than_n_tells():
    scores = Scores(
        labels=LABELS,
        metrics=("dice", "volume_error_ml"),
        rows=rows("tumour", 0.8, float("nan"))
        + rows("tumour", -0.5, 0.0, metric="volume_error_ml"),
    )
    text = rendered(scores, 80)
    assert line_with(text, "tumour") == "tumour 1 0.800 −0.250 ± 0.354"
    assert line_with(text, "n is another") == "n is another Volume error: tumour 2"


def test_what_rounds_to_zero_has_no_sign():
    metric = METRICS.get("volume_error_ml")
    values = {-1e-9: "0.00", 1e-9: "0.00", 0.0: "0.00", -0.25: "−0.250", 0.25: "+0.250"}
    assert {value: number(value, metric) for value in values} == values


def test_small_structures_keep_their_digits():
    metric = METRICS.get("volume_error_ml")
    assert cell(0.0042, 0.0015, metric) == "+0.00420 ± 0.00150"
    assert cell(0.0001, 2.5, metric) == "0.00 ± 2.50"
    assert cell(0.05, math.nan, metric) == "+0.0500"
    assert cell(150.3, 12.2, metric) == "+150 ± 12"
    assert cell(0.00042, 0.00015, METRICS.get("dice")) == "0.000 ± 0.000"


def test_scores_in_pixels_say_so():
    labels = LabelSet(values={"lesion": 1})
    metrics = ("hd95", "nsd", "volume_error_ml")
    found = Scores(
        labels=labels, metrics=metrics, rows=rows("lesion", 2.0, metric="hd95_px"), unit="px"
    )
    text = rendered(found)
    assert "px" in text
    assert "NSD at 1 px" in text
    assert "mm" not in text
    assert "ml" not in text
    assert "2.00" in line_with(text, "lesion")


def test_means_of_found_structures_stand_below_means_that_count_missed_ones():
    found = Scores(
        labels=LABELS,
        metrics=("dice",),
        rows=rows("tumour", 0.8, 0.6)
        + tuple(replace(row, case="case_9") for row in rows("tumour", 0.0, rule="prediction empty"))
        + rows("[red]liver", 0.9),
    )
    text = rendered(found)
    lines = [" ".join(line.split()) for line in text.splitlines()]
    below = lines[lines.index(line_with(text, "tumour 3")) + 1]
    assert line_with(text, "tumour 3") == "tumour 3 0.467 ± 0.416"
    assert below == "if found 2 0.700 ± 0.141"
    # case_0: (0.8 + 0.9) / 2, case_1: 0.6, and case_9: 0, which the conditional mean leaves out.
    assert line_with(text, "Mean foreground") == "Mean foreground 0.483"
    assert lines[lines.index("Mean foreground 0.483") + 1] == "if found 0.725"
    data = found.as_dict()
    assert data["summary"]["tumour"]["dice"]["conditional_mean"] == pytest.approx(0.7)
    assert data["summary"]["tumour"]["dice"]["conditional_n"] == 2
    assert data["mean_foreground_conditional"]["dice"] == pytest.approx(0.725)


def test_nothing_is_said_of_found_structures_where_all_were_found():
    scores = Scores(labels=LABELS, metrics=("dice",), rows=rows("tumour", 0.8, 0.6))
    assert "if found" not in rendered(scores)


def test_shows_headline_metrics_unless_all_are_asked_for():
    names = tuple(METRICS)
    scores = Scores(
        labels=LABELS,
        metrics=names,
        rows=tuple(row for name in names for row in rows("tumour", 0.5, metric=name)),
    )
    assert "ASSD" not in rendered(scores)
    assert "ASSD" in rendered(scores, every=True)
    assert "Dice" in rendered(scores)
    alone = Scores(labels=LABELS, metrics=("assd",), rows=rows("tumour", 0.5, metric="assd"))
    assert "ASSD" in rendered(alone)

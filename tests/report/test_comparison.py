"""Tables and pictures of a comparison: what a reader sees, whatever methods are called."""

import json
import re

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from lamina.evaluation.statistics.comparison import Subject, compare_methods
from lamina.report.comparison import heading, latex, markdown, method_sheet, p_value, percent
from lamina.report.comparison_pictures import (
    MAX_PAIRS,
    critical_difference,
    differences,
    rank_stability,
    save_pictures,
    significance,
)

ODD = r"a_b & 100% | {x} $y$ [red]\c"


def comparison(names, n=12, **extra):
    rng = np.random.default_rng(0)
    base = rng.beta(30, 6, n)
    given = {"measure": "Dice of liver", "unit": "", "higher_is_better": True, "num_cases": n}
    subject = Subject(patients=tuple(f"p{i}" for i in range(n)), **given | extra)
    values = {
        name: np.atleast_2d(base - 0.02 * i + rng.normal(0, 0.01, n))
        for i, name in enumerate(names)
    }
    return compare_methods(subject, values)


def texts(figure):
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    return [t.get_text() for t in (*figure.texts, *axes.texts, *axes.get_yticklabels())]


def test_the_heading_says_what_is_compared_on_whom():
    assert heading(comparison("ab")) == "Dice of liver (↑ higher is better), 12 patients"
    found = comparison("ab", measure="HD95", unit="mm", higher_is_better=False, num_cases=30)
    assert heading(found) == (
        "HD95, mm (↓ lower is better), 12 patients (30 scans, averaged first)"
    )


def test_markdown_holds_every_method_and_pair():
    found = comparison(["unet", "glims", "vnet"])
    lines = markdown(found).splitlines()
    rows = [line for line in lines if line.startswith("| ") and "---" not in line]
    assert len(rows) == (1 + 3) + (1 + 3)
    assert len({line.count("|") for line in rows[:4]}) == 1
    assert "**unet**" in rows[1]
    assert f"{found.methods[0].interval.mean:.3f}" in rows[1]
    assert all(caution in " ".join(lines) for caution in found.cautions)


def test_the_page_shows_the_pictures_beside_it_single_patients_first(tmp_path):
    found = comparison("abc")
    names = save_pictures(tmp_path, found)
    assert {path.name for path in tmp_path.iterdir()} == {*names}
    shown = re.findall(r"!\[[^\]]+\]\(([^)]+)\)", markdown(found, names))
    assert shown == [*names]
    assert shown[0] == "differences.png"


def test_long_names_keep_the_ends_in_which_runs_differ():
    names = ["lgmsnet_patch96_lr0.001_seed0_wd0.05", "lgmsnet_patch96_lr0.001_seed0_wd0.01"]
    figure = rank_stability(comparison(names))
    shown = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert {text[-6:] for text in shown} == {"wd0.05", "wd0.01"}
    assert all(text.startswith("lgmsnet") and len(text) < len(names[0]) for text in shown)


def test_names_cannot_break_a_table():
    found = comparison([ODD, "other"])
    row = next(line for line in markdown(found).splitlines() if "a\\_b" in line)
    assert len(re.findall(r"(?<!\\)\|", row)) == 7
    text = latex(found)
    assert not re.search(r"(?<!\$)[<>](?!\$)", text.split(r"\begin", 1)[1])  # print as ¡ and ¿
    assert r"a\_b \& 100\% | \{x\} \$y\$ [red]\textbackslash{}c" in text
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    bodies = re.findall(r"\\midrule\n(.*?)\n\s*\\bottomrule", text, re.DOTALL)
    assert [body.count(r"\\") for body in bodies] == [2, 1]


@pytest.mark.parametrize(
    ("p", "text"), [(0.00009, "< 0.0001"), (0.0001, "0.0001"), (0.04567, "0.0457"), (1.0, "1.0000")]
)
def test_small_p_values_are_not_rounded_to_nothing(p, text):
    assert p_value(p) == text


@pytest.mark.parametrize(
    ("share", "text"), [(0, "0 %"), (0.001, "<1 %"), (0.5, "50 %"), (0.9996, ">99 %"), (1, "100 %")]
)
def test_rare_is_not_never(share, text):
    assert percent(share) == text


def test_seeds_have_a_column_where_there_are_any():
    assert "SD of seeds" not in method_sheet(comparison("ab")).header
    rng = np.random.default_rng(0)
    subject = comparison("ab").subject
    found = compare_methods(
        subject, {"a": rng.uniform(size=(3, 12)), "b": rng.uniform(size=(1, 12))}
    )
    sheet = method_sheet(found)
    assert sheet.header[-1] == "SD of seeds"
    assert {row[-1] == "–" for row in sheet.rows} == {True, False}


def test_two_methods_give_two_pictures_and_three_give_four(tmp_path):
    save_pictures(tmp_path / "two", comparison("ab"))
    assert len(list((tmp_path / "two").iterdir())) == 2
    save_pictures(tmp_path / "three", comparison("abc"))
    pictures = list((tmp_path / "three").iterdir())
    assert len(pictures) == 4
    for path in pictures:
        with Image.open(path) as picture:
            assert picture.format == "PNG"
            assert len(np.unique(np.asarray(picture.convert("L")))) > 10


def test_pictures_name_methods_as_they_are():
    found = comparison([r"$\alpha$ {", "b", "c"])
    assert r"$\alpha$ {" in texts(rank_stability(found))
    ranks = found.friedman
    assert r"$\alpha$ {" in texts(
        critical_difference(found, ranks.mean_ranks, ranks.critical_difference)
    )


def test_a_bar_joins_what_cannot_be_told_apart():
    rng = np.random.default_rng(1)
    base = rng.uniform(0.5, 0.6, 40)
    subject = comparison("ab", n=40).subject
    values = {
        "a": base + rng.normal(0, 0.01, 40),
        "b": base + rng.normal(0, 0.01, 40),
        "worst": base - 0.3,
    }
    found = compare_methods(subject, {name: row[None] for name, row in values.items()})
    ranks = found.friedman
    axes = critical_difference(found, ranks.mean_ranks, ranks.critical_difference).axes[0]
    bars = [line for line in axes.lines if line.get_linewidth() == 4]
    assert [tuple(np.round(bar.get_ydata()).astype(int)) for bar in bars] == [(0, 1)]


@pytest.mark.parametrize(("n", "told"), [(6, False), (7, True)])
def test_few_patients_have_no_critical_difference(tmp_path, n, told):
    found = comparison("abc", n=n)
    assert (found.friedman.critical_difference is not None) is told
    assert all((pair.nemenyi_p is not None) is told for pair in found.pairs)
    assert ("critical_difference.png" in save_pictures(tmp_path, found)) is told
    assert ("differ significantly (Nemenyi" in markdown(found)) is told
    assert ("no critical difference" in markdown(found)) is not told


def test_each_patient_of_each_pair_is_drawn_once():
    found = comparison("abc")
    figure = differences(found)
    markers = [line for line in figure.axes[0].lines if line.get_markersize() == 4.5]
    assert sum(len(line.get_xdata()) for line in markers) == 12 * 3
    told = " ".join(texts(figure))
    assert all(f"{pair.wins} better, {pair.losses} worse" in told for pair in found.pairs)


def test_what_is_said_of_many_patients_is_not_cut_off():
    values = np.random.default_rng(0).uniform(0.4, 0.9, 600)
    changed = values + np.repeat([0.03, -0.01, 0.0], 200)
    subject = comparison("ab", n=600).subject
    figure = differences(compare_methods(subject, {"a": values[None], "b": changed[None]}))
    assert "200 better, 200 worse, 200 equal" in texts(figure)
    ends = [text.get_window_extent().x1 for text in figure.axes[0].texts]
    assert max(ends) < figure.bbox.x1


def test_of_many_methods_only_pairs_with_the_best_are_drawn():
    found = comparison("abcdefg")
    assert len(found.pairs) > MAX_PAIRS
    figure = differences(found)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"a − {name}" for name in "bcdefg"]


def test_the_map_fills_who_is_better():
    found = comparison("abc", n=30)
    figure = significance(found)
    (image,) = figure.axes[0].images
    filled = np.asarray(image.get_array()) > 0
    assert filled[np.triu_indices(3, 1)].all()
    assert not filled[np.tril_indices(3)].any()


def test_lower_may_be_better():
    found = comparison("abc", unit="mm", higher_is_better=False)
    assert [method.name for method in found.methods] == ["c", "b", "a"]
    note = next(text for text in texts(differences(found)) if text.startswith("Difference"))
    assert note.startswith("Difference, mm: to the left, the first is better.")


def test_means_of_small_structures_keep_their_digits():
    subject = Subject(
        measure="|Volume error|",
        unit="ml",
        higher_is_better=False,
        patients=tuple("abcdef"),
        num_cases=6,
    )
    values = np.array([[0.0011, 0.0012, 0.0013, 0.0014, 0.0015, 0.0016]])
    page = markdown(compare_methods(subject, {"a": values, "b": values + 0.001}))
    assert "| **0.00135** |" in page
    assert "| **−0.001000** |" in page


def test_one_patient_can_be_shown(tmp_path):
    found = comparison("abc", n=1)
    save_pictures(tmp_path, found)
    assert "–" in markdown(found)
    json.dumps(found.as_dict(), allow_nan=False)

"""The page about results: what it says is what was measured, and it stands alone."""

import json
import math
import re
import shutil
import subprocess
from dataclasses import replace
from html import unescape
from urllib.parse import unquote

import numpy as np
import pytest

from lamina.data.fingerprint import CaseFacts, Fingerprint
from lamina.evaluation.scores import Scores, score_case
from lamina.evaluation.statistics.intervals import FEW_TOLD
from lamina.evaluation.statistics.means import MEAN, intervals_of
from lamina.evaluation.summary import Score
from lamina.geometry import affine_from
from lamina.labels import LabelSet
from lamina.volume import Volume

for package in ("jinja2", "matplotlib", "skimage", "trimesh", "fast_simplification"):
    pytest.importorskip(package)

from lamina.report.agreement import agreement_chart  # noqa: E402
from lamina.report.cases import Pair, ranked, ranked_by  # noqa: E402
from lamina.report.charts import curve_chart  # noqa: E402
from lamina.report.facts import data_facts  # noqa: E402
from lamina.report.overlay import css_colours  # noqa: E402
from lamina.report.reliability import reliability_chart  # noqa: E402
from lamina.report.results import Results, curve_charts, save_pdf, save_report  # noqa: E402
from lamina.report.sections import draw_sections  # noqa: E402
from lamina.report.tables import latex_table, markdown_table  # noqa: E402

LABELS = LabelSet(values={"left": 1, "<b>right</b>": 2})
SPACING = (1.0, 1.0, 2.0)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--use-gl=angle", "--use-angle=swiftshader"),
    *("--enable-unsafe-swiftshader", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-extensions"),
    *("--enable-logging=stderr", "--v=0", "--virtual-time-budget=4000", "--dump-dom"),
)


SCORES = Scores(labels=LABELS, metrics=("dice",), rows=())


def label_map(shift=0):
    array = np.zeros((1, 24, 26, 12), np.uint8)
    array[0, 3:9, 6:16, 3:9] = 1
    array[0, 14 + shift : 20 + shift, 6:16, 3:9] = 2
    return array


def pair(case, rank, shift):
    image = np.random.default_rng(0).normal(100, 10, (1, 24, 26, 12)).astype(np.float32)
    return Pair(
        case_id=case,
        rank=rank,
        reference=label_map(),
        predicted=label_map(shift),
        affine=affine_from(SPACING),
        image=Volume(image + 80 * (label_map() > 0), affine_from(SPACING)),
    )


@pytest.fixture(scope="module")
def results():
    shifts = {"good": 0, "<i>fair</i>": 1, "bad": 3}
    rows = [
        row
        for case, shift in shifts.items()
        for row in score_case(
            case, label_map(shift)[0], label_map()[0], LABELS, SPACING, ["dice", "hd95"]
        )
    ]
    ranks = {"good": "best", "<i>fair</i>": "median", "bad": "worst"}
    return Results(
        title="A <network>",
        subtitle="three scans",
        scores=Scores(labels=LABELS, metrics=("dice", "hd95"), rows=tuple(rows)),
        read_pairs=lambda: (pair(case, ranks[case], shift) for case, shift in shifts.items()),
        sizes={"left": {case: (1.2, 1.2 + 0.1 * s) for case, s in shifts.items()}},
        histories={"run": [{"epoch": e, "loss": 1 / (e + 1), "dice": 0.1 * e} for e in range(5)]},
        data={"Scans": "3"},
        plan=[("patch size", "8 × 8", "It <fits>.")],
        cost={"Parameters": "1,234"},
        provenance={"Seed": "7"},
    )


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    save_report(path, results)
    return path


def test_every_case_is_listed_with_the_very_dice_that_was_measured(results, page):
    text = page.read_text("utf-8")
    dice = {(r.case, r.label): r.value for r in results.scores.rows if r.metric == "dice"}
    assert dice["bad", "<b>right</b>"] == pytest.approx(0.5)
    for case in ("good", "bad"):
        (row,) = re.findall(rf'<tr id="case-{case}">(.*?)</tr>', text)
        values = [float(value) for value in re.findall(r'data-value="([^"]*)"', row)][1:]
        left, right = (dice[case, label] for label in LABELS.foreground)
        assert values[0] == pytest.approx((left + right) / 2, abs=1e-12)
        assert values[2:] == [left, right]
        assert f'<td data-value="{right}">{right:.3f}</td>' in row


def test_the_page_fetches_nothing_and_obeys_no_name(page):
    text = page.read_text("utf-8")
    assert not re.search(r"https?://|<link|@import|url\((?!#)", text)
    assert "default-src 'none'" in text
    assert "A &lt;network&gt;" in text
    assert "It &lt;fits&gt;." in text
    for name in ("<i>fair</i>", "<b>right</b>"):
        assert name not in text
    sources = re.findall(r'<image href="(.{16})', text)
    assert sources
    assert set(sources) == {"data:image/webp;"}


def test_the_page_holds_each_chapter_and_leaves_out_what_is_not_known(results, page, tmp_path):
    anchors = ("scores", "cases", "volumes", "every", "training", "data", "plan", "network")
    text = page.read_text("utf-8")
    assert all(f'<section id="{anchor}">' in text for anchor in anchors)
    bare = Results(title="bare", subtitle="", scores=results.scores)
    save_report(tmp_path / "bare.html", bare)
    text = (tmp_path / "bare.html").read_text("utf-8")
    shown = [anchor for anchor in anchors if f'<section id="{anchor}">' in text]
    assert shown == ["scores", "every"]


def test_an_evaluation_without_a_case_still_has_a_page(tmp_path):
    scores = Scores(labels=LABELS, metrics=("dice",), rows=(), failures={"one": "is damaged."})
    save_report(tmp_path / "empty.html", Results(title="empty", subtitle="", scores=scores))
    assert "is damaged." in (tmp_path / "empty.html").read_text("utf-8")


def test_surfaces_of_both_sides_are_in_the_page_where_they_lie(page):
    text = page.read_text("utf-8")
    scenes = json.loads(re.search(r'id="scenes">(.*?)</script>', text, re.DOTALL)[1])
    assert len(scenes) == 3
    for scene in scenes:
        assert [s["name"] for s in scene["reference"]] == list(LABELS.foreground)
        assert [s["name"] for s in scene["predicted"]] == list(LABELS.foreground)
    good, _, bad = scenes
    assert good["middle"] == pytest.approx([11, 10.5, 11], abs=0.1)
    assert good["far_mm"] == max(SPACING)
    assert bad["far_mm"] in (3, 4)


def test_the_worst_the_middle_and_the_best_case_are_shown():
    values = {"a": 0.5, "b": 0.9, "c": 0.7, "d": math.nan, "e": 0.1, "f": 0.8}
    rows = tuple(
        Score(case=case, label="left", metric=metric, value=value, rule="")
        for case, value in values.items()
        for metric in ("dice", "hd95")
    )
    by_dice = Scores(labels=LABELS, metrics=("hd95", "dice"), rows=rows)
    assert ranked(by_dice) == {"worst": "e", "median": "c", "best": "b"}
    by_distance = Scores(labels=LABELS, metrics=("hd95",), rows=rows)
    assert ranked(by_distance) == {"worst": "b", "median": "c", "best": "e"}
    assert ranked(Scores(labels=LABELS, metrics=("dice",), rows=rows[:2])) == {"worst": "a"}


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR"])
def test_contours_stand_on_the_screen_as_radiologists_look(axes):
    from lamina.geometry import affine_along, reorientation

    turn = reorientation(affine_from((1, 1, 1)), axes)
    array = np.zeros((1, 40, 40, 40), np.uint8)
    array[0, 30:34, 10:20, 10:30] = 1  # on the patient's right
    placed = turn.apply(array)
    affine = turn.affine(affine_from((1, 1, 1), (-20, -20, -20)), (40, 40, 40))
    assert np.allclose(affine[:3, :3], affine_along(axes, (1, 1, 1))[:3, :3])
    image = Volume(np.zeros(placed.shape, np.float32), affine)
    (axial, *_), strip = draw_sections(image, placed, placed, {1: ("it", "#fff")})
    assert axial.letters == ("R", "L", "A", "P")
    ((_, _, path),) = axial.reference
    points = np.array(re.findall(r"([\d.]+) ([\d.]+)", path), float)
    assert np.ptp(points, axis=0) == pytest.approx((4, 10))
    assert points[:, 0].max() < axial.width / 2 + 2.1
    assert [s.caption for s in strip][:2] == ["axial, I 9 mm", "axial, I 5 mm"]


def test_tables_for_a_paper(results):
    text = markdown_table(results.scores)
    lines = text.splitlines()
    assert lines[0] == "| Structure | Dice ↑ | HD95, mm ↓ |"
    assert lines[2].startswith("| left | 1.000 ± 0.000 |")
    assert lines[4].startswith("| **Mean of structures** | **0.88")
    assert "3 cases" in text
    latex = latex_table(results.scores)
    assert r"$<$b$>$right$<$/b$>$ & 0.778 $\pm$ 0.25" in latex
    assert latex.count(r"\\") == 4
    assert r"Dice $\uparrow$" in latex


def test_means_have_the_intervals_of_their_patients_in_page_and_tables(tmp_path):
    """One patient with many scans weighs as much as each of the others."""
    values = {f"p0_{scan}": 0.3 + scan / 100 for scan in range(9)}
    values |= {f"p{patient}": 0.8 + patient / 100 for patient in range(1, 8)}
    patients = {case: case.partition("_")[0] for case in values}
    rows = [("left", case, value) for case, value in values.items()]
    rows += [("<b>right</b>", "p1", 0.9), ("<b>right</b>", "p2", 0.8)]
    scores = Scores(
        labels=LABELS,
        metrics=("dice",),
        rows=tuple(
            Score(case=case, label=label, metric="dice", value=value, rule="")
            for label, case, value in rows
        ),
    )
    intervals = intervals_of(scores, patients, ("dice",))
    found = intervals["left"]["dice"]
    mean = scores.summary()["left"]["dice"].mean
    assert found.low <= found.mean <= found.high
    assert mean < found.low  # so that the interval needs a mean of its own
    told = f"n 8: {found.mean:.3f}, {found.low:.3f} to {found.high:.3f}"
    texts = [markdown_table(scores, intervals), latex_table(scores, intervals)]
    for text in texts:
        assert f"[{told}]" in text
        assert "[n 2:" not in text  # of two patients there is no interval
        assert FEW_TOLD in text
        assert "in brackets the mean of n patients" in text
    save_report(
        tmp_path / "page.html", Results(title="x", subtitle="", scores=scores, intervals=intervals)
    )
    page = (tmp_path / "page.html").read_text("utf-8")
    assert f"<small>{told}</small>" in page
    assert FEW_TOLD in page


def test_enough_patients_need_no_caution():
    rows = tuple(
        Score(case=f"p{n}", label=label, metric="dice", value=0.5 + n / 50, rule="")
        for n in range(20)
        for label in LABELS.values
    )
    scores = Scores(labels=LABELS, metrics=("dice",), rows=rows)
    assert FEW_TOLD not in markdown_table(scores, intervals_of(scores, {}, ("dice",)))


def test_scans_of_one_patient_count_once():
    rows = tuple(
        Score(case=case, label="left", metric="dice", value=value, rule="")
        for case, value in {"a1": 0.2, "a2": 0.4, "b": 0.6, "c": 0.9, "d": math.nan}.items()
    )
    scores = Scores(labels=LABELS, metrics=("dice",), rows=rows)
    found = intervals_of(scores, {"a1": "a", "a2": "a"}, ("dice",))
    assert found["left"]["dice"].n == found[MEAN]["dice"].n == 3
    assert found["left"]["dice"].mean == pytest.approx((0.3 + 0.6 + 0.9) / 3)


def test_flags_are_a_chapter_where_somebody_looked(results, page, tmp_path):
    assert '<section id="flags">' not in page.read_text("utf-8")
    for flags, told in (({"bad": ["<b>right</b>: 1 ml"]}, "&lt;b&gt;right"), ({}, "No case:")):
        save_report(tmp_path / "page.html", replace(results, flags=flags))
        text = (tmp_path / "page.html").read_text("utf-8")
        assert told in text.split('<section id="flags">')[1].split("</section>")[0]


def test_structures_that_no_case_has_take_no_room(tmp_path):
    labels = LabelSet(values={"seen": 1, "never": 2})
    both = {"case": "x", "metric": "dice"}
    rows = (
        Score(label="seen", value=0.0, rule="prediction empty", **both),
        Score(label="never", value=math.nan, rule="both empty", **both),
    )
    scores = Scores(labels=labels, metrics=("dice",), rows=rows)
    text = markdown_table(scores)
    assert "| seen | 0.000 |" in text
    assert "never" not in text
    assert "1 structures missed; 1 structures in no case" in text
    save_report(tmp_path / "page.html", Results(title="x", subtitle="", scores=scores))
    assert "never" not in (tmp_path / "page.html").read_text("utf-8")


def test_what_went_wrong_stands_at_the_top_and_counts_structures_not_regions(tmp_path):
    labels = LabelSet(values={"core": 1}, regions={"tumour": ("core",)})
    rows = tuple(
        Score(case="x", label=label, metric="dice", value=0.0, rule="prediction empty")
        for label in ("core", "tumour")
    )
    scores = Scores(labels=labels, metrics=("dice",), rows=rows, not_predicted=("y", "z"))
    save_report(tmp_path / "page.html", Results(title="x", subtitle="", scores=scores))
    head = (tmp_path / "page.html").read_text("utf-8").split("</header>")[0]
    assert "<b>1</b><span>structures missed</span>" in head
    assert "<b>2</b><span>cases not segmented</span>" in head
    assert "invented" not in head
    assert "1 structures missed; 2 cases not segmented" in markdown_table(scores)


def test_the_caption_tells_which_means_rest_on_fewer_cases():
    rows = [("left", case, 0.5) for case in "abcd"]
    rows += [("<b>right</b>", case, 0.9 if case == "a" else math.nan) for case in "abcd"]
    scores = Scores(
        labels=LABELS,
        metrics=("dice",),
        rows=tuple(
            Score(case=case, label=label, metric="dice", value=value, rule="")
            for label, case, value in rows
        ),
    )
    assert r"4 cases; fewer for Dice: \<b>right\</b> 1; mean" in markdown_table(scores)


def test_intervals_that_nobody_sees_are_not_explained(tmp_path):
    rows = tuple(
        Score(case=f"p{n}", label=label, metric="dice", value=0.5 + n / 50, rule="")
        for n in range(4)
        for label in LABELS.values
    )
    scores = Scores(labels=LABELS, metrics=("dice",), rows=rows)
    intervals = intervals_of(scores, {}, ("dice",))
    assert "in brackets" not in markdown_table(scores, intervals)
    results = Results(title="x", subtitle="", scores=scores, intervals=intervals)
    save_report(tmp_path / "page.html", results)
    text = (tmp_path / "page.html").read_text("utf-8")
    assert "median and range. ↑" in text
    assert FEW_TOLD in text


def test_a_case_says_by_what_it_was_ranked(page):
    text = page.read_text("utf-8")
    heads = re.findall(r'<span class="rank">(\w+)</span><h3>.*?</h3><span[^>]*>([^<]*)', text)
    assert heads == [("best", "Dice 1.000"), ("median", "Dice 0.917"), ("worst", "Dice 0.750")]


def test_tables_show_names_as_they_are():
    labels = LabelSet(values={"_hid<den>": 1})
    rows = (Score(case="x", label="_hid<den>", metric="dice", value=0.5, rule=""),)
    text = markdown_table(Scores(labels=labels, metrics=("dice",), rows=rows))
    assert r"| \_hid\<den> | 0.500 |" in text


def test_a_dot_leads_to_its_case_whatever_it_is_called(results, tmp_path):
    name = 'x"y<b>% ä'
    rows = tuple(
        replace(row, case=name) if row.case == "bad" else row for row in results.scores.rows
    )
    scores = replace(results.scores, rows=rows)
    save_report(tmp_path / "page.html", Results(title="x", subtitle="", scores=scores))
    text = (tmp_path / "page.html").read_text("utf-8")
    link = re.search(r'<a href="#(case-x[^"]*)"><title>([^<]*)</title>', text)
    assert unquote(link[1]) == f"case-{name}"
    assert unescape(link[2]) == name
    assert name in [
        unescape(i).removeprefix("case-") for i in re.findall(r'<tr id="([^"]*)"', text)
    ]
    assert "xlink:href='" not in text


def lines_of(names):
    return {name: [(1, 0.1 * place), (2, 0.2)] for place, name in enumerate(names)}


@pytest.mark.parametrize("count", [2, 9, 13, 60])
def test_names_of_lines_are_whole_and_leave_them_room(count):
    names = ["_hidden", *(f"{number} superior mesenteric artery" for number in range(count - 1))]
    bins = np.ones((3, 20))
    for chart in (
        curve_chart("Dice", "", lines_of(names), {}),
        reliability_chart(dict.fromkeys(names, bins), {}),
    ):
        figure = chart.figure
        figure.draw_without_rendering()
        (axes,) = figure.axes
        legend = axes.get_legend() or figure.legends[0]
        shown = [text.get_text().rstrip("…") for text in legend.get_texts()]
        assert shown == [name[: len(each)] for name, each in zip(names, shown, strict=True)]
        assert min(map(len, shown)) >= len("_hidden")
        box, plot = legend.get_window_extent(), axes.get_window_extent()
        assert figure.bbox.contains(box.x0, box.y0)
        assert plot.height > 100
        assert box.height < 0.8 * plot.height if count <= 8 else not box.overlaps(plot)


def test_structures_have_their_colours_in_the_chart_of_training_too(results):
    lines = [{"epoch": 0, "loss": 1.0, "dice": 0.7} | {f"dice/{n}": 0.7 for n in LABELS.values}]
    *_, chart = curve_charts(replace(results, histories={"run": lines}))
    drawn = [line.get_color() for line in chart.figure.axes[0].get_lines()]
    assert drawn[1:3] == [css_colours(LABELS)[name] for name in LABELS.values]


def test_contours_of_fine_pixels_keep_their_points():
    disk = np.hypot(*np.mgrid[-20:20, -20:20]) < 15
    paths = []
    for mm in (1.0, 0.00025):
        image = Volume(np.zeros((1, 40, 40), np.float32), affine_from((mm, mm)))
        (section,), _ = draw_sections(image, disk[None], disk[None], {1: ("it", "#fff")})
        ((_, _, path),) = section.predicted
        places = np.array(re.findall(r"([\d.]+) ([\d.]+)", path), float) / mm
        assert section.width / mm == pytest.approx(40, rel=0.01)
        paths.append(places)
    assert paths[1] == pytest.approx(paths[0], abs=0.05)


def test_pictures_have_areas_and_scans_volumes():
    for spacing, what in (((1.0, 2.0), "Area of a"), ((1.0, 2.0, 3.0), "Volume of a")):
        dims = len(spacing)
        facts = {"orientation": "RAS"[:dims], "intensity": (), "voxels": {"a": 5}, "oddities": ()}
        case = CaseFacts(case_id="x", shape=(4,) * dims, spacing=spacing, **facts)
        found = Fingerprint(
            spatial_dims=dims,
            orientation="RAS"[:dims],
            channels=(),
            cases=(case,),
            foreground_intensity=(),
        )
        assert what in data_facts(found)


def test_bias_and_limits_of_agreement_have_the_same_digits():
    reference = np.ones(4)
    predicted = reference + (0.17, -0.17, 0.174, -0.166)
    caption = agreement_chart("liver", reference, predicted, "abcd", "ml", "#000000").caption
    assert caption == ("Bias +0.002 ml, limits of agreement −0.383 to +0.387 ml; 4 cases.")


def test_the_marked_epoch_is_the_one_that_was_kept():
    lines = [
        {"epoch": 0, "loss": 1.0, "dice": 0.70, "iou": 0.60},
        {"epoch": 1, "loss": 0.9, "dice": 0.71, "iou": 0.58},
    ]
    for select_by, epoch in (("dice", 2), ("iou", 1)):
        results = Results(
            title="", subtitle="", scores=SCORES, histories={"run": lines}, select_by=select_by
        )
        *_, chart = curve_charts(results)
        assert f"kept: {epoch}" in [text.get_text() for text in chart.figure.axes[0].texts]


def test_cases_are_said_to_be_ranked_by_what_they_are_ranked_by(results, page, tmp_path):
    assert "Ranked by the mean Dice of" in page.read_text("utf-8")
    others = tuple(name for name in results.scores.metrics if name != "dice")
    rows = tuple(row for row in results.scores.rows if row.metric != "dice")
    scores = replace(results.scores, metrics=others, rows=rows)
    save_report(tmp_path / "other.html", replace(results, scores=scores))
    text = (tmp_path / "other.html").read_text("utf-8")
    assert "Ranked by the mean Dice" not in text
    assert f"Ranked by the mean {ranked_by(scores)} of" in text


def test_calibration_is_a_chapter_where_it_was_measured(results, page, tmp_path):
    assert '<section id="calibration">' not in page.read_text("utf-8")
    row = Score(case="good", label="left", metric="brier", value=0.04, rule="")
    metrics = (*results.scores.metrics, "brier")
    scores = replace(results.scores, metrics=metrics, rows=(*results.scores.rows, row))
    save_report(tmp_path / "page.html", Results(title="x", subtitle="", scores=scores))
    assert '<section id="calibration">' in (tmp_path / "page.html").read_text("utf-8")


def test_latex_keeps_special_characters_and_minus_signs():
    labels = LabelSet(values={"50%_a&b": 1})
    row = {"case": "x", "label": "50%_a&b", "rule": ""}
    rows = (Score(metric="volume_error_ml", value=-2.5, **row),)
    text = latex_table(Scores(labels=labels, metrics=("volume_error_ml",), rows=rows))
    assert r"50\%\_a\&b & $-$2.50 \\" in text


def test_charts_are_written_for_print(results, tmp_path):
    save_pdf(tmp_path / "charts.pdf", results)
    content = (tmp_path / "charts.pdf").read_bytes()
    assert content.startswith(b"%PDF")
    assert len(re.findall(rb"/Type /Page\b", content)) == 5


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium to open the page")
def test_a_browser_opens_the_page_without_an_error_or_a_request(page, tmp_path):
    log = tmp_path / "net.json"
    folders = (f"--user-data-dir={tmp_path / 'profile'}", f"--log-net-log={log}")
    done = subprocess.run(
        [CHROMIUM, *QUIET, *folders, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert [line for line in said if "GL Driver Message" not in line] == []
    assert done.stdout.count("<i style=") == 3 * 6 + 2 * 3 or 'class="scene unseen"' in done.stdout
    asked = set(re.findall(r'"url":"(?:https?|wss?)://([^/"]+)', log.read_text("utf-8")))
    own = ("google.com", "googleapis.com", "gstatic.com")  # the browser's, whatever page it shows
    assert [host for host in asked if not host.endswith(own)] == []

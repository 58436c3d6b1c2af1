"""Records of results: what they keep of a run and its scores, and how tables show it."""

import json
import runpy
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lamina.bundle import build_network, load_bundle
from lamina.evaluation.scores import Scores
from lamina.evaluation.statistics.intervals import FEW_TOLD, mean_interval
from lamina.evaluation.summary import Score
from lamina.files import sha256, write_json
from lamina.folders.evaluation import read_evaluation
from lamina.folders.run import RunFolder, read_history
from lamina.io import write_volume
from lamina.labels import LabelSet
from lamina.volume import Volume
from lamina.workflows.cross_validation import cross_validate
from lamina.workflows.evaluate import evaluate

ROOT = Path(__file__).parents[1]
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
SIDES = {"full": 6, "half": 3, "none": 0}
"""Pictures, by how many columns of a structure of six were found in them; the last has none."""


@pytest.fixture(scope="module")
def scores(tmp_path_factory):
    """Scores of three pictures; what is rightly not found in the last is not scored."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, found in SIDES.items():
        for kind, columns in (("masks", 6 if found else 0), ("found", found)):
            array = np.zeros((1, 16, 12), np.uint8)
            array[0, 2 : 2 + columns, 2:8] = 1
            write_volume(Volume(array, AFFINE, unit="px"), folder / kind / f"{name}.png")
    evaluate(folder / "found", folder / "masks", out=folder / "scores")
    return folder / "scores"


@pytest.fixture(scope="module")
def tool():
    return runpy.run_path(str(ROOT / "tools" / "results.py"))


@pytest.fixture
def tables(tmp_path, monkeypatch):
    found = runpy.run_path(str(ROOT / "tools" / "results_page.py"))
    monkeypatch.setitem(found["read_records"].__globals__, "RECORDS", tmp_path)
    return found


@pytest.fixture
def write(tool, tmp_path, monkeypatch, tiny_run, scores):
    """Make a record, and return it."""
    monkeypatch.setitem(tool["write_record"].__globals__, "RECORDS", tmp_path)

    def make(name, run=tiny_run, **more):
        tool["write_record"](name, run, scores, f"how {name} was made", **more)
        return json.loads((tmp_path / f"{name}.json").read_text("utf-8"))

    return make


def test_pictures_are_recorded_in_pixels_and_by_patient(write):
    record = write("one")
    assert record["unit"] == "px"
    assert record["per_patient"]["dice"] == [1.0, round(2 * 3 / 9, 5), None]
    assert record["per_patient"]["hd95"] == [0.0, 3.0, None]


def test_a_record_tells_the_cost_and_nothing_of_the_machines_name(write, tiny_run):
    record = write("one")
    network = build_network(load_bundle(tiny_run / "model.lamina"))
    assert record["cost"]["parameters"] == sum(p.numel() for p in network.parameters())
    assert record["cost"]["window"] == [32, 32, 16]
    assert record["cost"]["macs"] > 1e6
    assert str(tiny_run.parent) not in json.dumps(record)
    assert record["run"].keys().isdisjoint({"process", "ranges", "val_cases", "test_cases"})


def test_the_page_shows_each_set_with_its_networks(write, tables, tmp_path):
    write("one")
    second = write("two")
    second |= {"network": "unext", "note": "worse"}
    second["per_patient"]["dice"] = [0.9, 0.6, None]
    (tmp_path / "two.json").write_text(json.dumps(second), "utf-8")
    third = write("three")
    third["run"]["dataset"] = {"name": "Another set", "licence": "CC0", "source": "A. Nobody."}
    third["spatial_dims"] = 2
    del third["cost"]  # as in records that are older
    (tmp_path / "three.json").write_text(json.dumps(third), "utf-8")
    records = tables["read_records"]()
    page = tables["page"](records)
    assert "Licence of the pictures: CC0. A. Nobody." in page
    assert "Licence of the scans: CC0." in page
    older, first, other = (line.split(" | ") for line in page.splitlines() if "**" in line)
    assert older[6:8] == ["–", "–"]
    assert first[1] == "3 of 7"
    assert first[4:6] == ["1.50 px", "–"]
    assert first[7].endswith("(32×32×16)")
    assert (other[0], other[5]) == ("| unext", "-0.083, p 0.5")
    assert "nan" not in page


def test_who_invents_something_is_worse_than_who_rightly_found_nothing(write, tables, tmp_path):
    right = write("one")
    wrong = write("two") | {"network": "unext"}
    assert right["per_patient"]["dice"][2] is None
    wrong["per_patient"]["dice"][2] = 0.0
    (tmp_path / "two.json").write_text(json.dumps(wrong), "utf-8")
    ((first, other),) = tables["read_records"]().values()
    assert tables["_against_first"]([first, other])[1].startswith("-0.333, p")


def test_a_mean_is_that_of_its_interval_and_few_patients_are_told(write, tables, tmp_path):
    """One patient with many scans weighs no more than the others."""
    record = write("one")
    values = [0.5, 0.6, 0.7, 0.8, 0.9, None]
    record["per_patient"] = {"dice": values, "iou": values, "hd95": [1.0] * 6}
    (tmp_path / "one.json").write_text(json.dumps(record), "utf-8")
    records = tables["read_records"]()
    page = tables["page"](records)
    (row,) = (line.split(" | ") for line in page.splitlines() if "**" in line)
    interval = mean_interval(np.array(values[:-1]))
    assert row[2:5] == [
        f"**0.700** [{interval.low:.3f}, {interval.high:.3f}], n 5",
        "0.700",
        "1.00 px",
    ]
    assert FEW_TOLD in page
    readme = tables["with_table"]("<!-- results:begin --><!-- results:end -->", records)
    assert "| **0.700** | 0.700 | 1.00 px |" in readme


def test_patients_are_told_by_names_and_regions_are_no_structures(tool, tmp_path):
    labels = LabelSet(values={"core": 1, "rim": 2}, regions={"whole": ("core", "rim")})
    dice = {"p1_visit1": (0.2, 0.4, 0.9), "p1_visit2": (0.6, 0.8, 0.9), "p2": (1.0, 1.0, 0.9)}
    rows = tuple(
        Score(case=case, label=label, metric="dice", value=value, rule="")
        for case, values in dice.items()
        for label, value in zip(("core", "rim", "whole"), values, strict=True)
    )
    Scores(labels=labels, metrics=("dice",), rows=rows).write(tmp_path)
    found = tool["by_patient"](read_evaluation(tmp_path), {"dice": "dice"})
    assert found == {"p1": {"dice": pytest.approx(0.5)}, "p2": {"dice": 1.0}}


@pytest.fixture(scope="module")
def all_folds(tiny_work, tmp_path_factory):
    """The folder of a cross-validation of three folds."""
    options = {"anchors": False, "lspm": False, "router": False, "channels": [4, 4, 4, 4, 8]}
    settings = {"model_options": options, "patch_size": [16, 16, 16]}
    length = {"steps_per_epoch": 2, "epochs": 1}
    return cross_validate(tiny_work, tmp_path_factory.mktemp("cv") / "run", settings | length).run


def test_a_cross_validation_is_a_record_of_all_its_scans(write, tool, tables, tmp_path, all_folds):
    fixed = write("fixed")
    tool["write_record"](
        "whole", all_folds, all_folds / "out_of_fold", "all folds", distances=False
    )
    record = json.loads((tmp_path / "whole.json").read_text("utf-8"))
    assert (record["num_folds"], record["num_validation_cases"], record["steps"]) == (3, 6, 6)
    assert len(record["per_patient"]["dice"]) == 6
    assert record["run"]["dataset"] == fixed["run"]["dataset"]
    assert record["run"].keys().isdisjoint({"fold", "num_training_cases", "outcome"})
    ends = [read_history(RunFolder(all_folds / f"fold_{k}"))[-1]["elapsed_s"] for k in range(3)]
    assert record["seconds"] == pytest.approx(sum(ends))
    size = (all_folds / "fold_0" / "model.lamina").stat().st_size / 1e6
    assert record["model_mb"] == pytest.approx(size, abs=0.01)
    assert str(all_folds.parent) not in json.dumps(record)
    rows = [line.split(" | ") for line in tables["page"](tables["read_records"]()).splitlines()]
    shown = {row[1]: row[5] for row in rows if len(row) > 5 and "**" in row[2]}
    assert shown == {"3 of 7": "–", "6, 3 folds": ""}


def test_what_began_from_a_model_took_the_time_of_both(write, tool, tmp_path, tiny_run):
    alone = write("one")
    run = RunFolder(shutil.copytree(tiny_run, tmp_path / "run"))
    start = {"model": sha256(RunFolder(tiny_run).bundle_file)}
    write_json(run.manifest_file, run.manifest() | {"start": start})
    took = load_bundle(RunFolder(tiny_run).bundle_file).training
    for after in (tiny_run, RunFolder(tiny_run).bundle_file):
        both = write("two", run=run.root, after=[after])
        assert both["steps"] == alone["steps"] + took["steps"]
        assert both["seconds"] == pytest.approx(alone["seconds"] + took["seconds"])
    began = run.manifest(), RunFolder(tiny_run).manifest()
    for manifest, after in ((began[0], []), (began[1], [run.root]), (began[0], [tiny_run] * 2)):
        with pytest.raises(SystemExit, match="begun from"):
            tool["before"](manifest, after)


def test_names_beside_a_panel_stay_apart_and_below_its_top(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    spread = runpy.run_path(str(ROOT / "tools" / "results_front.py"))["spread"]
    assert spread([0.2, 0.5]) == [0.2, 0.5]
    levels = spread([0.1, 0.9, 0.91, 0.92, 0.99])
    assert levels[0] == 0.1
    assert levels[-1] <= 1
    assert min(np.diff(levels)) > 0.05


def test_a_record_without_distances_has_its_place_on_the_page(
    write, tool, tables, tiny_run, scores, tmp_path, monkeypatch
):
    asked = ["--run", tiny_run, "--scores", scores, "--note", "nominal", "--no-distances"]
    monkeypatch.setattr("sys.argv", ["results.py", "add", "one", *map(str, asked)])
    tool["main"]()
    record = json.loads((tmp_path / "one.json").read_text("utf-8"))
    assert [*record["per_patient"]] == ["dice", "iou"]
    (row,) = (x for x in tables["page"](tables["read_records"]()).splitlines() if "**" in x)
    assert row.split(" | ")[4] == "–"


def test_an_unfinished_cross_validation_makes_no_record(tool, tmp_path, all_folds):
    manifest = json.loads((all_folds / "manifest.json").read_text("utf-8"))
    del manifest["trained"]["2"]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    with pytest.raises(SystemExit, match="2 of 3 folds are trained"):
        tool["folds_of"](tmp_path)


def test_a_record_beside_another_is_in_its_table_and_of_its_patients(write, tables, tmp_path):
    write("all_channels")
    alone = write("one_channel", variant="CT alone", beside="all_channels")
    alone["run"]["dataset"]["name"] = "The same with one channel"
    (tmp_path / "one_channel.json").write_text(json.dumps(alone), "utf-8")
    (records,) = tables["read_records"]().values()
    assert len(records) == 2
    page = tables["page"]({"Tiny": records})
    assert "- lightmedseg, CT alone: how one_channel was made" in page
    (tmp_path / "one_channel.json").write_text(json.dumps(alone | {"beside": "none"}), "utf-8")
    with pytest.raises(SystemExit, match="one_channel: beside none, which is no record"):
        tables["read_records"]()
    alone["patients_sha256"] = "of others"
    (tmp_path / "one_channel.json").write_text(json.dumps(alone), "utf-8")
    with pytest.raises(SystemExit, match="one_channel: its patients or scans are not"):
        tables["read_records"]()


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ({"failures": {"hard": "out of memory"}}, r"1 failed \(hard\)"),
        ({"not_predicted": ("hard", "odd")}, r"2 not segmented \(hard, odd\)"),
    ],
)
def test_scores_that_lack_scans_make_no_record(tool, tmp_path, tiny_run, scores, lost, said):
    found = read_evaluation(scores).scores
    replace(found, **lost).write(tmp_path)
    with pytest.raises(SystemExit, match=said):
        tool["write_record"]("one", tiny_run, tmp_path, "without the hard scans")


def test_other_scans_of_the_same_patients_are_not_paired(write, tables):
    first = write("one")
    second = first | {"cases_sha256": "of other scans"}
    older = {key: value for key, value in first.items() if key != "cases_sha256"}
    assert tables["_against_first"]([first, second, older])[1:] == ["", "+0.000, p 1"]


def test_runs_of_a_group_have_a_table_of_their_own_and_are_not_the_best(write, tables, tmp_path):
    write("alone")
    for name in ("quick", "quicker"):
        record = write(name, group="A minute each")
        record["per_patient"]["dice"] = [1.0, 1.0, None]
        record["note"] = "all alike"
        (tmp_path / f"{name}.json").write_text(json.dumps(record), "utf-8")
    records = tables["read_records"]()
    before, _, group = tables["page"](records).partition("### A minute each\n")
    assert before.count("| **") == 1
    assert group.count("| **") == 2
    assert group.count("Each: all alike.") == 1
    readme = tables["with_table"]("<!-- results:begin --><!-- results:end -->", records)
    own = json.loads((tmp_path / "alone.json").read_text("utf-8"))["per_patient"]["dice"]
    assert f"**{np.nanmean(np.array(own, float)):.3f}**" in readme


def test_predictions_are_run_for_their_cost_as_a_user_would(
    write, tool, tables, tiny_run, tiny_dataset
):
    scan = tiny_dataset / "imagesTr" / "ball_000.nii.gz"
    cost = tool["prediction_cost"](tiny_run / "model.lamina", scan)
    assert cost["seconds"] > 0
    assert 0.1 < cost["memory_gb"] < 8
    shown = tables["_row"](write("one") | {"prediction": cost}, "–").split(" | ")
    assert shown[8] == f"{cost['seconds']:.2g} s, {cost['memory_gb']:.1f} GB"


def test_the_front_holds_what_no_other_beats_in_time_and_dice(monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    front = runpy.run_path(str(ROOT / "tools" / "results_front.py"))["front"]
    places = {"quick": (0.1, 0.6), "as_slow": (0.5, 0.7), "best": (0.5, 0.8), "worse": (0.9, 0.8)}
    records = [
        {"network": name, "prediction": {"seconds": s}, "per_patient": {"dice": [dice]}}
        for name, (s, dice) in places.items()
    ]
    for order in (records, records[::-1]):
        assert [record["network"] for record in front(order)] == ["quick", "best"]

"""From a run or an evaluation to its page."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from lamina.errors import DatasetError, FileError
from lamina.evaluation.records import read_scores
from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.labels import LabelSet
from lamina.volume import Volume
from lamina.workflows.evaluate import evaluate
from lamina.workflows.predict import predict

for package in ("jinja2", "matplotlib", "skimage", "trimesh", "fast_simplification"):
    pytest.importorskip(package)

from lamina.workflows.report import report  # noqa: E402
from lamina.workflows.steps.reported_cases import pairs_of, sizes_of  # noqa: E402


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report") / "run"
    shutil.copytree(tiny_run, folder)
    return folder


def test_a_run_is_segmented_scored_and_shown_once(run, tmp_path):
    first = report(
        run, markdown=tmp_path / "t.md", latex=tmp_path / "t.tex", pdf=tmp_path / "c.pdf"
    )
    assert first.page == run / "report.html"
    assert all(path.is_file() for path in first.others)
    scores = read_scores(run / "validation" / "scores.json")
    assert first.scores == scores
    assert len(scores.cases) == 2
    text = first.page.read_text("utf-8")
    for chapter in ("scores", "cases", "training", "data", "plan", "network", "origin"):
        assert f'<section id="{chapter}">' in text
    dice = scores.case_means("dice")
    for case in scores.cases:
        assert f'<tr id="case-{case}">' in text
        assert f'<td data-value="{dice[case]}">{dice[case]:.3f}</td>' in text
    stamps = [path.stat().st_mtime_ns for path in sorted((run / "validation").iterdir())]
    report(run, tmp_path / "again.html")
    assert stamps == [path.stat().st_mtime_ns for path in sorted((run / "validation").iterdir())]


def test_other_scores_within_the_run_are_not_called_its_validation(run, tmp_path):
    report(run, tmp_path / "own.html")
    assert "the validation scans of fold 0" in (tmp_path / "own.html").read_text("utf-8")
    for name in ("test_scores", "validation_again"):
        shutil.copytree(run / "validation", run / name)
        report(run, tmp_path / "other.html", scores=run / name)
        text = (tmp_path / "other.html").read_text("utf-8")
        assert "validation scans of fold" not in text
        assert "· the scans in validation" in text


def test_an_evaluation_knows_its_scans_where_the_prediction_tells(cli, run, tiny_dataset, tmp_path):
    found, scored = tmp_path / "found", tmp_path / "scored"
    predict(run, tiny_dataset / "imagesTr", out=found)
    evaluate(found, tiny_dataset / "labelsTr", out=scored, metrics=["dice"])
    done = cli("report", scored, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["out"] == str(scored / "report.html")
    assert told["mean_foreground"]["dice"] == read_scores(scored / "scores.json").mean_foreground(
        "dice"
    )
    text = (scored / "report.html").read_text("utf-8")
    assert text.count("<image ") >= 3 * 3
    assert '<section id="plan">' not in text
    of_run = report(run, tmp_path / "run.html", scores=scored)
    assert len(of_run.scores.cases) == 6
    assert '<section id="plan">' in of_run.page.read_text("utf-8")


def test_scans_are_found_from_wherever_the_report_is_made(run, tiny_dataset, tmp_path, monkeypatch):
    found, scored = tmp_path / "found", tmp_path / "scored"
    monkeypatch.chdir(tiny_dataset)
    predict(run, Path("imagesTr"), out=found, probabilities=True)
    evaluate(found, tiny_dataset / "labelsTr", out=scored, metrics=["dice", "ece"])
    monkeypatch.chdir(tmp_path)
    text = report(scored).page.read_text("utf-8")
    assert text.count("<image ") >= 3 * 3
    assert '<section id="flags">' in text
    assert "<h3>Reliability</h3>" in text.split('<section id="calibration">')[1]


def test_sizes_on_slanted_grids_are_true(tmp_path):
    affine = affine_from((10, 10, 10))
    affine[0, 2] = 5
    for folder, slices in (("found", 1), ("true", 2)):
        array = np.zeros((1, 5, 4, 3), np.uint8)
        array[..., :slices] = 1
        write_volume(Volume(array, affine), tmp_path / folder / "a.nii.gz")
    labels = LabelSet(values={"organ": 1})
    scores = evaluate(tmp_path / "found", tmp_path / "true", labels=labels, metrics=["dice"])
    sizes = sizes_of(pairs_of(scores), scores, lambda *told: None)
    assert sizes == {"organ": {"a": pytest.approx((40, 20))}}


def test_what_was_moved_since_is_left_out_with_a_warning(run, tiny_dataset, tmp_path, caplog):
    found, scored = tmp_path / "found", tmp_path / "scored"
    predict(run, tiny_dataset / "imagesTr", out=found)
    evaluate(found, tiny_dataset / "labelsTr", out=scored, metrics=["dice"])
    shutil.rmtree(found)
    page = report(scored).page.read_text("utf-8")
    assert "No case is shown" in caplog.text
    assert '<section id="scores">' in page
    assert '<section id="cases">' not in page


def test_other_folders_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(DatasetError, match="holds no run and no evaluation.*lamina evaluate"):
        report(tmp_path)
    (tmp_path / "scores.json").write_text("[]")
    with pytest.raises(FileError, match="is not what evaluate writes"):
        report(tmp_path)

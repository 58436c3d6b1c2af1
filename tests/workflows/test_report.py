"""From a run or an evaluation to its page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lamina.errors import ConfigError, DatasetError, FileError
from lamina.evaluation.records import read_recorded
from lamina.files import read_json, sha256, write_json
from lamina.folders.evaluation import read_evaluation
from lamina.geometry import affine_from
from lamina.io import read_labels, write_volume
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
    scores = read_recorded(run / "validation" / "scores.json").scores
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


def test_a_scan_that_failed_takes_no_part_in_the_time_to_segment_one(run, tmp_path):
    own = shutil.copytree(run, tmp_path / "run")
    report(own)
    record = read_json(own / "validation" / "prediction.json")
    for done in record["cases"]:
        done["seconds"] = 3.0
    failed = done | {"segmentation": None, "error": "out of memory", "seconds": 999.0}
    record["cases"] += [failed | {"case_id": f"large_{i}"} for i in range(3)]
    write_json(own / "validation" / "prediction.json", record)
    page = report(own).page.read_text("utf-8")
    assert "median 3 s" in page
    assert "999 s" not in page


def test_patients_that_only_names_tell_are_said_to_be_so(run, scored, tmp_path):
    said, table = "no record says whose they are", tmp_path / "table"
    assert said in report(scored, markdown=table).page.read_text("utf-8")
    assert said in table.read_text("utf-8")
    report(scored, latex=table)
    assert said in table.read_text("utf-8")
    assert said not in report(run, tmp_path / "run.html").page.read_text("utf-8")


def test_an_evaluation_knows_its_scans_where_the_prediction_tells(cli, run, tiny_dataset, tmp_path):
    found, scored = tmp_path / "found", tmp_path / "scored"
    predict(run, tiny_dataset / "imagesTr", out=found)
    evaluate(found, tiny_dataset / "labelsTr", out=scored, metrics=["dice"])
    done = cli("report", scored, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert told["out"] == str(scored / "report.html")
    assert told["mean_foreground"]["dice"] == read_recorded(
        scored / "scores.json"
    ).scores.mean_foreground("dice")
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


def test_segmentations_are_scored_again_where_the_scores_are_of_others(run, tmp_path):
    """As after a run that went on was segmented, and interrupted before it was scored."""
    own = shutil.copytree(run, tmp_path / "run")
    report(own)
    folder = own / "validation"
    record = read_json(folder / "prediction.json")
    entry = record["cases"][0]
    file = folder / entry["segmentation"]
    found = read_labels(file)
    write_volume(replace(found, array=np.roll(found.array, 5, axis=1)), file)
    entry["sha256"] = sha256(file)
    write_json(folder / "prediction.json", record)
    before = read_recorded(folder / "scores.json").scores
    after = report(own).scores
    assert after.rows == evaluate(folder).rows
    assert after.rows != before.rows


def test_a_run_whose_segmentations_are_scored_is_not_scored_again(run, tmp_path):
    own = shutil.copytree(run, tmp_path / "run")
    report(own)
    scored = (own / "validation" / "scores.json").stat().st_mtime_ns
    report(own)
    assert (own / "validation" / "scores.json").stat().st_mtime_ns == scored


@pytest.fixture
def scored(tmp_path):
    """The scores of four pairs of label maps, of 10 x 10 x 10 mm, half of the organ found."""
    affine = affine_from((10, 10, 10))
    affine[0, 2] = 5
    for folder, slices in (("found", 1), ("true", 2)):
        array = np.zeros((1, 5, 4, 3), np.uint8)
        array[..., :slices] = 1
        for case in "abcd":
            write_volume(Volume(array, affine), tmp_path / folder / f"{case}.nii.gz")
    labels, out = LabelSet(values={"organ": 1}), tmp_path / "scored"
    evaluate(tmp_path / "found", tmp_path / "true", out=out, labels=labels, metrics=["dice"])
    return out


def measured(folder):
    found = read_evaluation(folder)
    return sizes_of(pairs_of(found), found.scores, lambda *told: None)


def test_sizes_on_slanted_grids_are_true(scored):
    sizes, unit = measured(scored)
    assert sizes == {"organ": dict.fromkeys("abcd", pytest.approx((40, 20)))}
    assert unit == "ml"


@pytest.mark.parametrize("folder", ["found", "true"])
def test_a_case_that_is_no_longer_what_was_scored_is_left_out(scored, folder, caplog):
    file = scored.parent / folder / "b.nii.gz"
    read = read_labels(file)
    write_volume(replace(read, array=np.roll(read.array, 1, axis=-1)), file)
    write_volume(read, scored.parent / folder / "c.nii.gz")  # another file that holds the same
    sizes, _ = measured(scored)
    assert [*sizes["organ"]] == ["a", "c", "d"]
    assert "b.nii.gz: has changed since it was scored" in caplog.text


def test_sizes_of_pictures_in_mm_are_areas_all_over_the_page(tmp_path):
    labels = LabelSet(values={"head": 1})
    array = np.ones((1, 10, 20), np.uint8)
    for folder in ("found", "true"):
        for case in "abc":
            write_volume(Volume(array, affine_from((1, 1))), tmp_path / folder / f"{case}.nii.gz")
    out = tmp_path / "scored"
    evaluate(tmp_path / "found", tmp_path / "true", out=out, labels=labels, metrics=["dice"])
    sizes, unit = measured(out)
    assert (unit, sizes["head"]["a"]) == ("cm²", pytest.approx((2, 2)))
    page = report(out).page.read_text("utf-8")
    assert "Agreement of areas" in page
    assert "Bias 0.00 cm²" in page


def test_probabilities_in_a_folder_of_their_own_are_found_again(scored):
    likely = np.full((2, 5, 4, 3), 0.5)
    (scored.parent / "sure").mkdir()
    for case in "abcd":
        np.save(scored.parent / "sure" / f"{case}_probabilities.npy", likely)
    folders = [scored.parent / name for name in ("found", "true")]
    evaluate(*folders, out=scored, metrics=["dice", "ece"], probabilities=scored.parent / "sure")
    text = report(scored).page.read_text("utf-8")
    assert "<h3>Reliability</h3>" in text.split('<section id="calibration">')[1]


@pytest.mark.parametrize("option", ["out", "markdown", "latex", "pdf"])
def test_a_folder_in_place_of_a_file_is_refused_before_any_work(run, tmp_path, option):
    work = []
    with pytest.raises(FileError, match="is a folder") as refused:
        report(run, progress=lambda *told: work.append(told), **{option: tmp_path})
    assert refused.value.remedy
    assert work == []


def test_no_file_takes_the_place_of_another(run, tmp_path):
    work, page = [], tmp_path / "page.html"
    with pytest.raises(ConfigError, match="one file for two"):
        report(run, page, markdown=page, progress=lambda *told: work.append(told))
    assert work == []


def test_scores_are_named_only_beside_a_run(run, tiny_dataset, tmp_path):
    found, scored = tmp_path / "found", tmp_path / "scored"
    predict(run, tiny_dataset / "imagesTr", out=found)
    evaluate(found, tiny_dataset / "labelsTr", out=scored, metrics=["dice"])
    with pytest.raises(ConfigError, match="scores: is for a run"):
        report(scored, scores=tmp_path / "others")
    assert not (scored / "report.html").exists()


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

"""Evaluating folders of label maps, good and bad."""

import csv
import json

import nibabel as nib
import numpy as np
import pytest

from lamina.errors import ConfigError, DatasetError, FileError, LabelError, UnknownNameError
from lamina.evaluation.metrics import METRICS
from lamina.io import write_volume
from lamina.labels import LabelSet
from lamina.volume import Volume
from lamina.workflows.evaluate import evaluate
from lamina.workflows.predict import predict
from lamina.workflows.prepare import prepare
from lamina.workflows.train import train

SPACING = (1.0, 2.0, 2.5)
ORGANS = LabelSet(values={"liver": 1, "spleen": 5})


def label_map():
    array = np.zeros((8, 7, 6), np.uint8)
    array[1:5, 1:5, 1:4] = 1
    array[5:7, 4:6, 3:5] = 5
    return array


def save(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([*SPACING, 1]) if affine is None else affine), path)


@pytest.fixture
def folders(tmp_path):
    """Return predictions and references of two cases: one perfect, one with a missed spleen."""
    predictions, references = tmp_path / "predictions", tmp_path / "labelsTr"
    for case in ("a", "b"):
        save(references / f"{case}.nii.gz", label_map())
    save(predictions / "a.nii.gz", label_map())
    save(predictions / "b.nii", np.where(label_map() == 5, 0, label_map()).astype(np.int16))
    return predictions, references


def test_scores_every_pair_and_leaves_both_files(folders, tmp_path):
    calls = []
    scores = evaluate(
        *folders,
        out=tmp_path / "out",
        labels=ORGANS,
        progress=lambda done, total, case: calls.append((done, total, case)),
    )
    values = {(row.case, row.label, row.metric): row.value for row in scores.rows}
    of_masks = [name for name in METRICS if not METRICS.get(name).needs_probability]
    assert len(values) == 2 * 2 * len(of_masks)
    assert values["a", "spleen", "dice"] == 1
    assert values["b", "spleen", "dice"] == 0
    assert values["b", "spleen", "volume_error_ml"] == pytest.approx(-8 * 5 / 1000)
    assert scores.summary()["spleen"]["hd95"].missed == 1
    assert (scores.failures, scores.not_predicted) == ({}, ())
    assert calls == [(1, 2, "a"), (2, 2, "b")]
    data = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert data["mean_foreground"]["dice"] == pytest.approx(0.75)
    with (tmp_path / "out" / "scores.csv").open(encoding="utf-8") as stream:
        assert [line["case"] for line in csv.DictReader(stream)] == ["a", "a", "b", "b"]


def test_volumes_of_slanted_scans_are_true(tmp_path):
    slanted = np.diag([*SPACING, 1.0])
    slanted[1, 2] = 1.0
    save(tmp_path / "found" / "a.nii.gz", np.where(label_map() == 5, 0, label_map()), slanted)
    save(tmp_path / "true" / "a.nii.gz", label_map(), slanted)
    names = ["volume_error_ml", "absolute_volume_error_ml"]
    scores = evaluate(tmp_path / "found", tmp_path / "true", labels=ORGANS, metrics=names)
    values = {row.metric: row.value for row in scores.rows if row.label == "spleen"}
    assert values["volume_error_ml"] == pytest.approx(-8 * 5 / 1000)
    assert values["absolute_volume_error_ml"] == pytest.approx(8 * 7 * 6 * 5 / 1000)


def test_bad_cases_are_listed_and_the_others_go_on(folders):
    predictions, references = folders
    shifted = np.diag([*SPACING, 1.0])
    shifted[0, 3] = 3
    for case in ("cut", "moved", "cropped", "undeclared", "waiting"):
        save(references / f"{case}.nii.gz", label_map())
    save(predictions / "cut.nii.gz", label_map())
    whole = (predictions / "cut.nii.gz").read_bytes()
    (predictions / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    save(predictions / "moved.nii.gz", label_map(), shifted)
    save(predictions / "cropped.nii.gz", label_map()[:-1])
    save(predictions / "undeclared.nii.gz", label_map() + 1)
    save(predictions / "stray.nii.gz", label_map())
    (predictions / "notes.txt").write_text("no scan")
    scores = evaluate(predictions, references, labels=ORGANS, metrics=["dice"])
    assert scores.cases == ("a", "b")
    assert scores.not_predicted == ("waiting",)
    reasons = {
        "cut": "cut.nii.gz",
        "moved": "positions differ by 3 mm",
        "cropped": "sizes differ, 7 x 7 x 6 and 8 x 7 x 6",
        "undeclared": "label values [2, 6] are not declared",
        "stray": "has no reference",
    }
    assert scores.failures.keys() == reasons.keys()
    for case, reason in reasons.items():
        assert reason in scores.failures[case]
        assert f"{case}.nii.gz" in scores.failures[case]


def test_two_files_are_a_pair_whatever_they_are_called(folders):
    predictions, references = folders
    scores = evaluate(predictions / "b.nii", references / "a.nii.gz", labels=ORGANS)
    assert scores.cases == ("a",)
    assert scores.mean_foreground("dice") == 0.5


def test_one_prediction_does_not_ask_for_the_rest_of_the_references(folders):
    predictions, references = folders
    scores = evaluate(predictions / "a.nii.gz", references, labels=ORGANS)
    assert (scores.cases, scores.not_predicted) == (("a",), ())


class TestLabels:
    """Where the names of the values come from when nobody gives them."""

    def test_the_prediction_says_first(self, folders):
        predictions, references = folders
        (predictions / "prediction.json").write_text(json.dumps({"labels": ORGANS.as_dict()}))
        (references.parent / "dataset.json").write_text('{"labels": {"0": "background", "1": "x"}}')
        assert evaluate(predictions, references, metrics=["dice"]).labels == ORGANS

    @pytest.mark.parametrize(
        "declared",
        [
            {"0": "background", "1": "liver", "5": "spleen"},
            {"background": 0, "liver": 1, "spleen": 5},
        ],
    )
    @pytest.mark.parametrize("place", ["labelsTr", "."])
    def test_then_the_dataset(self, folders, declared, place):
        predictions, references = folders
        path = references.parent / place / "dataset.json"
        path.write_text(json.dumps({"labels": declared}))
        assert evaluate(predictions, references, metrics=["dice"]).labels == ORGANS

    def test_then_the_values_of_all_references(self, folders):
        predictions, references = folders
        save(references / "c.nii.gz", np.where(label_map() == 1, 1000, 0).astype(np.int16))
        (references / "d.nii.gz").write_bytes(b"no scan")
        scores = evaluate(predictions, references, metrics=["dice"])
        assert dict(scores.labels.values) == {"label_1": 1, "label_5": 5, "label_1000": 1000}
        assert scores.cases == ("a", "b")

    @pytest.mark.parametrize("labels", [["liver"], {"liver": "one"}, {"background": 0}])
    def test_a_damaged_declaration_is_refused(self, folders, labels):
        predictions, references = folders
        (references.parent / "dataset.json").write_text(json.dumps({"labels": labels}))
        with pytest.raises(LabelError, match="labels"):
            evaluate(predictions, references)


def test_ignored_voxels_of_the_reference_do_not_count(folders):
    predictions, references = folders
    ignoring = np.where(label_map() == 5, 99, label_map()).astype(np.uint8)
    save(references / "b.nii.gz", ignoring)
    labels = LabelSet(values=ORGANS.values, ignore=99)
    scores = evaluate(predictions / "b.nii", references, labels=labels, metrics=["dice"])
    assert {row.label: row.rule for row in scores.rows} == {"liver": "", "spleen": "both empty"}


def test_nothing_to_pair_is_an_error_that_shows_both_names(folders, tmp_path):
    predictions, _ = folders
    save(tmp_path / "other" / "z.nii.gz", label_map())
    with pytest.raises(
        DatasetError, match=r"\(a, b\) is among the references \(z\).*same file name"
    ):
        evaluate(predictions, tmp_path / "other", labels=ORGANS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no file"):
        evaluate(tmp_path / "empty", predictions, labels=ORGANS)
    with pytest.raises(DatasetError, match="no such file or folder"):
        evaluate(tmp_path / "nowhere", predictions, labels=ORGANS)
    with pytest.raises(DatasetError, match="no such file or folder"):
        evaluate(tmp_path / "nowhere")


def test_one_case_in_two_formats_is_an_error(folders):
    predictions, references = folders
    save(predictions / "a.nii", label_map())
    with pytest.raises(DatasetError, match=r"a.nii and a.nii.gz"):
        evaluate(predictions, references, labels=ORGANS)


def test_an_unknown_metric_is_refused_before_any_file_is_read(tmp_path):
    with pytest.raises(UnknownNameError, match="hd95"):
        evaluate(tmp_path, tmp_path, metrics=["hd59"])


def test_real_references_agree_with_themselves(shared):
    folder = shared / "data" / "hippocampus" / "labelsTr"
    scores = evaluate(folder / "hippocampus_001.nii.gz", folder)
    assert tuple(scores.labels.values) == ("Anterior", "Posterior")
    assert scores.mean_foreground("dice") == scores.mean_foreground("nsd") == 1
    assert scores.mean_foreground("hd95") == 0


def test_a_scan_that_could_not_be_segmented_does_not_vanish(folders):
    predictions, references = folders
    save(references / "c.nii.gz", label_map())
    failed = {"case_id": "c", "segmentation": None, "error": "c.nii.gz: damaged"}
    (predictions / "prediction.json").write_text(
        json.dumps({"labels": ORGANS.as_dict(), "cases": [failed]})
    )
    scores = evaluate(*folders)
    assert scores.failures == {"c": "c.nii.gz: damaged"}
    assert scores.not_predicted == ()


def test_only_scans_that_should_be_scored_and_are_not_have_failed(folders):
    """One was segmented since, and nothing says what another is to be compared with."""
    predictions, references = folders
    save(references / "c.nii.gz", label_map())
    entries = [
        {"case_id": case, "segmentation": None, "error": "damaged"} for case in ("b", "c", "z")
    ]
    (predictions / "prediction.json").write_text(json.dumps({"cases": entries}))
    scores = evaluate(*folders, labels=ORGANS, metrics=["dice"])
    assert scores.cases == ("a", "b")
    assert scores.failures == {"c": "damaged"}


def test_a_metric_that_is_named_twice_counts_once(folders):
    scores = evaluate(*folders, labels=ORGANS, metrics=["dice", "iou", "dice"])
    assert scores.metrics == ("dice", "iou")
    assert scores.summary()["liver"]["dice"].n == 2


def test_one_metric_may_be_named_alone_and_none_is_no_choice(folders):
    assert evaluate(*folders, labels=ORGANS, metrics="dice").metrics == ("dice",)
    with pytest.raises(ConfigError, match="metrics: is empty"):
        evaluate(*folders, labels=ORGANS, metrics=[])


def test_regions_of_the_description_are_scored(folders):
    predictions, references = folders
    (references.parent / "dataset.json").write_text(
        json.dumps({"labels": {"liver": 1, "spleen": 5}, "regions": {"both": ["liver", "spleen"]}})
    )
    assert evaluate(predictions, references).summary()["both"]["dice"].n == 2


def test_regions_of_an_nnunet_description_are_scored(folders):
    predictions, references = folders
    labels = {"background": 0, "both": [1, 5], "spleen": [5]}
    path = references.parent / "dataset.json"
    path.write_text(json.dumps({"labels": labels, "regions_class_order": [1, 5]}))
    summary = evaluate(predictions, references).summary()
    assert {"both", "spleen"} <= summary.keys()
    assert summary["both"]["dice"].n == 2
    path.write_text(json.dumps({"labels": labels | {"background": 9}}))
    with pytest.raises(LabelError, match="dataset.json: labels: the background is not declared"):
        evaluate(predictions, references)


def test_a_runs_own_scans_know_their_labels(tiny_run, tiny_dataset, tmp_path):
    predict(tiny_run, out=tmp_path / "found", split="val", device="cpu")
    by_record = evaluate(tmp_path / "found")
    by_name = evaluate(tmp_path / "found", tiny_dataset / "labelsTr")
    assert by_record.rows == by_name.rows
    assert by_record.rows


def test_scans_from_anywhere_have_no_labels(tiny_run, tiny_dataset, tmp_path):
    predict(tiny_run, tiny_dataset / "imagesTr" / "ball_000.nii.gz", out=tmp_path / "found")
    with pytest.raises(DatasetError, match="lamina evaluate -p SEGMENTATIONS -r"):
        evaluate(tmp_path / "found")
    with pytest.raises(DatasetError, match="lamina evaluate -p SEGMENTATIONS -r"):
        evaluate(tmp_path / "found" / "ball_000.nii.gz")


def test_pictures_whose_pixel_size_a_table_tells_are_segmented_and_scored_in_mm(tmp_path):
    folder = tmp_path / "pictures"
    label = np.zeros((1, 32, 32), np.uint8)
    label[:, 8:24, 8:24] = 1
    for name in ("a", "b", "c"):
        for kind, array in ((f"{name}.png", 200 * label), (f"{name}_mask.png", label)):
            picture = Volume(array, np.diag([-1.0, -1.0, 1.0, 1.0]), "picture", "px")
            write_volume(picture, folder / kind)
    rows = [f"{name}.png,{name}_mask.png,0.5" for name in ("a", "b", "c")]
    (folder / "cases.csv").write_text("\n".join(["image,label,pixel_size_mm", *rows]))
    work, run, out = (tmp_path / name for name in ("work", "run", "out"))
    prepare(folder, work, model="unext", ram_bytes=4e9, device="cpu", rehearse=False, workers=0)
    train(work, run, {"epochs": 1, "steps_per_epoch": 1})
    assert not predict(run, out=out, split="val", device="cpu").failures
    scores = evaluate(out)
    assert scores.failures == {}
    assert scores.unit == "mm"


@pytest.mark.parametrize(
    "record",
    ["[]", '{"cases": 5}', '{"cases": [5]}', '{"cases": [{"case_id": "a"}]}', '{"model": 5}'],
)
def test_a_damaged_record_is_one_clear_error(folders, record):
    (folders[0] / "prediction.json").write_text(record)
    with pytest.raises(FileError, match=r"prediction\.json.*not as a prediction wrote it"):
        evaluate(*folders)


def test_a_case_of_a_record_that_is_none_is_listed(folders):
    entry = {"case_id": "a", "segmentation": "a.nii.gz", "case": {"case_id": "a"}}
    record = {"labels": ORGANS.as_dict(), "cases": [entry]}
    (folders[0] / "prediction.json").write_text(json.dumps(record))
    assert "cannot be read" in evaluate(folders[0]).failures["a"]

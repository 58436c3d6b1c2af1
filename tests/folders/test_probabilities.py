"""Calibration of predictions whose probabilities lie beside them, or elsewhere."""

import re

import nibabel as nib
import numpy as np
import pytest

from lamina.errors import DatasetError
from lamina.evaluation.scores import score_case
from lamina.io import write_volume
from lamina.labels import LabelSet
from lamina.volume import Volume
from lamina.workflows.evaluate import evaluate

AFFINE = np.diag([1.0, 2.0, 2.5, 1.0])
LABELS = LabelSet(values={"liver": 1, "tumour": 2}, regions={"whole": ("liver", "tumour")})


@pytest.fixture
def folders(tmp_path):
    """One case, whose prediction misses a layer of the liver."""
    reference = np.zeros((6, 7, 5), np.uint8)
    reference[1:5, 1:5, 1:4], reference[2, 2, 2] = 1, 2
    prediction = reference.copy()
    prediction[4] = 0
    for folder, array in (("predictions", prediction), ("labels", reference)):
        write_volume(Volume(array[None], AFFINE), tmp_path / folder / "a.nii.gz")
    return tmp_path / "predictions", tmp_path / "labels"


def maps(sure=0.8):
    """Return probabilities of background, liver and tumour: so sure of what was predicted."""
    prediction = np.zeros((6, 7, 5), int)
    prediction[1:4, 1:5, 1:4], prediction[2, 2, 2] = 1, 2
    rest = (1 - sure) / 2
    return np.where(np.arange(3).reshape(3, 1, 1, 1) == prediction, sure, rest).astype(np.float32)


def value(scores, label, metric):
    return next(r.value for r in scores.rows if (r.label, r.metric) == (label, metric))


def test_calibration_is_measured_where_there_are_probabilities(folders):
    assert not {"ece", "brier"} & set(evaluate(*folders, labels=LABELS).metrics)
    np.save(folders[0] / "a_probabilities.npy", maps())
    scores = evaluate(*folders, labels=LABELS)
    assert scores.cases == ("a",), "a file of probabilities is no case"
    assert scores.failures == {}
    # The box around the liver, 3 voxels wider, is the grid of 210 voxels: 35 of the liver at 0.8
    # and 12 at 0.1; the tumour and 162 of the background at 0.1.
    expected = (35 * 0.2**2 + 12 * 0.9**2 + 163 * 0.1**2) / 210
    assert value(scores, "liver", "brier") == pytest.approx(expected)
    # Of the region the tumour is a part: 36 voxels at 0.9 and 12 at 0.2, as 162 of the background.
    expected = (36 * 0.1**2 + 12 * 0.8**2 + 162 * 0.2**2) / 210
    assert value(scores, "whole", "brier") == pytest.approx(expected)
    expected = (36 * 0.1 + abs(174 * 0.2 - 12)) / 210
    assert value(scores, "whole", "ece") == pytest.approx(expected)


def test_images_of_probabilities_may_lie_in_another_folder(folders, tmp_path):
    expected = tmp_path / "arrays"
    expected.mkdir()
    np.save(expected / "a_probabilities.npy", maps())
    image = nib.Nifti1Image(np.moveaxis(maps(), 0, -1), AFFINE)
    (tmp_path / "images").mkdir()
    nib.save(image, tmp_path / "images" / "a_probabilities.nii.gz")
    found = [
        evaluate(*folders, labels=LABELS, metrics=["ece"], probabilities=folder)
        for folder in (expected, tmp_path / "images")
    ]
    assert found[0].failures == found[1].failures == {}
    assert value(found[0], "liver", "ece") == pytest.approx(value(found[1], "liver", "ece"))


def test_a_case_without_probabilities_fails_by_itself(folders):
    for folder in folders:
        (folder / "b.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes())
    np.save(folders[0] / "a_probabilities.npy", maps())
    scores = evaluate(*folders, labels=LABELS, metrics=["dice", "ece"])
    assert scores.cases == ("a",)
    assert "holds no b_probabilities.npy" in scores.failures["b"]
    assert "--metrics" in scores.failures["b"]


def test_calibration_that_nobody_asked_for_costs_no_case_its_scores(folders, caplog):
    for folder in folders:
        (folder / "b.nii.gz").write_bytes((folder / "a.nii.gz").read_bytes())
    np.save(folders[0] / "a_probabilities.npy", maps())
    scores = evaluate(*folders, labels=LABELS)
    assert (scores.cases, scores.failures) == (("a", "b"), {})
    assert not {"ece", "brier"} & set(scores.metrics)
    assert "probabilities of 1 of 2 cases" in caplog.text
    asked = evaluate(*folders, labels=LABELS, probabilities=folders[0])
    assert asked.cases == ("a",)
    assert "holds no b_probabilities.npy" in asked.failures["b"]


@pytest.mark.parametrize(
    ("array", "fault"),
    [
        (maps()[:2], r"has shape \(2, 6, 7, 5\), \(3, 6, 7, 5\) is needed"),
        (maps()[..., :4], "is needed"),
        (4 * maps(), "holds no probabilities: values from 0.4 to 3.2, sums from 4 to 4"),
        (maps() - 0.2, "holds no probabilities"),
        (np.full_like(maps(), np.nan), "holds no probabilities"),
        ((maps() > 0.5).astype(np.uint8), "holds no array of floating-point numbers"),
    ],
)
def test_what_is_no_probability_of_this_case_is_refused(folders, array, fault):
    np.save(folders[0] / "a_probabilities.npy", array)
    scores = evaluate(*folders, labels=LABELS, metrics=["brier"])
    assert scores.rows == ()
    assert re.search(fault, scores.failures["a"])


def test_a_folder_without_any_is_refused(folders, tmp_path):
    with pytest.raises(DatasetError, match="holds no probabilities of any case"):
        evaluate(*folders, labels=LABELS, probabilities=tmp_path / "nowhere")


def test_a_damaged_file_is_one_clear_reason(folders):
    (folders[0] / "a_probabilities.npy").write_bytes(b"\x93NUMPY")
    scores = evaluate(*folders, labels=LABELS, metrics=["brier"])
    assert "a_probabilities.npy: cannot be read" in scores.failures["a"]


def test_ignored_voxels_are_no_evidence_of_calibration():
    reference = np.array([[1, 1, 255, 255]], np.uint8)
    prediction = np.ones_like(reference)
    probabilities = np.array([[[0.1, 0.1, 0.9, 0.9]], [[0.9, 0.9, 0.1, 0.1]]])
    rows = score_case(
        "a",
        prediction,
        reference,
        LabelSet(values={"liver": 1}, ignore=9),
        (1.0, 1.0),
        ["brier"],
        probabilities=probabilities,
    )
    assert rows[0].value == pytest.approx(0.1**2)

"""Segmentations are changed only where that was seen to help, in every fold."""

import numpy as np
import pytest

from lamina.data.case import Case
from lamina.files import write_json
from lamina.geometry import affine_from
from lamina.io import write_volume
from lamina.labels import LabelSet
from lamina.volume import Volume
from lamina.workflows.cross_validation.postprocessing import MARGIN, choose_postprocessing

LABELS = LabelSet(values={"organ": 3, "lesion": 7}, regions={"both": ("organ", "lesion")})
FOLDS = {"a": 0, "b": 0, "c": 1, "d": 1}


@pytest.fixture
def choose(tmp_path):
    """Choose for segmentations that differ from their references as told: case -> change."""

    def choose(changes, reference=lambda case, array: None, lean=0.0):
        entries = []
        for case in FOLDS:
            truth = scene()
            reference(case, truth)
            found = truth.copy()
            changes(case, found)
            write(truth, tmp_path / "labels" / f"{case}.nii.gz", lean)
            write(found, tmp_path / f"{case}.nii.gz", lean)
            path = tmp_path / "labels" / f"{case}.nii.gz"
            about = Case(case_id=case, group=case, images=(path,), label=path).as_dict()
            entries.append({"case_id": case, "segmentation": f"{case}.nii.gz", "case": about})
        write_json(tmp_path / "prediction.json", {"labels": LABELS.as_dict(), "cases": entries})
        return choose_postprocessing(tmp_path, FOLDS)

    return choose


def scene():
    """An organ of 8x8x8 voxels and two lesions of 27 and 8."""
    array = np.zeros((24, 16, 16), np.uint8)
    array[2:10, 2:10, 2:10] = 3
    array[14:17, 2:5, 2:5] = 7
    array[20:22, 2:4, 2:4] = 7
    return array


def write(array, path, lean):
    affine = affine_from((1.0, 1.0, 2.0))
    affine[1, 2] = lean
    write_volume(Volume(array[None], affine, path.name), path)


def chosen(choice):
    return {(step["structure"], step["operation"]) for step in choice.steps}


def island(array):
    array[14:18, 11:15, 11:15] = 3


def test_good_segmentations_are_left_as_they_are(choose):
    choice = choose(lambda case, array: None)
    assert choice.steps == ()
    assert choice.dice == {"organ": 1.0, "lesion": 1.0, "both": 1.0}
    assert len(choice.trials) == 2 * 5


def test_what_is_small_on_slanted_scans_is_told_by_true_volume(choose):
    choice = choose(lambda case, array: island(array), lean=1.5)
    assert choice.steps[0]["min_size"] == pytest.approx(0.5 * 8**3 * 2)


def test_what_helps_is_chosen_for_its_structure_alone_and_recorded_with_figures(choose):
    def stray(case, array):
        island(array)
        array[5, 5, 5] = 0  # too little for a hole to matter

    choice = choose(stray)
    (step,) = choice.steps
    assert (step["structure"], step["operation"]) == ("organ", "remove_small")
    assert step["min_size"] == pytest.approx(0.5 * 8**3 * 2)
    before, after = 2 * 511 / (511 + 64 + 512), 2 * 511 / (511 + 512)
    assert step["dice_before"] == pytest.approx(before)
    assert step["dice_after"] == choice.dice["organ"] == pytest.approx(after)
    assert (step["num_cases"], step["worst_fold"]) == (4, 0.0)
    tried = {t.step.structure: t for t in choice.trials if t.step.operation == "largest_component"}
    assert tried["lesion"].dice_after < tried["lesion"].dice_before == 1.0


def test_a_change_that_makes_one_fold_worse_is_not_chosen_however_much_others_gain(choose):
    """In fold 1 the second part of the organ is real."""

    def stray(case, array):
        island(array)

    def real(case, array):
        if case == "d":
            array[14:18, 11:15, 11:15] = 3

    choice = choose(stray, real)
    assert ("organ", "largest_component") not in chosen(choice)
    (trial,) = (
        t
        for t in choice.trials
        if (t.step.structure, t.step.operation) == ("organ", "largest_component")
    )
    assert trial.gain > MARGIN
    assert not trial.helps or trial.worst_fold >= 0


def test_a_gain_below_the_margin_is_none(choose):
    def speck(case, array):
        array[14, 12, 12] = 3

    choice = choose(speck)
    gains = [t.gain for t in choice.trials if t.step.structure == "organ"]
    assert 0 < max(gains) < MARGIN
    assert choice.steps == ()


def test_holes_are_filled_after_stray_parts_are_gone(choose):
    def wrong(case, array):
        island(array)
        array[4:8, 4:8, 4:8] = 0

    choice = choose(wrong)
    assert [step["operation"] for step in choice.steps] == ["remove_small", "fill_holes"]
    assert choice.dice["organ"] == 1.0
    assert choice.steps[1]["dice_before"] == choice.steps[0]["dice_after"]


def test_a_structure_that_was_only_ever_invented_is_not_judged(choose):
    def none(case, array):
        array[array == 7] = 0

    def invented(case, array):
        if case == "a":
            array[20:22, 2:4, 2:4] = 7

    choice = choose(invented, none)
    assert choice.steps == ()
    lesion = next(t for t in choice.trials if t.step.structure == "lesion")
    assert (lesion.step.operation, lesion.dice_before) == ("fill_holes", 0.0)

"""A model is judged by scans that no part of it was trained on."""

import shutil
from dataclasses import replace

import pytest

from lamina.errors import DatasetError
from lamina.files import read_json, write_json
from lamina.folders.unseen import training_scans, unseen_scans
from lamina.folders.work import WorkFolder
from small_bundles import small_bundle


@pytest.fixture
def work(tiny_work, tmp_path):
    """Two folds of four scans; two more are kept for the end."""
    folder = shutil.copytree(tiny_work, tmp_path / "work")
    ids = sorted(path.name for path in (folder / "cases").iterdir())
    folds = [{"train": ids[2:4], "val": ids[:2]}, {"train": ids[:2], "val": ids[2:4]}]
    write_json(folder / "splits.json", [fold | {"test": ids[4:]} for fold in folds])
    return folder


def model_of(work, training):
    bundle = small_bundle("lightmedseg")
    return replace(bundle, training=training, provenance={"hashes": WorkFolder(work).hashes()})


def names(cases):
    return [case.case_id for case in cases]


def test_a_model_is_judged_by_the_validation_scans_of_its_own_fold(work):
    for number, fold in enumerate(read_json(work / "splits.json")):
        model = model_of(work, {"fold": number})
        assert names(unseen_scans(work, model)) == fold["val"]
        assert names(training_scans(work, model)) == fold["train"]


def test_an_ensemble_is_judged_by_what_all_members_kept_apart(work):
    ensemble = model_of(work, {"members": {"fold_0": {"fold": 0}, "fold_1": {"fold": 1}}})
    folds = read_json(work / "splits.json")
    assert names(unseen_scans(work, ensemble)) == folds[0]["test"]
    write_json(work / "splits.json", [fold | {"test": []} for fold in folds])
    again = model_of(work, ensemble.training)
    with pytest.raises(DatasetError, match="every scan was seen by a member of the ensemble"):
        unseen_scans(work, again)
    assert training_scans(work, again)


def test_another_work_folder_is_refused(work):
    model = model_of(work, {"fold": 0})
    folds = read_json(work / "splits.json")
    write_json(work / "splits.json", folds[::-1])
    for scans in (unseen_scans, training_scans):
        with pytest.raises(DatasetError, match=r"splits\.json: is not what .* was trained with"):
            scans(work, model)


def test_a_model_from_elsewhere_knows_no_splits(work):
    model = replace(small_bundle("lightmedseg"), training={}, provenance={})
    assert names(unseen_scans(work, model)) == read_json(work / "splits.json")[0]["val"]

"""Training notices when the work folder is not what it should be."""

import shutil
from functools import partial

import pytest

from lamina.errors import DatasetError, FileError, TrainingError
from lamina.files import read_json, write_json
from lamina.workflows import prepare as preparation
from lamina.workflows.train import train

prepare = partial(preparation.prepare, rehearse=False)  # which takes longer than the rest


def test_a_run_is_resumed_on_its_own_work_folder(tiny_dataset, tiny_work, tiny_run, tmp_path):
    work, run = tmp_path / "work", tmp_path / "run"
    shutil.copytree(tiny_work, work)
    shutil.copytree(tiny_run, run)
    plan = read_json(work / "plan.json")
    write_json(work / "plan.json", plan | {"estimates": {}, "reasons": {}, "batch_size": 7})
    assert train(work, run, {"epochs": 2}, resume=True).epochs == 2
    write_json(work / "plan.json", plan | {"target_spacing": [1, 1, 1]})
    with pytest.raises(TrainingError, match="work: is not what .*run was trained on"):
        train(work, run, {"epochs": 3}, resume=True)
    prepare(tiny_dataset, tmp_path / "other", ram_bytes=4e9, num_folds=2, workers=0)
    with pytest.raises(TrainingError, match="other: is not what .*run was trained on"):
        train(tmp_path / "other", run, {"epochs": 3}, resume=True)


def test_a_folder_that_was_not_prepared_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="work: not a prepared dataset.*lamina prepare"):
        train(tmp_path / "work", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_dataset_in_place_of_a_work_folder_is_to_be_prepared_into_another(tiny_dataset, tmp_path):
    with pytest.raises(DatasetError, match="not a prepared dataset") as caught:
        train(tiny_dataset, tmp_path / "run")
    told = f"run lamina prepare {tiny_dataset} --out WORK and give WORK."
    assert caught.value.remedy == f"If it is a dataset, {told}"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="DATASET --out .*empty first"):
        train(tmp_path / "empty", tmp_path / "run")


@pytest.mark.parametrize("damage", ["truncated", "gone", "garbage"])
@pytest.mark.parametrize("name", ["image.npy", "label.npy", "positions.npy"])
def test_a_damaged_prepared_case_is_named_before_training_starts(tiny_work, tmp_path, name, damage):
    work = tmp_path / "work"
    shutil.copytree(tiny_work, work)
    path = work / "cases" / "ball_000" / name
    content = path.read_bytes()
    path.unlink()
    if damage != "gone":
        path.write_bytes(content[: len(content) // 2] if damage == "truncated" else b"garbage")
    with pytest.raises(FileError, match=rf"ball_000/{name}: missing or damaged") as caught:
        train(work, tmp_path / "run")
    assert "prepare again" in caught.value.remedy
    assert not (tmp_path / "run").exists()

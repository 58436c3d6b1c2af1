"""What a run leaves for those who watch it: waiting, outcome, pictures, MLflow's refusal."""

import importlib.util
import io

import numpy as np
import pytest
from PIL import Image

from lamina.errors import FileError
from lamina.files import read_json
from lamina.folders.run import RunFolder, read_history
from lamina.workflows.steps.loggers import Board
from lamina.workflows.train import train

PLAIN = {"anchors": False, "lspm": False, "router": False}
SHORT = {
    "model_options": {
        "anchors": False,
        "lspm": False,
        "router": False,
        "channels": [4, 4, 4, 4, 8],
    },
    "patch_size": [16, 16, 16],
    "steps_per_epoch": 1,
    "epochs": 2,
}


@pytest.fixture(scope="module")
def finished(tiny_work, tmp_path_factory):
    heard = []
    run = RunFolder(tmp_path_factory.mktemp("watched") / "run")
    result = train(tiny_work, run.root, SHORT, on_start=lambda *about: heard.append(about))
    return run, result, heard


def test_waiting_is_told_per_epoch_in_the_result_and_in_the_manifest(finished):
    run, result, _ = finished
    assert all(0 < line["waiting"] < 1 for line in read_history(run))
    assert 0 < result.waiting < 1
    assert result.as_dict()["waiting"] == result.waiting
    outcome = read_json(run.manifest_file)["outcome"]
    assert (outcome["state"], outcome["why"]) == ("finished", "")
    assert (outcome["waiting"], outcome["epochs"]) == (result.waiting, 2)


def test_who_watches_is_told_the_length_and_what_a_resumed_run_has_behind_it(
    tiny_work, finished, tmp_path
):
    run, _, ((config, behind),) = finished
    assert (config.epochs, config.steps_per_epoch, list(behind)) == (2, 1, [])
    out, heard = tmp_path / "run", []
    train(tiny_work, out, SHORT | {"epochs": 1})
    train(tiny_work, out, {"epochs": 2}, resume=True, on_start=lambda *about: heard.extend(about))
    assert heard[0].epochs == 2
    assert [line["epoch"] for line in heard[1]] == [0]


def test_tensorboard_shows_one_validation_case_after_each_epoch(finished):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _, _ = finished
    board = EventAccumulator(str(run.root / "tensorboard"), size_guidance={"images": 0})
    board.Reload()
    (name,) = board.Tags()["images"]
    val = {case.case_id for case in run.cases("val")}
    assert name.removeprefix("validation/") in val
    events = board.Images(name)
    assert [event.step for event in events] == [1, 2]
    picture = np.asarray(Image.open(io.BytesIO(events[0].encoded_image_string)))
    assert picture.std() > 0
    assert "waiting" in board.Tags()["scalars"]


def test_a_run_that_fails_says_so_and_one_that_is_resumed_forgets_it(tiny_work, tmp_path):
    run = RunFolder(tmp_path / "run")

    def fail(report):
        raise FileError("scan.nii: is gone.")

    with pytest.raises(FileError):
        train(tiny_work, run.root, SHORT, on_epoch=fail)
    assert run.manifest()["outcome"] == {"state": "failed", "why": "scan.nii: is gone."}
    seen = []
    train(tiny_work, run.root, resume=True, on_step=lambda *_: seen.append(run.manifest()))
    assert "outcome" not in seen[0]
    assert seen[0]["process"]["pid"]
    assert run.manifest()["outcome"]["state"] == "finished"


def test_training_outlives_a_tensorboard_that_cannot_be_written(tmp_path, monkeypatch, caplog):
    board = Board(RunFolder(tmp_path))
    monkeypatch.setattr(type(board), "experiment", property(_full))
    board.log_metrics({"dice": 0.5}, 1)
    board.show("validation/a", np.zeros((2, 2, 3), np.uint8), 1)
    board.finalize("success")
    (record,) = caplog.records
    assert "cannot be written: No space left" in record.getMessage()


def _full(board):
    raise OSError(28, "No space left on device")


@pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is not None,
    reason="MLflow is installed, and not missed",
)
def test_mlflow_is_missed_in_words_before_anything_is_written(cli, tiny_work, tmp_path):
    done = cli("train", tiny_work, "--out", tmp_path / "run", "--mlflow", tmp_path / "runs.db")
    assert done.exit_code == 2
    assert done.stderr == "Error: mlflow is not installed.\n  pip install 'lamina[mlflow]'\n"
    assert not list(tmp_path.iterdir())

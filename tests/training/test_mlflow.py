"""Numbers in a file of MLflow, and files that are none."""

import importlib.util

import pytest

from lamina.errors import FileError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("mlflow") is None,
    reason="MLflow (the extra mlflow) is not installed",
)


def test_epochs_are_kept_and_a_resumed_run_goes_on_in_the_same_place(tmp_path, monkeypatch):
    from mlflow import MlflowClient

    from lamina.training.mlflow import mlflow_logger

    monkeypatch.chdir(tmp_path)
    file = tmp_path / "deep" / "runs.db"
    first = mlflow_logger(file, "run")
    first.log_metrics({"dice": 0.25, "dice/tumour (core)": 0.5}, step=10)
    first.finalize("success")
    again = mlflow_logger(file, "run", first.version)
    again.log_metrics({"dice": 0.75}, step=20)
    assert again.version == first.version
    client = MlflowClient(f"sqlite:///{file}")
    kept = [(m.step, m.value) for m in client.get_metric_history(first.version, "dice")]
    assert kept == [(10, 0.25), (20, 0.75)]
    assert client.get_metric_history(first.version, "dice/tumour _core_")[0].value == 0.5
    assert mlflow_logger(tmp_path / "other.db", "run", first.version).version != first.version
    assert {path.name for path in tmp_path.iterdir()} == {"deep", "other.db"}


def test_files_that_are_none_of_mlflow_are_refused_at_once(tmp_path):
    from lamina.training.mlflow import mlflow_logger

    (tmp_path / "notes.txt").write_text("years of work")
    with pytest.raises(FileError, match=r"notes\.txt: is no SQLite file"):
        mlflow_logger(tmp_path / "notes.txt", "run")
    assert (tmp_path / "notes.txt").read_text() == "years of work"
    with pytest.raises(FileError, match="cannot be used: Is a directory"):
        mlflow_logger(tmp_path, "run")

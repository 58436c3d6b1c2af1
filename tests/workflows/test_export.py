"""Export leaves a whole model with a report, or nothing."""

import sys
from types import ModuleType

import numpy as np
import pytest

from lamina.bundle import save_bundle
from lamina.errors import BundleError, ConfigError, ExportError, FileError, UnknownNameError
from lamina.export.container import read_exported
from lamina.export.parity import dice_drop
from lamina.export.targets import MODEL, TARGETS, Target, openvino
from lamina.files import read_json, sha256
from lamina.inference.backend import TorchNetwork
from lamina.io import write_volume
from lamina.volume import Volume
from lamina.workflows.export import export
from lamina.workflows.load import load
from lamina.workflows.run import RunFolder
from small_bundles import small_bundle


def test_a_report_compares_segmentations_of_validation_scans(cli, tiny_run, tiny_work, tmp_path):
    out = tmp_path / "x"
    done = cli("export", "-m", tiny_run, "--to", "monai", "-o", out, "--check", tiny_work)
    assert done.exit_code == 0
    assert "loss of 0.00 points" in done.stdout
    report = read_json(out / "parity.json")
    assert report["noise"]["max_abs_error"] == 0
    cases = read_json(tiny_work / "splits.json")[0]["val"]
    assert [case["case_id"] for case in report["scans"]["cases"]] == cases
    assert {case["voxels_that_differ"] for case in report["scans"]["cases"]} == {0}
    model = RunFolder(tiny_run).bundle_file
    source = read_exported(out).source
    assert (source["file"], source["sha256"]) == (model.name, sha256(model))


def test_scans_without_labels_are_compared_with_each_other(tiny_run, tiny_dataset, tmp_path):
    scan = sorted((tiny_dataset / "imagesTr").iterdir())[0]
    done = export(tiny_run, "monai", tmp_path / "x", check=scan)
    assert "dice_drop" not in done.parity["scans"]
    assert done.as_dict()["megabytes"] > 0


def test_channels_in_files_of_their_own_are_one_scan(tmp_path):
    save_bundle(small_bundle("lightmedseg", channels=2), tmp_path / "two.lamina")
    for number in range(2):
        array = np.random.default_rng(number).normal(size=(1, 20, 18, 36)).astype(np.float32)
        write_volume(Volume(array, np.eye(4)), tmp_path / "in" / f"leg_{number:04d}.nii.gz")
    done = export(tmp_path / "two.lamina", "monai", tmp_path / "x", check=tmp_path / "in")
    assert [case["case_id"] for case in done.parity["scans"]["cases"]] == ["leg"]


def test_an_exported_model_is_replaced_and_anything_else_is_not(tiny_run, tmp_path):
    export(tiny_run, "monai", tmp_path / "x")
    export(tiny_run, "monai", tmp_path / "x")
    (tmp_path / "y").mkdir()
    (tmp_path / "y" / "letter.txt").write_text("Dear")
    with pytest.raises(FileError, match="holds something else"):
        export(tiny_run, "monai", tmp_path / "y")


def test_an_exported_model_is_no_model_to_train_or_predict_with(tiny_run, tmp_path):
    export(tiny_run, "monai", tmp_path / "x")
    with pytest.raises(BundleError, match="lamina-runtime"):
        load(tmp_path / "x")


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        ("onyx", {}, UnknownNameError, "onnx"),
        ("onnx", {"int8": True}, ConfigError, "--calibrate"),
        ("onnx", {"int8": True, "calibrate": "work"}, ConfigError, "--to openvino"),
    ],
)
def test_what_does_not_go_together_is_refused(tiny_run, tmp_path, target, options, error, message):
    with pytest.raises(error, match=message):
        export(tiny_run, target, tmp_path / "x", **options)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def quantiser(monkeypatch):
    """OpenVINO and NNCF that only shift logits, by as much as a test says."""

    given = {"windows": [], "shift": 0.0}

    def write(bundle, graphs, folder):
        given["network"] = TorchNetwork(graphs[MODEL].network)
        (folder / "model.txt").write_text("graph")

    def load(folder, graph, threads, precision):
        def run(batch):
            logits = given["network"](batch)
            logits[:, 0] += given["shift"]
            return logits

        return run

    monkeypatch.setitem(sys.modules, "nncf", ModuleType("nncf"))
    monkeypatch.setitem(TARGETS._members, "openvino", Target(packages=(), write=write, load=load))
    monkeypatch.setattr(openvino, "quantise", lambda _, windows: given["windows"].extend(windows))
    return given


def test_quantising_learns_from_windows_of_training_scans(quantiser, tiny_run, tiny_work, tmp_path):
    done = export(tiny_run, "openvino", tmp_path / "x", int8=True, calibrate=tiny_work)
    assert (done.parity["precision"], done.parity["scans"]["dice_drop"]) == ("int8", 0)
    assert {window.shape for window in quantiser["windows"]} == {(1, 1, 32, 32, 16)}
    assert len(quantiser["windows"]) >= len(read_json(tiny_work / "splits.json")[0]["train"])
    assert abs(np.mean([window.mean() for window in quantiser["windows"]])) < 1
    assert read_exported(tmp_path / "x").precision == "int8"


def test_quantising_draws_its_progress_where_no_json_is_printed(tiny_run, tmp_path, capsys):
    pytest.importorskip("nncf")
    out = export(tiny_run, "openvino", tmp_path / "x").out
    capsys.readouterr()
    openvino.quantise(out, [np.zeros((1, 1, 32, 32, 16), np.float32)])
    assert capsys.readouterr().out == ""


def test_quantising_that_costs_dice_leaves_nothing(quantiser, tiny_run, tiny_work, tmp_path):
    whole = load(tiny_run).bundle.metrics["mean_dice"]
    quantiser["shift"] = 1e3  # everything becomes background
    with pytest.raises(ExportError, match=r"falls from 0\.\d+ to 0\.0000"):
        export(tiny_run, "openvino", tmp_path / "x", int8=True, calibrate=tiny_work)
    assert not list(tmp_path.iterdir())
    assert whole > 0.005


def test_a_drop_counts_where_dice_applies():
    nan = float("nan")
    assert dice_drop([0.9, nan, 0.7], [0.8, 0.5, nan]) == pytest.approx(10)
    assert dice_drop([nan], [nan]) == 0

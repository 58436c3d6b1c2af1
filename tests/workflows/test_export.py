"""Export leaves a whole model with a report, or nothing."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import ExifTags, Image

from lamina.bundle import save_bundle
from lamina.errors import BundleError, ConfigError, ExportError, FileError, UnknownNameError
from lamina.export.container import read_exported
from lamina.export.parity import paired_dice
from lamina.export.targets import MODEL, TARGETS, Target, openvino
from lamina.files import read_json, sha256, write_json
from lamina.folders.model import load
from lamina.folders.run import RunFolder
from lamina.inference.backend import TorchNetwork
from lamina.io import read_volume, write_volume
from lamina.volume import Volume
from lamina.workflows.export import Export, export
from small_bundles import small_bundle


def test_a_report_compares_segmentations_of_validation_scans(cli, tiny_run, tiny_work, tmp_path):
    out = tmp_path / "x"
    done = cli("export", "-m", tiny_run, "--to", "monai", "-o", out, "--check", tiny_work)
    assert done.exit_code == 0
    assert "loss of " in done.stdout
    assert f"Next: python -m monai.bundle run --bundle_root {out} " in done.stdout
    report = read_json(out / "parity.json")
    assert report["noise"]["max_abs_error"] == 0
    assert report["scans"]["dice_between"] > 0.95
    model = RunFolder(tiny_run).bundle_file
    source = read_exported(out).source
    assert (source["file"], source["sha256"]) == (model.name, sha256(model))


def test_an_export_names_no_scan_that_it_was_checked_on(cli, tiny_run, tiny_work, tmp_path):
    told = ("--to", "monai", "-o", tmp_path / "x", "--check", tiny_work, "--json")
    done = json.loads(cli("export", "-m", tiny_run, *told).stdout)
    cases = read_json(tiny_work / "splits.json")[0]["val"]
    assert done["case_ids"] == cases
    rows = read_json(tmp_path / "x" / "parity.json")["scans"]["cases"]
    assert [row["scan"] for row in rows] == [*range(1, len(cases) + 1)]
    written = "".join(p.read_text("utf-8", "replace") for p in tmp_path.rglob("*") if p.is_file())
    assert not any(case in written for case in cases)


def test_a_damaged_scan_is_left_out_and_told(cli, tiny_run, tiny_dataset, tmp_path):
    scans = tmp_path / "scans"
    scans.mkdir()
    (scans / "bad.nii.gz").write_text("bad")
    out = tmp_path / "x"
    with pytest.raises(FileError, match=r"bad\.nii\.gz"):
        export(tiny_run, "monai", out, check=scans)
    assert not out.exists()
    shutil.copy(tiny_dataset / "imagesTr" / "ball_000.nii.gz", scans)
    done = cli("export", "-m", tiny_run, "--to", "monai", "-o", out, "--check", scans)
    assert done.exit_code == 1
    assert "Not compared: 1\n" in done.stderr
    assert "bad.nii.gz" in done.stderr
    assert "bad" not in (out / "parity.json").read_text()
    assert len(read_exported(out).source["sha256"]) == 64


def test_pictures_are_compared_once_the_size_of_their_pixels_is_told(cli, tmp_path):
    save_bundle(small_bundle("tinyunet"), tmp_path / "mm.lamina")
    noise = np.random.default_rng(0).integers(0, 256, (40, 50), np.uint8)
    Image.fromarray(noise).save(tmp_path / "head.png")
    out, picture = tmp_path / "x", ("--check", tmp_path / "head.png", "--pixel-size", 0.5)
    done = cli("export", "-m", tmp_path / "mm.lamina", "--to", "torch", "-o", out, *picture)
    assert read_json(out / "parity.json")["scans"]["cases"][0]["voxels"] == noise.size
    way = f"torch.export.load in Python, on {out}/model.pt2"
    assert done.stdout.endswith(f"Next: {way}\n")
    with pytest.raises(BundleError, match=f"Run it with {way}, or"):
        load(out)


@pytest.mark.parametrize("way_up", [3, 6])
def test_photographs_are_compared_the_way_up_that_the_camera_noted(way_up, tmp_path):
    save_bundle(small_bundle("tinyunet", channels=3, unit="px"), tmp_path / "px.lamina")
    rows = np.linspace(0, 255, 90)[:, None] * np.linspace(0.2, 1, 60) ** 2
    picture = np.stack([rows, rows[:, ::-1], rows.max() - rows], axis=2).astype(np.uint8)
    noted = Image.Exif()
    noted[ExifTags.Base.Orientation] = way_up
    Image.fromarray(picture).save(tmp_path / "photo.jpg", exif=noted)
    done = export(tmp_path / "px.lamina", "monai", tmp_path / "x", check=tmp_path / "photo.jpg")
    (row,) = done.parity["scans"]["cases"]
    assert row["voxels_that_differ"] < 0.02 * row["voxels"]


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
    assert (done.case_ids, done.failures) == (("leg",), {})


def test_an_exported_model_is_replaced_and_anything_else_is_not(tiny_run, tmp_path):
    export(tiny_run, "monai", tmp_path / "x")
    export(tiny_run, "monai", tmp_path / "x")
    (tmp_path / "y" / "mine").mkdir(parents=True)
    with pytest.raises(FileError, match=r"holds something else: mine\."):
        export(tiny_run, "monai", tmp_path / "y")
    assert (tmp_path / "y" / "mine").is_dir()


def test_whatever_was_put_into_an_exported_model_is_not_lost(tiny_run, tmp_path):
    out = export(tiny_run, "monai", tmp_path / "x").out
    result = out / "eval" / "leg_seg.nii.gz"
    result.parent.mkdir()
    result.write_text("result")
    with pytest.raises(FileError, match=r"holds something else: eval/leg_seg\.nii\.gz"):
        export(tiny_run, "monai", out)
    assert result.read_text() == "result"
    result.rename(tmp_path / "leg_seg.nii.gz")
    export(tiny_run, "monai", out)


def test_a_damaged_export_is_replaced_as_long_as_its_files_are_known(tiny_run, tmp_path):
    out = export(tiny_run, "monai", tmp_path / "x").out
    (out / "LICENSE").unlink()
    (out / "README.md").write_text("altered")
    export(tiny_run, "monai", out)
    read_exported(out)
    (out / "SHA256SUMS").write_bytes(b"\xff")
    with pytest.raises(FileError, match="holds something else"):
        export(tiny_run, "monai", out)


def test_an_exported_model_is_no_model_to_train_or_predict_with(tiny_run, tmp_path):
    export(tiny_run, "monai", tmp_path / "x")
    with pytest.raises(BundleError, match=r"Run it with python -m monai\.bundle run"):
        load(tmp_path / "x")


@pytest.mark.parametrize(
    ("target", "options", "error", "message"),
    [
        ("onyx", {}, UnknownNameError, "onnx"),
        ("onnx", {"int8": True}, ConfigError, "int8, calibrate: give both"),
        ("onnx", {"int8": True, "calibrate": "work"}, ConfigError, "the target openvino"),
        ("openvino", {"int8": True, "calibrate": "work", "check": "x"}, ConfigError, "check: is"),
        ("onnx", {"pixel_size": 0.5}, ConfigError, "pixel size: is for the scans of check"),
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


def test_quantising_whose_cost_is_not_known_on_every_scan_leaves_nothing(
    quantiser, tiny_run, tiny_work, tmp_path
):
    work = shutil.copytree(tiny_work, tmp_path / "work")
    cohort, val = read_json(work / "dataset.json"), read_json(work / "splits.json")[0]["val"]
    assert len(val) > 1
    for case in cohort["cases"]:
        if case["case_id"] == val[0]:
            case["images"] = [str(tmp_path / "gone.nii.gz")]
    write_json(work / "dataset.json", cohort)
    with pytest.raises(ExportError, match=r"not known on 1 scans .*gone\.nii\.gz") as error:
        export(tiny_run, "openvino", tmp_path / "x", int8=True, calibrate=work)
    assert "without int8" in error.value.remedy
    assert not (tmp_path / "x").exists()


@pytest.fixture
def finds_nothing(monkeypatch):
    """An original that calls everything background."""

    def background(batch):
        logits = np.zeros((len(batch), 3, *batch.shape[2:]), np.float32)
        logits[:, 0] = 1
        return logits

    monkeypatch.setattr("lamina.workflows.export.TorchNetwork", lambda module: background)


def test_quantising_that_invents_a_structure_leaves_nothing(
    quantiser, finds_nothing, tiny_run, tiny_work, tmp_path
):
    work = shutil.copytree(tiny_work, tmp_path / "work")
    cohort = read_json(work / "dataset.json")
    for case in cohort["cases"]:
        label = read_volume(Path(case["label"]))
        case["label"] = str(tmp_path / "empty" / Path(case["label"]).name)
        write_volume(replace(label, array=np.zeros_like(label.array)), Path(case["label"]))
    write_json(work / "dataset.json", cohort)
    quantiser["shift"] = -1e3
    with pytest.raises(ExportError, match=r"falls from 1\.0000 to 0\.0000, by 100\.00 points"):
        export(tiny_run, "openvino", tmp_path / "x", int8=True, calibrate=work)
    quantiser["shift"] = 1e3
    with pytest.raises(ExportError, match="what it costs cannot be measured"):
        export(tiny_run, "openvino", tmp_path / "x", int8=True, calibrate=work)
    assert not (tmp_path / "x").exists()


def test_the_command_says_that_neither_network_finds_anything(cli, monkeypatch):
    noise = {"max_abs_error": 0.0, "max_abs_logit": 1.0, "agreement": 1.0}
    scans = {"dice_between": None, "cases": [{"scan": 1}]}
    parity = {"target": "torch", "precision": "fp32", "noise": noise, "scans": scans}
    made = Export(out=Path("x"), megabytes=1.0, parity=parity, how_to_run="x")
    monkeypatch.setattr("lamina.workflows.export.export", lambda *_, **__: made)
    done = cli("export", "-m", "model", "--to", "torch", "-o", "x")
    assert "Segmentations of 1 scans: neither finds anything\n" in done.stdout


def test_both_means_are_of_the_same_structures():
    nan = float("nan")
    assert paired_dice([0.9, nan, 0.7], [0.8, 0.5, nan]) == pytest.approx((2.6 / 3, 2.3 / 3))
    assert paired_dice([0.9, nan], [0.9, nan]) == pytest.approx((0.9, 0.9))
    assert paired_dice([nan, nan], [0.0, nan]) == (1, 0)
    assert paired_dice([nan], [nan]) is None
    assert paired_dice([], []) is None

"""Segmenting files: what is asked for is done, what cannot be is listed, nothing is lost."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

import lamina
from lamina.cli.views import prediction
from lamina.data.case import Case
from lamina.errors import BundleError, ConfigError, DatasetError, GeometryError, TrainingError
from lamina.files import read_json, sha256
from lamina.folders import model as loading
from lamina.folders.bundle import find_bundle
from lamina.folders.model import load
from lamina.geometry import affine_from
from lamina.io import read_labels, read_volume, write_volume
from lamina.volume import Volume
from lamina.workflows.predict import Prediction, predict


@pytest.fixture(scope="module")
def model(tiny_run):
    return load(tiny_run)


@pytest.fixture
def scan(tiny_dataset):
    return tiny_dataset / "imagesTr" / "ball_000.nii.gz"


@pytest.fixture
def scans(tmp_path, scan):
    """A folder to fill, with one good scan in it."""
    folder = tmp_path / "scans"
    folder.mkdir()
    shutil.copy(scan, folder)
    return folder


@pytest.fixture
def run_copy(tmp_path, tiny_run):
    return Path(shutil.copytree(tiny_run, tmp_path / "run copy"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def on_one_grid(a, b):
    return a.spatial_shape == b.spatial_shape and np.allclose(a.affine, b.affine, atol=1e-4)


def test_bad_files_are_listed_by_name_and_the_good_one_is_done(scans, tiny_run, tmp_path):
    whole = (scans / "ball_000.nii.gz").read_bytes()
    (scans / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (scans / "text.nii.gz").write_text("not a scan")
    (scans / "notes.txt").write_text("no scan, and nobody says it is one")
    (scans / "folder.nii").mkdir()
    write_volume(Volume(np.ones((2, 9, 9, 9)), affine_from((1, 1, 1))), scans / "two.nii.gz")
    write_volume(Volume(np.ones((1, 9, 9)), affine_from((1, 1))), scans / "flat.nii.gz")
    out, calls = tmp_path / "out", []
    result = predict(tiny_run, scans, out=out, progress=lambda *call: calls.append(call))
    reasons = {
        "cut.nii.gz": "gzip data are wrong",
        "flat.nii.gz": "has 2 spatial axes, the plan is for 3",
        "folder.nii": "is a folder",
        "text.nii.gz": "is no NIfTI file",
        "two.nii.gz": "2 channels, 1 are declared",
    }
    assert result.failures.keys() == {name.partition(".")[0] for name in reasons}
    for name, reason in reasons.items():
        told = result.failures[name.partition(".")[0]]
        assert told.startswith(f"{scans / name}: ")
        assert reason in told
        assert told.endswith(".")
    assert names(out) == ["ball_000.nii.gz", "prediction.json"]
    assert on_one_grid(read_labels(out / "ball_000.nii.gz"), read_volume(scans / "ball_000.nii.gz"))
    assert calls[-1] == (6, 6, "two")
    assert [done for done, _, _ in calls] == sorted(done for done, _, _ in calls)


def test_failed_scans_of_one_file_name_are_all_listed(tiny_run, tmp_path):
    files = [tmp_path / f"p{number}" / "t1.nii.gz" for number in (1, 2, 3)]
    cases = [Case(case_id=file.parent.name, group="", images=(file,)) for file in files]
    for file in files:
        file.parent.mkdir()
        file.write_text("not a scan")
    result = predict(tiny_run, cases=cases, out=tmp_path / "out")
    assert result.failures.keys() == {"p1", "p2", "p3"}
    assert prediction(result).startswith("0 of 3 scans segmented")


def test_the_record_says_what_was_done_with_which_model(scans, tiny_run, tmp_path):
    (scans / "void.nii").write_bytes(b"")
    result = predict(tiny_run, scans, out=tmp_path / "out")
    record = read_json(tmp_path / "out" / "prediction.json")
    assert record["model"] == {
        "file": "model.lamina",
        "sha256": sha256(tiny_run / "model.lamina"),
    }
    assert record["labels"]["values"] == {"large": 3, "small": 7}
    assert record["cases"] == result.as_dict()["cases"]
    good, bad = record["cases"]
    assert (good["segmentation"], good["error"]) == ("ball_000.nii.gz", "")
    assert (bad["case_id"], bad["segmentation"]) == ("void", None)
    assert bad["error"] == result.failures["void"]


def test_one_big_scan_moves_the_bar_window_by_window(tiny_run, tmp_path):
    big = Volume(np.random.default_rng(0).normal(size=(1, 128, 32, 16)), affine_from((1, 1, 2)))
    write_volume(big, tmp_path / "big.mha")
    calls = []
    predict(
        tiny_run, tmp_path / "big.mha", out=tmp_path / "out", progress=lambda *c: calls.append(c)
    )
    assert len({done for done, _, _ in calls if 0 < done < 1}) >= 1
    assert calls[-1] == (1, 1, "big")


@pytest.mark.parametrize(
    "name",
    [
        "scan.nii",
        "scan.nii.gz",
        "scan.nrrd",
        "scan.mha",
        "71.name.with.dots.nii.gz",
        "ünïcode näme 画像.nii.gz",
        "[red]markup[.nii.gz",
        "UPPER.NII.GZ",
        " space .mha",
        os.fsdecode(b"stray\xffbyte.nii.gz"),
    ],
)
def test_what_comes_in_goes_out_under_the_same_name_and_format(name, scan, tiny_run, tmp_path):
    image = read_volume(scan)
    (tmp_path / "in").mkdir()
    write_volume(image, tmp_path / "in" / name)
    result = predict(tiny_run, tmp_path / "in" / name, out=tmp_path / "out")
    assert not result.failures
    assert names(tmp_path / "out") == sorted([name, "prediction.json"])
    found = read_labels(tmp_path / "out" / name)
    assert on_one_grid(found, image)
    assert set(np.unique(found.array)) <= {0, 3, 7}
    assert read_json(tmp_path / "out" / "prediction.json")["cases"][0]["segmentation"] == name


def test_results_among_the_scans_are_not_taken_for_scans_the_next_time(scan, tiny_run, tmp_path):
    folder = tmp_path / "scans"
    folder.mkdir()
    sitk.WriteImage(sitk.ReadImage(scan), folder / "a.nhdr")
    for again in (False, True):
        result = predict(tiny_run, folder, out=folder, probabilities=True, resume=again)
        assert [(each.case_id, each.error) for each in result.outcomes] == [("a", "")]
    assert (folder / "a.nrrd").is_file()


def test_tilted_scans_are_listed_or_segmented_on_their_own_grid(scans, tiny_run, tmp_path, cli):
    image, out = read_volume(scans / "ball_000.nii.gz"), tmp_path / "out"
    tilted = image.affine.copy()
    tilted[1, 2] = 0.6
    write_volume(replace(image, affine=tilted), scans / "tilted.nii.gz")
    done = cli("predict", "-m", tiny_run, "-i", scans, "-o", out)
    assert done.exit_code == 1
    assert "tilted.nii.gz: two axes are 16.7 degrees off a right angle" in done.stderr
    assert names(out) == ["ball_000.nii.gz", "prediction.json"]
    done = cli("predict", "-m", tiny_run, "-i", scans, "-o", out, "--resample-oblique")
    assert done.exit_code == 0
    assert on_one_grid(read_labels(out / "tilted.nii.gz"), read_volume(scans / "tilted.nii.gz"))


def test_validation_scans_of_a_run(tiny_run, tiny_work, tmp_path):
    result = predict(tiny_run, out=tmp_path / "out", split="val")
    expected = read_json(tiny_work / "splits.json")[0]["val"]
    assert [outcome.case_id for outcome in result.outcomes] == expected
    assert names(tmp_path / "out") == sorted(
        [*(f"{c}.nii.gz" for c in expected), "prediction.json"]
    )


def test_scans_of_several_files_are_named_after_their_case(run_copy, scan, tmp_path):
    folder = tmp_path / "BraTS2021_00001"
    folder.mkdir()
    image = Path(shutil.copy(scan, folder / "BraTS2021_00001_flair.nii.gz"))
    manifest = read_json(run_copy / "manifest.json")
    case = {"case_id": folder.name, "images": [str(image)]}
    manifest["val_cases"] = [manifest["val_cases"][0] | case]
    (run_copy / "manifest.json").write_text(json.dumps(manifest))
    assert not predict(run_copy, out=tmp_path / "out", split="val").failures
    assert names(tmp_path / "out") == ["BraTS2021_00001.nii.gz", "prediction.json"]


def test_scans_that_were_kept_for_the_end(run_copy, tiny_run, tmp_path):
    manifest = read_json(run_copy / "manifest.json")
    kept = manifest["val_cases"].pop()
    (run_copy / "manifest.json").write_text(json.dumps(manifest | {"test_cases": [kept]}))
    result = predict(run_copy, out=tmp_path / "out", split="test")
    assert [outcome.case_id for outcome in result.outcomes] == [kept["case_id"]]
    (run_copy / "manifest.json").write_text(json.dumps(manifest | {"test_cases": []}))
    with pytest.raises(DatasetError, match="no cases were kept for --split test.*--protocol"):
        predict(run_copy, out=tmp_path / "none", split="test")
    with pytest.raises(TrainingError, match="holds no training run"):
        predict(tiny_run / "model.lamina", out=tmp_path / "none", split="test")
    assert not (tmp_path / "none").exists()


def test_validation_scans_that_are_gone_are_listed(run_copy, tmp_path):
    manifest = read_json(run_copy / "manifest.json")
    manifest["val_cases"][0]["images"] = [str(tmp_path / "gone.nii.gz")]
    (run_copy / "manifest.json").write_text(json.dumps(manifest))
    result = predict(run_copy, out=tmp_path / "out", split="val")
    assert list(result.failures) == ["ball_002"]
    assert "does not exist" in result.failures["ball_002"]


class TestNothingIsWrittenOver:
    """Neither scans nor references; earlier predictions may be."""

    def test_the_scans_themselves(self, scans, tiny_run):
        before = (scans / "ball_000.nii.gz").read_bytes()
        with pytest.raises(DatasetError, match=r"ball_000.nii.gz: would be written over.*--out"):
            predict(tiny_run, scans, out=scans)
        assert (scans / "ball_000.nii.gz").read_bytes() == before
        assert names(scans) == ["ball_000.nii.gz"]

    def test_references_of_the_same_name(self, scans, tiny_run, tiny_dataset, tmp_path):
        shutil.copytree(tiny_dataset / "labelsTr", tmp_path / "labelsTr")
        with pytest.raises(DatasetError, match="not as a prediction left it"):
            predict(tiny_run, scans, out=tmp_path / "labelsTr")

    def test_predictions_that_are_now_scans(self, scans, tiny_run, tmp_path):
        predict(tiny_run, scans, out=tmp_path / "out")
        with pytest.raises(DatasetError, match="results of earlier predictions only"):
            predict(tiny_run, tmp_path / "out", out=tmp_path / "out")
        linked = tmp_path / "link"
        linked.symlink_to(tmp_path / "out")
        with pytest.raises(DatasetError, match="results of earlier predictions only"):
            predict(tiny_run, tmp_path / "out", out=linked)

    def test_an_earlier_prediction_is_made_anew(self, scans, tiny_run, tmp_path):
        predict(tiny_run, scans, out=tmp_path / "out")
        assert not predict(tiny_run, scans, out=tmp_path / "out").failures
        assert on_one_grid(
            read_labels(tmp_path / "out" / "ball_000.nii.gz"),
            read_volume(scans / "ball_000.nii.gz"),
        )

    def test_a_prediction_that_somebody_corrected(self, scans, tiny_run, tmp_path):
        predict(tiny_run, scans, out=tmp_path / "out")
        (tmp_path / "out" / "ball_000.nii.gz").write_bytes(b"corrected by hand")
        with pytest.raises(DatasetError, match="not as a prediction left it"):
            predict(tiny_run, scans, out=tmp_path / "out")
        assert (tmp_path / "out" / "ball_000.nii.gz").read_bytes() == b"corrected by hand"

    def test_a_scan_that_fails_now_leaves_no_older_segmentation(self, scans, tiny_run, tmp_path):
        predict(tiny_run, scans, out=tmp_path / "out")
        (scans / "ball_000.nii.gz").write_bytes(b"damaged")
        assert predict(tiny_run, scans, out=tmp_path / "out").failures
        assert names(tmp_path / "out") == ["prediction.json"]

    def test_the_record_keeps_other_scans_of_the_same_model(self, scans, tiny_run, tmp_path):
        predict(tiny_run, scans, out=tmp_path / "out")
        other = shutil.copy(scans / "ball_000.nii.gz", tmp_path / "other.nii.gz")
        predict(tiny_run, Path(other), out=tmp_path / "out")
        listed = read_json(tmp_path / "out" / "prediction.json")["cases"]
        assert [case["case_id"] for case in listed] == ["ball_000", "other"]


def test_scans_that_only_their_suffix_tells_apart_are_refused(scans, tiny_run, tmp_path):
    write_volume(read_volume(scans / "ball_000.nii.gz"), scans / "ball_000.mha")
    with pytest.raises(DatasetError, match=r"ball_000\.nii\.gz: is called ball_000, as .*\.mha is"):
        predict(tiny_run, scans, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_link_to_itself_is_listed_and_the_good_scan_is_done(scans, tiny_run, tmp_path):
    (scans / "loop.nii.gz").symlink_to("loop.nii.gz")
    out = tmp_path / "out"
    result = predict(tiny_run, scans, out=out)
    assert result.failures.keys() == {"loop"}
    assert "does not exist" in result.failures["loop"]
    assert names(out) == ["ball_000.nii.gz", "prediction.json"]


@pytest.mark.parametrize(
    ("inputs", "split", "message"),
    [
        (None, None, "Give either scans"),
        ("scans", "val", "Give either scans"),
        (None, "train", "Give either scans"),
        ("nowhere", None, "nowhere: no such file or folder"),
        ("empty", None, "empty: holds no scans"),
    ],
)
def test_nothing_to_segment_is_an_error_before_anything_is_written(
    inputs, split, message, scans, tiny_run, tmp_path
):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match=message):
        predict(tiny_run, inputs and tmp_path / inputs, out=tmp_path / "out", split=split)
    assert not (tmp_path / "out").exists()


class TestModels:
    """What may be given as a model."""

    def test_a_missing_one_is_refused(self, tmp_path):
        with pytest.raises(BundleError, match=r"no.lamina: no such file.*Give the path"):
            load(tmp_path / "no.lamina")

    def test_a_damaged_one_is_refused(self, tiny_run, tmp_path):
        data = bytearray((tiny_run / "model.lamina").read_bytes())
        data[len(data) // 2] ^= 0xFF
        (tmp_path / "bad.lamina").write_bytes(data)
        with pytest.raises(BundleError, match=r"bad\.lamina: .*(altered|damaged)"):
            load(tmp_path / "bad.lamina")

    def test_a_folder_without_a_model_is_refused(self, tmp_path):
        with pytest.raises(BundleError, match="holds neither a model nor a checkpoint.*lamina tr"):
            load(tmp_path)

    def test_a_damaged_checkpoint_is_refused(self, run_copy):
        (run_copy / "model.lamina").unlink()
        (run_copy / "checkpoints" / "best.ckpt").write_bytes(b"half")
        with pytest.raises(TrainingError, match=r"best\.ckpt: damaged"):
            load(run_copy)

    def test_the_bundle_of_a_run_without_checkpoints_is_enough(self, run_copy, model):
        shutil.rmtree(run_copy / "checkpoints")
        assert load(run_copy).bundle.plan == model.bundle.plan

    def test_a_bundle_older_than_its_runs_best_checkpoint_is_made_anew(self, run_copy, model):
        before = (run_copy / "model.lamina").read_bytes()
        (run_copy / "model.lamina").write_bytes(b"stale")
        os.utime(run_copy / "model.lamina", (0, 0))
        assert find_bundle(run_copy).read_bytes() == before
        (run_copy / "model.lamina").write_bytes(b"fresh")
        assert find_bundle(run_copy).read_bytes() == b"fresh"


def test_weights_that_do_not_fit_onto_the_gpu_are_loaded_on_the_cpu(
    tiny_run, scan, model, monkeypatch, caplog
):
    whole, asked = loading.fast_network, []

    def full(module, device, **options):
        asked.append(device)
        if device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory.\nwith advice")
        return whole(module, device, **options)

    monkeypatch.setattr(loading, "fast_network", full)
    monkeypatch.setattr(loading, "require_device", lambda device: None)
    found = load(tiny_run, device="cuda").predict(scan)
    assert asked == ["cuda", "cpu"]
    assert "CUDA out of memory.; going on on the CPU, which takes longer." in caplog.messages
    np.testing.assert_array_equal(found.array, model.predict(scan).array)


def test_bf16_on_a_processor_without_it_is_warned_of(tiny_run, monkeypatch, caplog):
    monkeypatch.setattr(loading, "has_bf16", lambda: False)
    load(tiny_run, device="cpu", precision="bf16")
    assert "only imitates bf16" in caplog.text


class TestPython:
    """The same from Python."""

    def test_a_file_and_its_volume_give_the_same(self, model, scan):
        by_file, by_volume = model.predict(scan), model.predict(read_volume(scan))
        np.testing.assert_array_equal(by_file.array, by_volume.array)
        assert on_one_grid(by_file, read_volume(scan))

    def test_an_array_with_its_spacing(self, tiny_run, scan):
        image = read_volume(scan)
        model = lamina.load(str(tiny_run))
        expected = model.predict(str(scan)).array[0]
        np.testing.assert_array_equal(model(image.array, spacing=image.spacing), expected)
        np.testing.assert_array_equal(model(image.array[0], spacing=image.spacing), expected)

    def test_a_list_and_a_tensor_are_arrays_too(self, model, scan):
        image = read_volume(scan)
        expected = model(image.array, spacing=image.spacing)
        for given in (image.array.tolist(), torch.tensor(image.array)):
            np.testing.assert_array_equal(model(given, spacing=image.spacing), expected)

    @pytest.mark.parametrize("shape", [(9, 9), (1, 1, 9, 9, 9)])
    def test_an_array_with_other_axes_than_the_models_scans_is_refused(self, model, shape):
        with pytest.raises(GeometryError, match=r"array: has shape .* needs 3 spatial axes"):
            model(np.ones(shape), spacing=(1, 1, 1))

    @pytest.mark.parametrize("array", [np.full((9, 9, 9), 1j), [[["a"]]], {}])
    def test_an_array_that_does_not_hold_real_numbers_is_refused(self, model, array):
        with pytest.raises(ConfigError, match=r"array: holds .*; real numbers are needed"):
            model(array, spacing=(1, 1, 1))

    @pytest.mark.parametrize(
        "array",
        [
            [[1, 2], [3]],
            torch.ones(9, 9, 9, requires_grad=True),
            torch.ones(9, 9, 9, dtype=torch.bfloat16),
        ],
        ids=["ragged", "grad", "bfloat16"],
    )
    def test_what_numpy_cannot_take_is_refused_and_the_remedy_told(self, model, array):
        with pytest.raises(ConfigError, match="array: cannot be taken as an array") as raised:
            model(array, spacing=(1, 1, 1))
        assert "tensor.detach().float().cpu()" in raised.value.remedy

    @pytest.mark.parametrize("spacing", [None, 1, (1, 1), (1, 0, 1), (1, -2.5, 1), (1, np.nan, 1)])
    def test_a_spacing_that_is_not_one_length_per_axis_is_refused(self, model, spacing):
        named = re.escape(f"spacing = {spacing}: the model measures in mm. Give 3 lengths above 0")
        with pytest.raises(GeometryError, match=named):
            model(np.ones((9, 9, 9)), spacing=spacing)

    def test_predict_is_the_public_name(self, scans, tiny_run, tmp_path):
        assert isinstance(lamina.predict(tiny_run, scans, out=tmp_path / "out"), Prediction)


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
import psutil
from lamina.workflows.predict import predict
model, out, scans = map(Path, sys.argv[1:])
predict(model, scans / "ball_000.nii.gz", out=out)  # once before, to have everything loaded
limit = psutil.Process().memory_info().vms + 400_000_000
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
print(predict(model, scans, out=out).failures)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux keeps to such a limit")
def test_a_scan_too_large_for_the_memory_does_not_stop_the_others(scans, tiny_run, tmp_path):
    large = Volume(np.zeros((1, 500, 500, 300), np.uint8), affine_from((1, 1, 2)))
    write_volume(large, scans / "a_large.nii")
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, tiny_run, tmp_path / "out", scans],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("{'a_large': '")
    assert "emory" in done.stdout or "allocate" in done.stdout
    assert names(tmp_path / "out") == ["ball_000.nii.gz", "prediction.json"]


HEED_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
"""A job in the background of a script ignores it, and so do its children."""


def test_ctrl_c_leaves_whole_files_and_no_traceback(scan, tiny_run, tmp_path):
    folder, out = tmp_path / "many", tmp_path / "out"
    folder.mkdir()
    for number in range(200):
        (folder / f"{number:03d}.nii.gz").symlink_to(scan)
    arguments = ["predict", "-m", tiny_run, "-i", folder, "-o", out]
    with subprocess.Popen(
        [sys.executable, "-c", f"{HEED_CTRL_C}; from lamina.cli import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not list(out.glob("0*.nii.gz")) and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert (stdout, stderr) == ("", "Interrupted: nothing half-written was left behind.\n")
    done = [path for path in out.iterdir() if path.name != "prediction.json"]
    assert 0 < len(done) < 200
    assert not [path for path in done if path.name.startswith(".")]
    for path in done:
        assert on_one_grid(read_labels(path), read_volume(scan))
    recorded = [case["segmentation"] for case in read_json(out / "prediction.json")["cases"]]
    assert {*recorded} <= {path.name for path in done}
    assert len(done) - len(recorded) <= 1

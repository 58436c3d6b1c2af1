"""Every odd or damaged file at hand goes through the program: done on its own grid, or listed."""

import csv
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lamina.bundle import load_bundle, save_bundle
from lamina.files import read_json
from lamina.geometry import affine_from
from lamina.io import is_scan, read_labels, read_volume, strip_suffix, write_volume
from lamina.volume import Volume

EITHER = ("load or clear error", "clear error or grey", "error or fallback", "load or warn")

SAME = (
    "05_not_gzip.nii.gz",
    "06_gzip_named_nii.nii",
    "25_float64.nii.gz",
    "32_nifti2.nii.gz",
    "50_4d_singleton.nii.gz",
    "70_ünïcode näme 画像.nii.gz",
    "71.name.with.dots.nii.gz",
    "72_UPPER.NII.GZ",
)
"""Guises of one scan, which must make no difference."""


@pytest.fixture(scope="module")
def coarse_model(tiny_run, tmp_path_factory):
    """The tiny model on a coarse grid, where every scan takes but a few windows."""
    bundle = load_bundle(tiny_run / "model.lamina")
    plan = replace(bundle.plan, target_spacing=(4.0,) * 3, roi_size=(32,) * 3, overlap=0.0)
    path = tmp_path_factory.mktemp("model") / "coarse.lamina"
    save_bundle(replace(bundle, plan=plan), path)
    return path


@pytest.fixture
def segment(cli, coarse_model, tmp_path):
    """Segment a folder; return what failed by file name, the rest being proven well done."""

    def run(folder, status):
        out = tmp_path / "out"
        done = cli("predict", "-m", coarse_model, "-i", folder, "-o", out)
        assert done.exit_code == status
        assert "Traceback" not in done.output
        cases = {Path(c["image"]).name: c for c in read_json(out / "prediction.json")["cases"]}
        assert cases.keys() == {path.name for path in folder.iterdir() if is_scan(path)}
        failed = {name: case["error"] for name, case in cases.items() if case["error"]}
        for name, error in failed.items():
            assert error.startswith(f"{folder / name}: ")
            assert len(error.splitlines()) == 1
            assert error.rstrip().endswith(".")
            assert error in done.stderr
        done_well = {name: cases[name]["segmentation"] for name in cases.keys() - failed.keys()}
        for name, segmentation in done_well.items():
            image, found = read_volume(folder / name), read_labels(out / segmentation)
            assert found.spatial_shape == image.spatial_shape
            np.testing.assert_allclose(found.affine, image.affine, rtol=1e-4, atol=1e-3)
            assert set(np.unique(found.array)) <= {0, 3, 7}
        assert {path.name for path in out.iterdir()} == {"prediction.json", *done_well.values()}
        return failed

    return run


def test_the_files_of_the_manifest_behave_as_it_says(shared, segment, tmp_path):
    robustness, folder = shared / "data" / "robustness", tmp_path / "all"
    folder.mkdir()
    with (robustness / "manifest.csv").open(encoding="utf-8") as stream:
        rows = [row for row in csv.DictReader(stream) if row["kind"] in ("nifti", "analyze")]
    expected = {Path(row["file"]).name: row["expected"] for row in rows}
    for row in rows:
        (folder / Path(row["file"]).name).symlink_to(robustness / row["file"])
    failed = segment(folder, 1)
    for name, says in expected.items():
        if says in EITHER or not is_scan(name):
            continue
        if "_label" in name:  # wrong as a label, but taken for an image here
            assert name not in failed
        elif "3channels" in name:
            assert "3 channels, 1 are declared" in failed[name]
        else:
            assert (name not in failed) == says.startswith("load"), failed.get(name)
    plain = read_labels(tmp_path / "out" / "00_ok_image.nii.gz").array
    for name in SAME:
        np.testing.assert_array_equal(read_labels(tmp_path / "out" / name).array, plain)


def test_foreign_files_of_every_format(shared, segment, tmp_path):
    folder = tmp_path / "foreign"
    folder.mkdir()
    for number, path in enumerate(sorted((shared / "data" / "robustness").rglob("*"))):
        if is_scan(path) and path.is_file() and "synthetic" not in path.parent.name:
            (folder / f"{number}_{path.name}").symlink_to(path)
    formats = {path.name[len(strip_suffix(path)) :] for path in folder.iterdir()}
    assert {".nii", ".nii.gz", ".nrrd"} <= formats
    failed = segment(folder, 1)
    assert len(failed) < len(list(folder.iterdir()))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha", ".nii", ".nii.gz"])
def test_damage_of_every_kind_is_listed(suffix, segment, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    sound = Volume(np.random.default_rng(0).normal(size=(1, 20, 18, 12)), affine_from((2, 2, 3)))
    write_volume(sound, folder / f"sound{suffix}")
    whole = (folder / f"sound{suffix}").read_bytes()
    (folder / f"empty{suffix}").write_bytes(b"")
    (folder / f"header{suffix}").write_bytes(whole[:100])
    (folder / f"half{suffix}").write_bytes(whole[: len(whole) // 2])
    (folder / f"text{suffix}").write_text("Dear colleague, please find attached\n" * 20)
    (folder / f"noise{suffix}").write_bytes(np.random.default_rng(1).bytes(5000))
    (folder / f"folder{suffix}").mkdir()
    (folder / f"gone{suffix}").symlink_to(tmp_path / "nowhere")
    hidden = folder / f"hidden{suffix}"
    shutil.copy(folder / f"sound{suffix}", hidden)
    hidden.chmod(0)
    kinds = {"empty", "header", "half", "text", "noise", "folder", "gone"}
    if os.geteuid():  # nothing is hidden from root
        kinds.add("hidden")
    failed = segment(folder, 1)
    assert {strip_suffix(name) for name in failed} == kinds

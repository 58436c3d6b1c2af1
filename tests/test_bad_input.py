"""Every odd or damaged file at hand is read as its manifest says, or refused in one clear sentence.

Each row of the manifest is read, by itself or paired with what its row names. Files of volumes go
through the program too: done on their own grid, or listed.
"""

import csv
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lamina.bundle import load_bundle, save_bundle
from lamina.data.case import Case
from lamina.errors import LaminaError
from lamina.files import read_json
from lamina.geometry import affine_from
from lamina.io import is_scan, read_labels, read_volume, strip_suffix, write_volume
from lamina.labels import LabelSet
from lamina.volume import Volume

ROBUSTNESS = Path(__file__).resolve().parents[2] / "shared" / "data" / "robustness"
MB, GB = 2**20, 2**30

LOADS, WARNS, FAILS = "loads", "loads with a warning", "fails"
CHOICES = {
    "load, pixdim fallback": {WARNS},
    "load, ignore junk": {WARNS},
    "threshold or warn": {WARNS},
    "document: rotated or not": {LOADS},
    "load or warn": {LOADS, WARNS},
    "load or clear error": {LOADS, FAILS},
    "clear error or grey": {LOADS, FAILS},
    "round or error": {LOADS, FAILS},
    "error or fallback": {WARNS, FAILS},
    "error or fallback to InstanceNumber": {WARNS, FAILS},
    "warn/error": {WARNS, FAILS},
    "warn/error when paired": {WARNS, FAILS},
    "two series or clear choice": {FAILS},
}
"""What may become of files of which the manifest does not just say that they load or fail."""

SHAPES = {
    "50_4d_singleton.nii.gz": (1, 35, 51, 35),
    "51_4d_3channels.nii.gz": (3, 35, 51, 35),
    "04_cmyk.jpg": (3, 160, 120),
    "05_grey16.png": (1, 160, 120),
    "07_exif_rot6.jpg": (3, 120, 160),
}
LABELS = LabelSet(values={"Anterior": 1, "Posterior": 2})
MASKS = LabelSet(values={"lesion": 255}, relabel={1: 255})

FOREIGN = {
    "nibabel": (8, []),
    "pydicom": (46, []),
    "highdicom": (7, []),
    "dcmqi": (27, ["ct-3slice", "23x38x3/image", "24x38x3/image", "24x38x3/seg"]),
    "dcm_qa/nih": (34, []),
    "dcm_qa/enh": (7, []),
    "picai_prep": (18, []),
    "dicom_ct_series": (1, ["example_ct_dicom"]),
}
"""How many files of a foreign folder are scans, at least, and which folders in it are series."""

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


def _rows():
    if not ROBUSTNESS.is_dir():
        return []
    with (ROBUSTNESS / "manifest.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


ROWS = _rows()


def each_row(*, foreign):
    rows = [row for row in ROWS if (row["file"] in FOREIGN) == foreign]
    return pytest.mark.parametrize("row", rows, ids=[row["file"].replace("/", "-") for row in rows])


def _allowed(expected):
    """Return what may become of a file; raises KeyError where the manifest is not understood."""
    if expected not in CHOICES and expected.startswith("load"):
        return {LOADS}
    if expected not in CHOICES and expected.startswith(("error", "clear error")):
        return {FAILS}
    return CHOICES[expected]


def _peak():
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _outcome(read, path, caplog):
    """Read a file as ``read`` does; return what became of it, and the volume that came out."""
    caplog.clear()
    error = None
    try:
        volume = read(path)
    except LaminaError as caught:
        error = caught
    if error is not None:
        assert str(path) in error.message
        assert error.remedy
        assert len(str(error).splitlines()) == 1
        return FAILS, None
    assert volume.array.dtype.isnative
    assert volume.array.dtype.kind in "iuf"
    assert all(0.001 < size < 100 for size in volume.spacing)
    assert np.isfinite(volume.corners).all()
    return (WARNS if caplog.messages else LOADS), volume


def _paired(path):
    """Read a label map as that of the sound image beside it, as training does."""
    flat = path.suffix != ".gz"
    image = path.with_name("00_ok.jpg" if flat else "00_ok_image.nii.gz")
    labels, channels = (MASKS, ("R", "G", "B")) if flat else (LABELS, ("MR",))
    case = Case(case_id="case", group="", images=(image,), label=path)
    return case.read_label(labels, case.read_image(channels))


def _with_its_fault(path, folder):
    """Return the file, or one that has the fault that the manifest promises and the file lacks."""
    sound = path.with_name("00_ok_label.nii.gz")
    faults = {
        "67_label_shifted_affine.nii.gz": affine_from((1, 1, 1), (50, 0, 0)),
        "68_label_spacing_mismatch.nii.gz": affine_from((2, 2, 2)),
    }
    if path.name not in faults or path.read_bytes() != sound.read_bytes():
        return path
    for name in ("00_ok_image.nii.gz", "00_ok_label.nii.gz"):
        shutil.copy(path.with_name(name), folder)
    labels = read_labels(sound)
    write_volume(replace(labels, affine=faults[path.name] @ labels.affine), folder / path.name)
    return folder / path.name


@pytest.mark.timeout(60)
@each_row(foreign=False)
def test_every_row_of_the_manifest(shared, row, caplog, tmp_path):
    if row["kind"] == "dicom series":
        pytest.importorskip("pydicom")
    path = _with_its_fault(ROBUSTNESS / row["file"], tmp_path)
    is_label = "_label" in path.name or "_mask" in path.name
    before = _peak()
    outcome, volume = _outcome(_paired if is_label else read_volume, path, caplog)
    assert _peak() - before < (64 * MB if "memory" in row["expected"] else 2 * GB)
    assert outcome in _allowed(row["expected"])
    if volume is None:
        return
    assert volume.array.shape == SHAPES.get(path.name, volume.array.shape)
    assert volume.unit == ("px" if row["kind"] == "2d" else "mm")
    if row["kind"] == "dicom series":
        sound = read_volume(path.with_name("00_ok"))
        unscaled = 1024 if "no_rescale" in path.name else 0
        np.testing.assert_array_equal(volume.array.astype(int) - unscaled, sound.array)
        np.testing.assert_array_equal(volume.affine, sound.affine)


@pytest.mark.timeout(120)
@each_row(foreign=True)
def test_every_file_of_a_foreign_folder(shared, row, caplog):
    pytest.importorskip("pydicom")
    folder = ROBUSTNESS / row["file"]
    least, series = FOREIGN[row["file"]]
    outcomes = {}
    for path in sorted(folder.rglob("*")):
        before = _peak()
        outcomes[path] = _outcome(read_volume, path, caplog)[0]
        assert _peak() - before < 2 * GB
    loaded = {path for path, outcome in outcomes.items() if outcome != FAILS}
    assert sum(path.is_file() for path in loaded) >= least
    assert loaded >= {folder / name for name in series}
    if row["expected"] == "error/warn":
        whole = {path.parent for path in outcomes if path.suffix == ".dcm"}
        assert not any(outcomes[path] == LOADS for path in whole)


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
        others = re.findall(r"and (\d+) more for", " ".join(done.stderr.split()))
        told = sum(error in done.stderr for error in failed.values())
        assert told + sum(map(int, others)) == len(failed)
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
    folder, expected = tmp_path / "all", {}
    folder.mkdir()
    for row in ROWS:
        if row["kind"] in ("nifti", "analyze"):
            name = Path(row["file"]).name
            expected[name] = row["expected"]
            (folder / name).symlink_to(ROBUSTNESS / row["file"])
    failed = segment(folder, 1)
    for name, says in expected.items():
        if "_label" in name:  # wrong as a label, but taken for an image here
            assert name not in failed
        elif len(_allowed(says)) > 1 or not is_scan(name):
            continue
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

"""MONAI's own program accepts the bundle, and segments scans much as Lamina does."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from lamina.bundle import save_bundle
from lamina.data.intensity import finite
from lamina.data.plan import Normalisation
from lamina.errors import DatasetError, ExportError, FileError
from lamina.export.container import read_exported
from lamina.export.graphs import graphs_of
from lamina.export.monai_transforms import Finishing, Reading, scans
from lamina.export.targets import TARGETS
from lamina.export.writing import write_exported
from lamina.geometry import affine_from
from lamina.io import read_volume, write_volume
from lamina.volume import Volume
from lamina.workflows.predict import predict
from small_bundles import small_bundle

SCRIPT = """
import sys
import monai.bundle
root, scans = sys.argv[1:]
files = {
    "bundle_root": root,
    "config_file": f"{root}/configs/inference.json",
    "meta_file": f"{root}/configs/metadata.json",
}
monai.bundle.verify_net_in_out(net_id="network_def", device="cpu", **files)
monai.bundle.run(dataset_dir=scans, **files)
"""


def run(folder, scans):
    if absent := [name for name in ("ignite", "fire") if find_spec(name) is None]:
        pytest.skip(f"{', '.join(absent)} not installed")
    command = [sys.executable, "-c", SCRIPT, str(folder), str(scans)]
    return subprocess.run(command, capture_output=True, text=True)


def written(bundle, tmp_path):
    """Write a model, and its export to ``x``."""
    save_bundle(bundle, tmp_path / "model.lamina")
    source = {"file": "model.lamina", "sha256": "0" * 64}
    write_exported(bundle, graphs_of(bundle), "monai", tmp_path / "x", source=source)


@pytest.mark.parametrize("regions", [False, True])
def test_monais_program_runs_the_bundle(regions, tmp_path):
    bundle = small_bundle("segresnet", regions=regions, members=2)
    if not regions:
        steps = ("core", "remove_small", 30.0), ("rim", "largest_component", None)
        names = "structure", "operation", "min_size"
        plain = tuple(dict(zip(names, step, strict=True)) for step in steps)
        labels = replace(bundle.plan.labels, values={"rim": 3, "core": 300})
        bundle = replace(bundle, plan=replace(bundle.plan, labels=labels), postprocessing=plain)
    written(bundle, tmp_path)
    rng = np.random.default_rng(0)
    array = rng.normal(100, 20, (1, 30, 41, 22)).astype(np.float32)
    array[:, 8:20, 10:30, 4:12] += 80
    array[0, 25, 33, :3] = np.nan, np.inf, -np.inf  # as damage leaves them
    # Axes run to the left, to the head and to the back.
    affine = affine_from((1.0, 1.0, 1.0))[:, [0, 2, 1, 3]] * [-1, 1, -1, 1]
    write_volume(Volume(array, affine, "scan"), tmp_path / "scans" / "scan.nii.gz")
    done = run(tmp_path / "x", tmp_path / "scans")
    assert done.returncode == 0, done.stderr[-2000:]
    predict(tmp_path / "model.lamina", tmp_path / "scans", out=tmp_path / "seg")
    expected = read_volume(tmp_path / "seg" / "scan.nii.gz")
    found = read_volume(tmp_path / "x-eval" / "scan_seg.nii.gz")
    read_exported(tmp_path / "x")  # which what was left there would make another
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
    assert len(np.unique(expected.array)) > 1
    assert (found.array == expected.array).mean() > 0.98
    checked = TARGETS.get("monai").segmenter(tmp_path / "x")([tmp_path / "scans" / "scan.nii.gz"])
    np.testing.assert_array_equal(checked, found.array)


def test_monais_program_segments_pictures_the_way_up_that_lamina_reads_them(tmp_path):
    bundle = small_bundle("tinyunet", channels=3, unit="px")
    plan = replace(bundle.plan, orientation="LP", target_spacing=(2.0, 2.0))
    written(replace(bundle, plan=plan), tmp_path)
    rows = np.linspace(0, 255, 90)[:, None] * np.linspace(0.2, 1, 70) ** 2
    picture = np.stack([rows, rows[:, ::-1], rows.max() - rows], axis=2).astype(np.uint8)
    (tmp_path / "pictures").mkdir()
    scene = Image.fromarray(picture)
    scene.save(tmp_path / "pictures" / "scene.PNG")
    scene.save(tmp_path / "pictures" / "page.tif")
    clear = Image.fromarray(np.full((90, 70), 7, np.uint8))
    Image.merge("RGBA", (*scene.split(), clear)).save(tmp_path / "pictures" / "clear.png")
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    scene.save(tmp_path / "pictures" / "photo.jpg", exif=turned)
    done = run(tmp_path / "x", tmp_path / "pictures")
    assert done.returncode == 0, done.stderr[-2000:]
    predict(tmp_path / "model.lamina", tmp_path / "pictures", out=tmp_path / "seg")
    for name in ("scene", "page", "clear", "photo"):
        expected = np.asarray(Image.open(next((tmp_path / "seg").glob(f"{name}.*"))))
        found = np.asarray(Image.open(tmp_path / "x-eval" / f"{name}_seg.png"))
        assert len(np.unique(expected)) > 1
        assert (found == expected).mean() > 0.95


def test_monais_program_segments_flat_scans_in_mm(tmp_path):
    written(small_bundle("unext"), tmp_path)
    ramp = np.linspace(-2, 2, 70)[:, None] * np.linspace(0.2, 1, 45) ** 2
    affine = affine_from((0.5, 0.75)) * [-1, 1, 1, 1]
    write_volume(Volume(ramp[None].astype(np.float32), affine), tmp_path / "in" / "film.nii.gz")
    done = run(tmp_path / "x", tmp_path / "in")
    assert done.returncode == 0, done.stderr[-2000:]
    predict(tmp_path / "model.lamina", tmp_path / "in", out=tmp_path / "seg")
    expected = read_volume(tmp_path / "seg" / "film.nii.gz")
    found = read_volume(tmp_path / "x-eval" / "film_seg.nii.gz")
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
    assert len(np.unique(expected.array)) > 1
    assert (found.array == expected.array).mean() > 0.95


def test_monais_program_takes_channels_from_files_of_their_own(tmp_path):
    written(small_bundle("lightmedseg", channels=2), tmp_path)
    for number in range(2):
        array = np.random.default_rng(number).normal(size=(1, 20, 18, 36)).astype(np.float32)
        write_volume(Volume(array, np.eye(4)), tmp_path / "in" / f"leg_{number:04d}.nii.gz")
    done = run(tmp_path / "x", tmp_path / "in")
    assert done.returncode == 0, done.stderr[-2000:]
    (found,) = (tmp_path / "x-eval").iterdir()
    assert read_volume(found).array.shape == (1, 20, 18, 36)


def test_a_folder_without_scans_of_the_bundle_is_refused(tmp_path):
    nifti = [".nii", ".nii.gz"]
    (tmp_path / "head.mha").touch()
    with pytest.raises(DatasetError, match=r"holds no scans .*\.nii, \.nii\.gz\)\. Give"):
        scans(str(tmp_path), nifti, 1)
    (tmp_path / "head.jpg").touch()
    with pytest.raises(DatasetError, match="measures in mm, which pictures do not tell"):
        scans(str(tmp_path), nifti, 1)


def test_what_the_bundle_does_not_read_is_told_by_its_name(tmp_path):
    bundle = small_bundle("segresnet")
    TARGETS.get("monai").write(bundle, graphs_of(bundle), tmp_path)
    segment = TARGETS.get("monai").segmenter(tmp_path)
    with pytest.raises(ExportError, match=r"head\.mha: the bundle reads only \.nii, \.nii\.gz"):
        segment([tmp_path / "head.mha"])
    (tmp_path / "bad.nii.gz").write_bytes(b"bad")
    with pytest.raises(FileError, match=r"bad\.nii\.gz"):
        segment([tmp_path / "bad.nii.gz"])
    flat = Volume(np.ones((1, 30, 20), np.float32), np.eye(4))
    write_volume(flat, tmp_path / "flat.nii.gz")
    with pytest.raises(ExportError, match=r"flat\.nii\.gz: the bundle cannot segment it") as error:
        segment([tmp_path / "flat.nii.gz"])
    assert "lamina predict" in error.value.remedy


def test_voxels_that_are_no_numbers_are_mended_as_everywhere(tmp_path):
    rng = np.random.default_rng(0)
    scan = rng.normal(size=(2, 5, 6, 7)).astype(np.float32)
    scan[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    affine, leg, read = affine_from((1.0, 2.0, 3.0)), tmp_path / "leg.nii", Reading(["T1", "T2"])
    write_volume(Volume(scan, affine), leg)
    found = read([str(leg)])
    np.testing.assert_array_equal(found.numpy(), [finite(channel, "leg") for channel in scan])
    np.testing.assert_allclose(found.affine, affine)
    scan[1] = np.nan
    write_volume(Volume(scan, affine), leg)
    with pytest.raises(DatasetError, match=r"leg\.nii: no voxel holds a finite number"):
        read([str(leg)])


def test_parts_of_slanted_scans_are_small_by_their_true_volume():
    from monai.data import MetaTensor

    affine = torch.eye(4, dtype=torch.float64)
    affine[1:3, 2] = torch.tensor([1.5, 2.0])  # a step of 2.5 mm, and 2 mm³ a voxel
    for size, kept in ((1.9, True), (2.1, False)):
        step = {"value": 3, "operation": "remove_small", "min_size": size}
        found = Finishing(0, [step])(MetaTensor(torch.full((1, 1, 1, 1), 3), affine=affine))
        assert bool(found.any()) is kept


def test_channels_that_are_normalised_apart_are_refused(tmp_path):
    bundle = small_bundle("segresnet", channels=2)
    ways = Normalisation(scheme="zscore"), Normalisation(scheme="ct", high=1.0)
    object.__setattr__(bundle.plan, "normalisation", ways)
    with pytest.raises(ExportError, match="in different ways"):
        TARGETS.get("monai").write(bundle, graphs_of(bundle), tmp_path)

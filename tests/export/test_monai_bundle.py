"""MONAI's own program accepts the bundle, and segments scans much as Lamina does."""

import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from lamina.bundle import save_bundle
from lamina.data.intensity import finite
from lamina.data.plan import Normalisation
from lamina.errors import DatasetError, ExportError
from lamina.export.graphs import graphs_of
from lamina.export.monai_transforms import Finishing, Mending
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
root, scans, out = sys.argv[1:]
files = {
    "bundle_root": root,
    "config_file": f"{root}/configs/inference.json",
    "meta_file": f"{root}/configs/metadata.json",
}
monai.bundle.verify_net_in_out(net_id="network_def", device="cpu", **files)
monai.bundle.run(dataset_dir=scans, output_dir=out, **files)
"""


@pytest.mark.parametrize("regions", [False, True])
def test_monais_program_runs_the_bundle(regions, tmp_path):
    if absent := [name for name in ("ignite", "fire") if find_spec(name) is None]:
        pytest.skip(f"{', '.join(absent)} not installed")
    bundle = small_bundle("segresnet", regions=regions, members=2)
    if not regions:
        steps = ("core", "remove_small", 30.0), ("rim", "largest_component", None)
        names = "structure", "operation", "min_size"
        plain = tuple(dict(zip(names, step, strict=True)) for step in steps)
        labels = replace(bundle.plan.labels, values={"rim": 3, "core": 300})
        bundle = replace(bundle, plan=replace(bundle.plan, labels=labels), postprocessing=plain)
    save_bundle(bundle, tmp_path / "model.lamina")
    source = {"file": "model.lamina", "sha256": "0" * 64}
    write_exported(bundle, graphs_of(bundle), "monai", tmp_path / "x", source=source)
    rng = np.random.default_rng(0)
    array = rng.normal(100, 20, (1, 30, 41, 22)).astype(np.float32)
    array[:, 8:20, 10:30, 4:12] += 80
    array[0, 25, 33, :3] = np.nan, np.inf, -np.inf  # as damage leaves them
    # Axes run to the left, to the head and to the back.
    affine = affine_from((1.0, 1.0, 1.0))[:, [0, 2, 1, 3]] * [-1, 1, -1, 1]
    write_volume(Volume(array, affine, "scan"), tmp_path / "scans" / "scan.nii.gz")
    command = [sys.executable, "-c", SCRIPT, *(tmp_path / name for name in ("x", "scans", "out"))]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    predict(tmp_path / "model.lamina", tmp_path / "scans", out=tmp_path / "seg")
    expected = read_volume(tmp_path / "seg" / "scan.nii.gz")
    found = read_volume(tmp_path / "out" / "scan_seg.nii.gz")
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-4)
    assert len(np.unique(expected.array)) > 1
    assert (found.array == expected.array).mean() > 0.98


def test_voxels_that_are_no_numbers_are_mended_as_everywhere():
    from monai.data import MetaTensor

    rng = np.random.default_rng(0)
    scan = rng.normal(size=(2, 5, 6, 7)).astype(np.float32)
    scan[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    found = Mending()(MetaTensor(torch.from_numpy(scan), meta={"filename_or_obj": "leg"}))
    np.testing.assert_array_equal(found.numpy(), [finite(channel, "leg") for channel in scan])
    scan[1] = np.nan
    with pytest.raises(DatasetError, match="leg: no voxel holds a finite number"):
        Mending()(MetaTensor(torch.from_numpy(scan), meta={"filename_or_obj": "leg"}))


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

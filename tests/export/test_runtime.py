"""The runtime segments as Lamina does, in a process where there is no torch."""

import json
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest

from dicom_scans import write_series
from lamina.bundle import save_bundle
from lamina.export.container import Exported, seal
from lamina.export.graphs import graphs_of
from lamina.export.writing import write_exported
from lamina.geometry import affine_from
from lamina.inference.predictor import Predictor
from lamina.io import read_volume, write_volume
from lamina.runtime import Model
from lamina.volume import Volume
from lamina.workflows.predict import predict
from small_bundles import small_bundle

WITHOUT_TORCH = """
import sys
from importlib.abc import MetaPathFinder

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "monai", "lightning", "safetensors"):
            raise ModuleNotFoundError(f"{name} is not here", name=name)

sys.meta_path.insert(0, Refuse())
"""
BRIGHT = """
import numpy as np
from lamina.export.targets import TARGETS, Target

def bright(batch):
    return np.stack([np.full_like(batch[:, 0], 1.0), batch[:, 0], 2 * batch[:, 0] - 1.5], axis=1)

TARGETS.register("bright")(
    Target(packages=(), write=None, load=lambda folder, graph, threads, precision: bright)
)
"""
NO_MEMORY = BRIGHT.replace("    return", "    raise MemoryError('Failed to allocate')\n    return")
MAIN = """
from lamina.runtime import main
main()
"""


def run(*arguments, also=""):
    script = f"{WITHOUT_TORCH}{also}{MAIN}"
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture
def scan(tmp_path):
    rng = np.random.default_rng(0)
    affine = affine_from((1.5, 1.0, 2.0))[[1, 0, 2, 3]]
    array = rng.normal(100, 20, (1, 30, 41, 17)).astype(np.float32)
    array[:, 8:20, 10:30, 4:12] += 80
    write_volume(Volume(array, affine, "scan"), tmp_path / "scan.nii.gz")
    return tmp_path / "scan.nii.gz"


@pytest.fixture
def bright(tmp_path):
    """An exported model whose network is four lines of numpy."""
    made = small_bundle("lightmedseg", roi_size=(16, 16, 16))
    exported = Exported(
        target="bright",
        precision="fp32",
        plan=made.plan,
        postprocessing=({"structure": "core", "operation": "largest_component"},),
        network={"name": "bright", "fields": {"in_channels": 1, "num_classes": 3}},
        training={},
        metrics={},
        provenance={},
        source={"sha256": "0" * 64},
    )
    folder = tmp_path / "exported"
    folder.mkdir()
    seal(folder, exported, "# Card\n", {})
    return exported, folder


def test_a_scan_is_segmented_without_torch_as_with_it(bright, scan, tmp_path):
    exported, folder = bright
    out = tmp_path / "found.nii.gz"
    done = run("-m", folder, "-i", scan, "-o", out, "--json", also=BRIGHT)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout)["segmentation"] == str(out)
    names = {}
    exec(BRIGHT.partition("TARGETS.register")[0], names)
    from lamina.inference.postprocess import steps_from

    expected = Predictor(
        network=names["bright"],
        plan=exported.plan,
        postprocessing=steps_from(exported.postprocessing, exported.plan.labels),
    )(read_volume(scan))
    found = read_volume(out)
    assert set(np.unique(found.array)) == {0, 3, 7}
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_allclose(found.affine, read_volume(scan).affine)


def test_python_takes_files_as_text_and_further_channels_that_are_numbered(scan, tmp_path):
    exported = Exported(
        target="none",
        precision="fp32",
        plan=small_bundle("lightmedseg", channels=2).plan,
        postprocessing=(),
        network={},
        training={},
        metrics={},
        provenance={},
        source={},
    )

    def echo(batch):
        return np.stack([0 * batch[:, 0], batch[:, 0], batch[:, 1]], axis=1)

    model = Model(exported, Predictor(network=echo, plan=exported.plan))
    first, second = (str(tmp_path / f"leg_000{number}.nii.gz") for number in range(2))
    image = read_volume(scan)
    write_volume(image, first)
    write_volume(replace(image, array=image.array[:, ::-1]), second)
    expected = model.predict(first, second)
    assert set(np.unique(expected.array)) == {0, 3, 7}
    np.testing.assert_array_equal(model.predict(first).array, expected.array)


def test_what_needs_torch_or_typer_points_to_the_runtime():
    script = f"{WITHOUT_TORCH}\nimport lamina\nlamina.load"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: lamina.load needs torch, which is not installed; "
        "lamina.runtime does not."
    )
    without = WITHOUT_TORCH.replace('"torch"', '"typer"')
    script = f"{without}\nimport runpy\nrunpy.run_module('lamina', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "lamina-runtime" in done.stderr


def test_a_folder_of_pictures_is_no_series_though_pydicom_is_not_installed(bright, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    also = f"{WITHOUT_TORCH.replace('torch', 'pydicom')}{BRIGHT}"
    done = run("-m", bright[1], "-i", tmp_path / "in", "-o", tmp_path / "out.nii", also=also)
    assert done.returncode == 2
    assert done.stderr.startswith(f"Error: {tmp_path / 'in'}: is a folder without DICOM images.")


def test_an_altered_model_and_a_missing_scan_are_refused_in_one_line(bright, scan, tmp_path):
    _, folder = bright
    out = tmp_path / "found.nii.gz"
    done = run("-m", folder, "-i", tmp_path / "none.nii.gz", "-o", out, also=BRIGHT)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "none.nii.gz" in done.stderr
    (folder / "export.json").write_text("{}")
    done = run("-m", folder, "-i", scan, "-o", out, "--json", also=BRIGHT)
    assert done.returncode == 2
    assert "altered" in json.loads(done.stdout)["message"]
    assert not out.exists()


def test_the_scan_itself_is_not_written_over(bright, scan):
    done = run("-m", bright[1], "-i", scan, "-o", scan, also=BRIGHT)
    assert done.returncode == 2
    assert "is the scan itself" in done.stderr


def test_what_a_scan_is_read_with_is_not_written_over(bright, tmp_path):
    array = np.zeros((8, 8, 8), np.float32)
    np.save(tmp_path / "a.npy", array)
    (tmp_path / "a.json").write_text('{"spacing": [1, 1, 1], "orientation": "RAS"}')
    (tmp_path / "b.nii").symlink_to(tmp_path / "a.json")
    kept = (tmp_path / "a.json").read_text()
    done = run("-m", bright[1], "-i", tmp_path / "a.npy", "-o", tmp_path / "b.nii", also=BRIGHT)
    assert done.returncode == 2
    assert "is the scan itself" in done.stderr
    assert (tmp_path / "a.json").read_text() == kept


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (["-o", "found.doc"], "found.doc: the suffix is of no known scan format"),
        (["-o", "."], "the suffix is of no known scan format"),
        (["-o", "found.seg.dcm"], "found.seg.dcm: .dcm files are read, not written. Write .nii.gz"),
        (["-o", "found.mhd"], ".mhd files are read, not written. Write .mha"),
        (["-o", "found.nii.gz", "--threads", "0"], "0: must be 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_before_the_model_is_loaded(more, told, tmp_path):
    done = run("-m", tmp_path / "none", "-i", tmp_path / "none.nii.gz", *more)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert told in done.stderr


def test_a_dicom_series_is_segmented_from_its_folder(bright, tmp_path):
    pytest.importorskip("pydicom")
    write_series(tmp_path / "ct.1")
    out = tmp_path / "found.nii.gz"
    done = run("-m", bright[1], "-i", tmp_path / "ct.1", "-o", out, also=BRIGHT)
    assert done.returncode == 0, done.stderr
    found, scan = read_volume(out), read_volume(tmp_path / "ct.1")
    assert found.array.shape == scan.array.shape
    np.testing.assert_allclose(found.affine, scan.affine, atol=1e-5)


def test_what_cannot_hold_the_segmentation_is_refused_before_it_is_made(bright, scan, tmp_path):
    out = tmp_path / "found.png"
    never = BRIGHT.replace("    return", "    raise SystemExit(7)\n    return")
    done = run("-m", bright[1], "-i", scan, "-o", out, also=never)
    assert done.returncode == 2
    assert "this format measures in px, the volume in mm" in done.stderr


def test_an_export_that_may_hold_code_is_not_loaded(bright, scan, tmp_path):
    ran = tmp_path / "ran"
    given = "load=lambda folder, graph, threads, precision: bright"
    loads = BRIGHT.replace(given, "load=load, runs_code=True")
    loads = loads.replace("def bright", f"def load(*_):\n    open({str(ran)!r}, 'w')\n\ndef bright")
    done = run("-m", bright[1], "-i", scan, "-o", tmp_path / "found.nii.gz", also=loads)
    assert done.returncode == 2
    assert "an export to bright may hold code that loading it would run" in done.stderr
    assert not ran.exists()


def test_a_graph_that_the_runtime_does_not_take_is_one_clear_error(bright, scan, tmp_path):
    given = "load=lambda folder, graph, threads, precision: bright"
    fault = "class Fail(Exception): pass\n\ndef load(*_):\n    raise Fail('IR version: 99')\n\n"
    newer = BRIGHT.replace(given, "load=load").replace("def bright", f"{fault}def bright")
    done = run("-m", bright[1], "-i", scan, "-o", tmp_path / "found.nii.gz", also=newer)
    assert done.returncode == 2
    assert done.stderr == (
        f"Error: {bright[1]}: model cannot be loaded: IR version: 99. Upgrade the runtime, or "
        "export the model again, here or to another target.\n"
    )


def test_a_lack_of_memory_is_one_clear_error(bright, scan, tmp_path):
    out = tmp_path / "found.nii.gz"
    done = run("-m", bright[1], "-i", scan, "-o", out, also=NO_MEMORY)
    *tried, told = done.stderr.splitlines()
    assert done.returncode == 2
    assert all("windows at a time" in line for line in tried)
    assert told.startswith("Error: One window does not fit into memory: Failed to allocate. Free")
    assert not out.exists()


@pytest.mark.parametrize("target", ["onnx", "openvino"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("lightmedseg", {"regions": True, "members": 2}), ("dainet", {"width": 4})],
)
def test_an_exported_model_segments_as_predict_does(target, name, options, scan, tmp_path):
    packages = ("onnx", "onnxscript", "onnxruntime" if target == "onnx" else "openvino")
    if absent := [package for package in packages if find_spec(package) is None]:
        pytest.skip(f"{', '.join(absent)} not installed")
    from lamina.bundle import transformer_weights
    from lamina.inference.attention_maps import make_maker

    bundle = small_bundle(name, **options)
    save_bundle(bundle, tmp_path / "model.lamina")
    vit = None
    if "attention" in bundle.network:
        vit = make_maker(bundle.network["attention"], transformer_weights(bundle)).vit
        scan = flat(scan)
    source = {"file": "model.lamina", "sha256": "0" * 64}
    write_exported(bundle, graphs_of(bundle, vit), target, tmp_path / "x", source=source)
    done = run("-m", tmp_path / "x", "-i", scan, "-o", tmp_path / "found.nii.gz", "--threads", 1)
    assert (done.returncode, done.stderr) == (0, "")
    predict(tmp_path / "model.lamina", scan, out=tmp_path / "seg")
    expected = read_volume(tmp_path / "seg" / scan.name).array
    found = read_volume(tmp_path / "found.nii.gz").array
    assert name == "dainet" or len(np.unique(expected)) > 1  # whose fresh weights see no contrast
    assert (found != expected).mean() < 1e-3


def flat(scan):
    """Keep one slice of a scan, as an image."""
    volume = read_volume(scan)
    image = Volume(volume.array[..., 8], affine_from((1.0, 1.0)), "image")
    write_volume(image, scan.with_name("flat.nii.gz"))
    return scan.with_name("flat.nii.gz")

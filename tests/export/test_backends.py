"""A prediction runs on what is asked for, or on what is quickest, and remembers both."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

import lamina
from lamina.bundle import save_bundle
from lamina.errors import ConfigError, ExportError, FileError
from lamina.export import backends
from lamina.export.targets import MODEL, TARGETS, Target
from lamina.files import locked
from lamina.geometry import affine_from
from lamina.inference.backend import TorchNetwork
from lamina.volume import Volume
from small_bundles import small_bundle


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    file = tmp_path_factory.mktemp("model") / "model.lamina"
    save_bundle(small_bundle("tinyunet"), file)
    return file


@pytest.fixture
def targets(monkeypatch, tmp_path):
    """Stand-ins that run the network in torch, and say what is asked of them."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(backends, "_REPEATS", 1)
    TARGETS.get("onnx")  # the true ones are registered before others take their names
    said, graphs_by_folder = [], {}

    def stand_in(name, pause):
        def write(bundle, graphs, folder):
            said.append(f"write {name}")
            with pytest.raises(FileError, match="another process"), locked(backends.cache_folder()):
                pass  # two that begin at the same time take turns
            graphs_by_folder[name] = TorchNetwork(graphs[MODEL].network)
            (folder / "model.txt").write_text(name)

        def load(folder, graph, threads, precision):
            said.append(f"load {name}")

            def run(batch):
                time.sleep(pause)
                return graphs_by_folder[name](batch)

            return run

        return Target(packages=(), write=write, load=load)

    monkeypatch.setitem(TARGETS._members, "onnx", stand_in("onnx", 0.0))
    monkeypatch.setitem(TARGETS._members, "openvino", stand_in("openvino", 0.3))
    return said


def image():
    array = np.random.default_rng(0).normal(size=(1, 40, 50)).astype(np.float32)
    return Volume(array, affine_from((1.0, 1.0)), "image")


def test_a_model_is_exported_once_and_segments_as_in_torch(model, targets):
    first = lamina.load(model, device="cpu", backend="onnx")
    assert first.backend == "onnx"
    assert targets == ["write onnx", "load onnx", "load onnx"]
    again = lamina.load(model, device="cpu", backend="onnx")
    assert targets.count("write onnx") == 1
    expected = lamina.load(model, device="cpu").predict(image()).array
    np.testing.assert_array_equal(again.predict(image()).array, expected)


def test_an_export_that_is_not_kept_tells_the_way_without(model, targets, monkeypatch, tmp_path):
    monkeypatch.setattr(backends, "cache_folder", lambda: tmp_path / "file" / "below")
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="--backend torch"):
        lamina.load(model, device="cpu", backend="onnx")


@pytest.mark.parametrize("fault", ["a file is in the way", "no home"])
def test_auto_does_without_a_place_for_exports_and_says_so(
    model, targets, monkeypatch, tmp_path, caplog, fault
):
    def home():
        if fault == "no home":
            raise RuntimeError("Could not determine home directory.")
        return tmp_path / "file"

    (tmp_path / "file").touch()
    monkeypatch.setattr(backends.Path, "home", home)
    assert lamina.load(model, device="cpu", backend="auto").backend == "torch"
    (said,) = caplog.messages
    assert said.endswith("Going on with torch.")
    with pytest.raises(FileError, match="--backend torch"):
        lamina.load(model, device="cpu", backend="onnx")


def test_what_a_killed_export_left_is_removed_by_the_next(model, targets):
    left = backends.cache_folder() / ".part-0a1b2c3d-export"
    left.mkdir(parents=True)
    (left / "model.onnx").write_bytes(b"half")
    lamina.load(model, device="cpu", backend="onnx")
    assert not left.exists()


def test_a_damaged_export_is_made_anew(model, targets):
    lamina.load(model, device="cpu", backend="onnx")
    (kept,) = backends.cache_folder().glob("*-onnx-*")
    (kept / "model.txt").write_text("something else")
    lamina.load(model, device="cpu", backend="onnx")
    assert targets.count("write onnx") == 2


def test_auto_measures_once_and_does_not_take_the_slowest(model, targets):
    chosen = lamina.load(model, device="cpu", backend="auto").backend
    assert chosen in ("torch", "onnx")
    before = len(targets)
    assert lamina.load(model, device="cpu", backend="auto").backend == chosen
    assert targets[before:] in ([], [f"load {chosen}"])


def test_nothing_is_exported_for_a_precision_that_the_runtime_lacks(model, targets):
    with pytest.raises(ExportError, match="precision bf16: this export computes in fp32"):
        lamina.load(model, device="cpu", backend="onnx", precision="bf16")
    assert targets == []


@pytest.mark.parametrize("fault", [RuntimeError("Can't set the input"), MemoryError("bad_alloc")])
@pytest.mark.parametrize("when", ["loading", "running"])
def test_auto_leaves_out_what_does_not_run_here(model, targets, monkeypatch, fault, when):
    def fail(*_):
        raise fault

    def load(*_):
        return fail() if when == "loading" else fail

    for name in ("onnx", "openvino"):
        whole = TARGETS.get(name)
        broken = Target(packages=(), write=whole.write, load=load)
        monkeypatch.setitem(TARGETS._members, name, broken)
    assert lamina.load(model, device="cpu", backend="auto").backend == "torch"


def test_auto_remembers_one_model_beside_another(model, targets, tmp_path):
    other = tmp_path / "other.lamina"
    save_bundle(small_bundle("tinyunet", channels=2), other)
    for file in (model, other):
        lamina.load(file, device="cpu", backend="auto")
    before = len(targets)
    for file in (model, other):
        lamina.load(file, device="cpu", backend="auto")
    assert len(targets) - before <= 2, "nothing is measured again"


def test_auto_survives_a_damaged_measurement(model, targets):
    lamina.load(model, device="cpu", backend="auto")
    (kept,) = backends.cache_folder().glob("*.json")
    for content in ("[", "null", '{"abacus": 1.0}'):
        kept.write_text(content)
        assert lamina.load(model, device="cpu", backend="auto").backend != "openvino"


def test_measuring_keeps_no_memory_where_it_is_limited(model, targets, monkeypatch):
    asked = []
    monkeypatch.setattr("lamina.inference.backend.keep_freed_memory", lambda: asked.append("keep"))
    lamina.load(model, device="cpu", backend="auto", ram_bytes=8e9)
    assert asked == []


def test_an_unknown_backend_is_refused(model):
    with pytest.raises(ConfigError, match="must be one of torch, onnx, openvino, auto"):
        lamina.load(model, device="cpu", backend="tensorrt")


def test_other_runtimes_are_for_the_processor():
    with pytest.raises(ConfigError, match="not on cuda"):
        backends.backend_of("onnx", None, dict, model_sha256="", device="cuda")
    assert backends.backend_of("auto", None, dict, model_sha256="", device="cuda") == (
        "torch",
        None,
    )


def test_openvino_tells_nobody_that_it_is_used():
    pytest.importorskip("openvino")
    script = (
        "import lamina.export.targets.openvino, openvino, openvino.tools.ovc.telemetry_utils as t\n"
        "print(t.tm.__name__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "openvino.tools.ovc.telemetry_stub\n"


def test_onnx_runtime_leaves_no_name_of_this_machine(tmp_path):
    """By which it would be known to those who count it."""
    pytest.importorskip("onnxruntime")
    script = (
        "import lamina.export.targets.onnx, onnxruntime\n"
        "onnxruntime.InferenceSession, onnxruntime.get_available_providers()"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)
    assert list(tmp_path.rglob("*")) == []

"""What every export target promises of every network: the logits of the original.

The papers' networks and two baselines; whatever else is exported is compared on the spot. Graphs
are what takes the time, so the targets that go by way of ONNX share one.
"""

import re
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
import torch

from lamina.bundle import transformer_weights
from lamina.errors import ExportError, LaminaError
from lamina.export import graphs
from lamina.export.graphs import graphs_of
from lamina.export.parity import compare
from lamina.export.targets import ATTENTION, MODEL, TARGETS, Graph, running
from lamina.inference.attention_maps import make_maker
from lamina.inference.backend import TorchNetwork
from small_bundles import small_bundle

TOLERANCE = 1e-3
"""Instance normalisation of the few voxels that such windows leave makes the most of rounding."""
BATCHES = (1, 3)
NETWORKS = (
    *("dainet", "glims", "lgmsnet_2d", "lgmsnet_3d", "lightmedseg", "mpunet"),
    *("dynunet_pocket", "segresnet"),
)


def needs(target):
    absent = [name for name in TARGETS.get(target).packages if find_spec(name) is None]
    if absent:
        pytest.skip(f"{target} needs {', '.join(absent)}, which are not installed")


@pytest.fixture(scope="module")
def built():
    """A bundle and its graphs by preset; built once."""
    known = {}

    def get(name):
        if name not in known:
            bundle = small_bundle(name, unit="px")
            vit = None
            if "attention" in bundle.network:
                told = bundle.network["attention"]
                vit = make_maker(told, transformer_weights(bundle)).vit
            known[name] = bundle, graphs_of(bundle, vit)
        return known[name]

    return get


@pytest.fixture(scope="module")
def onnx_files(tmp_path_factory):
    return tmp_path_factory.mktemp("onnx"), {}


@pytest.fixture(autouse=True)
def one_onnx_file_per_graph(onnx_files, monkeypatch):
    folder, known = onnx_files
    convert = graphs.to_onnx

    def to_onnx(graph, path):
        if id(graph) not in known:
            known[id(graph)] = folder / f"{len(known)}.onnx"
            convert(graph, known[id(graph)])
        shutil.copy(known[id(graph)], path)

    monkeypatch.setattr(graphs, "to_onnx", to_onnx)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", NETWORKS)
def test_an_exported_network_gives_the_logits_of_the_original(built, name, target, tmp_path):
    needs(target)
    bundle, made = built(name)
    if target == "monai" and ATTENTION in made:
        with pytest.raises(ExportError, match="attention maps"):
            TARGETS.get(target).write(bundle, made, tmp_path)
        return
    TARGETS.get(target).write(bundle, made, tmp_path)
    for graph in made:
        exported = TARGETS.get(target).load(tmp_path, graph, 1, "fp32")
        _, *shape = made[graph].example.shape
        rng = np.random.default_rng(1)
        batches = (rng.normal(size=(count, *shape)).astype(np.float32) for count in BATCHES)
        found = compare(TorchNetwork(made[graph].network), exported, batches, region_based=False)
        assert found.windows == sum(BATCHES)
        assert found.relative_error < TOLERANCE


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_what_goes_wrong_while_a_network_runs_is_an_error_that_everybody_expects(target, tmp_path):
    needs(target)
    graph = Graph(network=torch.nn.ReLU(), example=torch.zeros(2, 1, 8, 8))
    TARGETS.get(target).write(None, {MODEL: graph}, tmp_path)
    network = TARGETS.get(target).load(tmp_path, MODEL, 1, "fp32")
    with pytest.raises(RuntimeError):
        network(np.zeros((1, 1, 8, 9), np.float32))


def test_a_runtime_that_lacks_memory_says_so_in_one_line():
    told = "Exception from src/node.cpp:794:\n[CPU] Failed to allocate 9 bytes of memory\n\n"
    with pytest.raises(MemoryError) as error, running():
        raise RuntimeError(told)
    assert str(error.value) == "[CPU] Failed to allocate 9 bytes of memory"


def test_a_file_that_openvino_cannot_write_is_no_fault_of_the_network(tmp_path, monkeypatch):
    needs("openvino")
    import openvino

    def full(*arguments, **options):
        raise RuntimeError("basic_ios::clear: iostream error")

    monkeypatch.setattr(openvino, "save_model", full)
    graph = Graph(network=torch.nn.ReLU(), example=torch.zeros(2, 1, 8, 8))
    with pytest.raises(OSError, match="is the disk full"):
        TARGETS.get("openvino").write(None, {MODEL: graph}, tmp_path)


class Airy(torch.nn.Module):
    def forward(self, image):
        return torch.special.airy_ai(image)


@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_what_cannot_be_exported_is_refused_by_the_name_of_its_operator(target, tmp_path):
    needs(target)
    graph = Graph(network=Airy().eval(), example=torch.zeros(2, 1, 8, 8))
    with pytest.raises(ExportError, match=r"operator aten[.:]+special_airy_ai"):
        TARGETS.get(target).write(None, {MODEL: graph}, tmp_path)


def test_what_cannot_be_traced_is_refused(tmp_path):
    class Fickle(torch.nn.Module):
        def forward(self, image):
            return image * 2 if image.sum() > 0 else image

    graph = Graph(network=Fickle(), example=torch.ones(2, 1, 8, 8))
    with pytest.raises(ExportError, match="cannot be exported to torch"):
        TARGETS.get("torch").write(None, {MODEL: graph}, tmp_path)


@pytest.mark.parametrize("target", TARGETS)
def test_a_graph_that_is_missing_is_told_with_its_folder(target, tmp_path):
    needs(target)
    with pytest.raises(LaminaError, match=re.escape(str(tmp_path))):
        TARGETS.get(target).network(tmp_path, MODEL)


def test_a_graph_of_a_newer_onnx_is_told_with_the_remedy(tmp_path):
    needs("onnx")
    import onnx

    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    made = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([node], "newer", [value], [made])
    onnx.save(onnx.helper.make_model(graph, ir_version=99), tmp_path / "model.onnx")
    with pytest.raises(ExportError, match=r"(?s)cannot be loaded: .*99.* Upgrade the runtime"):
        TARGETS.get("onnx").network(tmp_path, MODEL)

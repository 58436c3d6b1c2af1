"""An exported model is whole and unaltered, or it is refused."""

import json

import numpy as np
import pytest

from lamina.errors import BundleError, ExportError
from lamina.export.container import SUMS, is_exported, read_exported
from lamina.export.graphs import graphs_of
from lamina.export.targets import MODEL, TARGETS
from lamina.export.writing import write_exported
from lamina.files import sha256
from lamina.inference.backend import TorchNetwork
from small_bundles import small_bundle

SOURCE = {"file": "model.lamina", "sha256": "0" * 64}


@pytest.fixture(scope="module")
def bundle():
    return small_bundle("tinyunet", channels=2, unit="px")


@pytest.fixture
def exported(bundle, tmp_path):
    write_exported(bundle, graphs_of(bundle), "monai", tmp_path / "x", source=SOURCE)
    return tmp_path / "x"


def test_everything_but_the_weights_is_read_back(bundle, exported):
    found = read_exported(exported)
    assert is_exported(exported)
    assert found.plan == bundle.plan
    assert list(found.plan.labels.values) == list(bundle.plan.labels.values)
    assert (found.target, found.precision, found.source) == ("monai", "fp32", SOURCE)
    assert found.provenance == bundle.provenance
    assert json.loads((exported / "parity.json").read_text())["noise"]["agreement"] == 1
    card = (exported / "README.md").read_text()
    assert "CC0" in card
    assert TARGETS.get("monai").how_to_run.format(folder="THIS_FOLDER") in card
    assert "lamina-runtime" not in card


@pytest.mark.parametrize("name", ["export.json", "models/model.pt", "README.md"])
def test_an_altered_file_is_named(exported, name):
    path = exported / name
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(BundleError, match=f"{name} altered"):
        read_exported(exported)


def test_a_missing_and_a_further_file_are_named(exported):
    (exported / "LICENSE").unlink()
    (exported / "more.txt").write_text("more")
    with pytest.raises(BundleError, match=r"LICENSE, more\.txt"):
        read_exported(exported)


def test_a_link_is_refused_even_to_equal_bytes(exported, tmp_path):
    card = exported / "README.md"
    card.rename(tmp_path / "card.md")
    card.symlink_to(tmp_path / "card.md")
    with pytest.raises(BundleError, match=r"README\.md altered"):
        read_exported(exported)


def test_a_folder_without_checksums_is_no_exported_model(exported):
    (exported / SUMS).unlink()
    assert not is_exported(exported)
    with pytest.raises(BundleError, match="holds no exported model"):
        read_exported(exported)


def told(**changes):
    """Describe the network of the bundle."""
    return {"name": "tinyunet", "fields": {"in_channels": 2, "num_classes": 3} | changes}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "another Lamina"),
        ({"network": []}, "network is no mapping"),
        ({"plan": {}}, "plan|missing|required"),
        ({"network": {"name": "tinyunet"}}, "network needs a name and fields"),
        ({"network": {"name": "tinyunet", "fields": []}}, "network needs a name and fields"),
        ({"network": told(in_channels=1)}, "in_channels of the network is 1, of the plan 2"),
        ({"network": told(num_classes=4)}, "num_classes of the network is 4, of the plan 3"),
        ({"network": told() | {"members": 1}}, "members of the network is 1"),
        ({"network": told(attention_maps=2)}, "does not say what draws them"),
        ({"postprocessing": "fill_holes"}, "postprocessing must be a list of mappings"),
        ({"postprocessing": [1]}, "postprocessing must be a list of mappings"),
        ({"source": {"file": "model.lamina"}}, "source tells no sha256"),
    ],
)
def test_a_record_that_contradicts_the_format_is_refused(exported, change, message):
    record = exported / "export.json"
    before = sha256(record)
    record.write_text(json.dumps(json.loads(record.read_text()) | change))
    sums = exported / SUMS
    sums.write_text(sums.read_text().replace(before, sha256(record)))
    with pytest.raises(BundleError, match=message):
        read_exported(exported)


@pytest.mark.parametrize("shift", [0.1, float("nan")])
def test_an_export_that_computes_something_else_is_not_written(
    bundle, tmp_path, monkeypatch, shift
):
    made = graphs_of(bundle)
    load = TARGETS.get("monai").load

    def off(*arguments):
        network = load(*arguments)
        return lambda batch: network(batch) + np.float32(shift)

    wrong = type(TARGETS.get("monai"))(packages=(), write=TARGETS.get("monai").write, load=off)
    monkeypatch.setitem(TARGETS._members, "monai", wrong)
    with pytest.raises(ExportError, match=f"logits are up to {shift} off"):
        write_exported(bundle, made, "monai", tmp_path / "x", source=SOURCE)
    assert not list(tmp_path.iterdir())


def test_an_export_that_its_own_runtime_refuses_is_not_written(bundle, tmp_path, monkeypatch):
    class NotImplementedByRuntime(Exception):
        pass

    def load(*arguments):
        raise NotImplementedByRuntime("Could not find an implementation for Conv(11)")

    whole = TARGETS.get("monai")
    broken = type(whole)(packages=(), write=whole.write, load=load)
    monkeypatch.setitem(TARGETS._members, "monai", broken)
    with pytest.raises(ExportError, match=r"x: model cannot be loaded: .* Conv\(11\)\. Upgrade"):
        write_exported(bundle, graphs_of(bundle), "monai", tmp_path / "x", source=SOURCE)
    assert not list(tmp_path.iterdir())


def test_an_ensemble_of_regions_comes_back_as_the_mean_of_its_members(tmp_path):
    bundle = small_bundle("tinyunet", unit="px", regions=True, members=2)
    made = graphs_of(bundle)
    write_exported(bundle, made, "monai", tmp_path / "x", source=SOURCE)
    batch = np.random.default_rng(0).normal(size=(3, *made[MODEL].example.shape[1:]))
    batch = batch.astype(np.float32)
    found = TARGETS.get("monai").load(tmp_path / "x", MODEL, 1, "fp32")(batch)
    members = made[MODEL].network.members
    alone = [TorchNetwork(member)(batch) for member in members]
    assert np.abs(alone[0] - alone[1]).max() > 0.01
    np.testing.assert_allclose(found, np.mean(alone, axis=0), atol=1e-5)

"""Bundles survive the round trip whole, and nothing else gets through."""

import json
import os
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.bundle import build_network, load_bundle, model_card, save_bundle
from lamina.errors import BundleError


def assert_same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


def record(members: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    return {"bundle.json": json.dumps(json.loads(members["bundle.json"]) | changes).encode()}


def test_round_trip_keeps_everything(bundle, saved):
    loaded = load_bundle(saved)
    assert_same_bits(loaded.weights, bundle.weights)
    assert loaded.plan == bundle.plan
    assert list(loaded.plan.labels.values) == ["tumour", "liver"]
    for section in ("training", "metrics", "provenance"):
        assert getattr(loaded, section) == getattr(bundle, section)


def test_round_trip_gives_the_same_network(bundle, saved):
    image = torch.randn(1, 2, 16, 20, 16)
    with torch.no_grad():
        expected = build_network(bundle)(image)
        assert torch.equal(build_network(load_bundle(saved))(image), expected)


def test_every_kind_of_tensor_survives(bundle, tmp_path):
    dtypes = (torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.uint8)
    weights = {
        name: (tensor * 100).to(dtypes[i % len(dtypes)])
        for i, (name, tensor) in enumerate(bundle.weights.items())
    }
    save_bundle(replace(bundle, weights=weights), tmp_path / "x.lamina")
    assert_same_bits(load_bundle(tmp_path / "x.lamina").weights, weights)


def test_shared_and_strided_weights_survive(bundle, tmp_path):
    weights = {
        name: tensor.to(memory_format=torch.channels_last_3d) if tensor.ndim == 5 else tensor
        for name, tensor in bundle.weights.items()
    }
    vectors = [name for name, tensor in weights.items() if tensor.shape == (4,)]
    weights[vectors[1]] = weights[vectors[0]]
    save_bundle(replace(bundle, weights=weights), tmp_path / "x.lamina")
    assert_same_bits(load_bundle(tmp_path / "x.lamina").weights, weights)


def test_equal_bundles_give_equal_bytes(bundle, saved, tmp_path):
    reordered = replace(bundle, weights=dict(reversed(bundle.weights.items())))
    for number, twin in enumerate([bundle, reordered, load_bundle(saved)]):
        path = tmp_path / f"{number}.lamina"
        save_bundle(twin, path)
        assert path.read_bytes() == saved.read_bytes()


def test_the_card_travels_with_the_model(bundle, members):
    assert members["README.md"].decode() == model_card(bundle)


def test_other_suffix_is_refused(bundle, tmp_path):
    with pytest.raises(BundleError, match=r"model\.zip.*\.lamina\. Use model\.lamina\.$"):
        save_bundle(bundle, tmp_path / "model.zip")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.zeros(1), "\ud800"])
def test_record_that_is_no_json_is_not_written(value, bundle, tmp_path):
    with pytest.raises(BundleError, match=r"x\.lamina: bundle\.json would not be strict JSON"):
        save_bundle(replace(bundle, metrics={"mean_dice": value}), tmp_path / "x.lamina")
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_network_are_not_written(bundle, tmp_path):
    with pytest.raises(BundleError, match="missing"):
        save_bundle(replace(bundle, weights={}), tmp_path / "x.lamina")
    assert list(tmp_path.iterdir()) == []


def test_newer_format_asks_for_an_upgrade(members, repack):
    path = repack(record(members, format_version=3, novelty={}))
    with pytest.raises(BundleError, match="made by a newer Lamina.*Upgrade") as caught:
        load_bundle(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize("version", [None, 0, -1, True, 1.0, "1"])
def test_odd_format_version_is_refused(version, members, repack):
    with pytest.raises(BundleError, match="format_version"):
        load_bundle(repack(record(members, format_version=version)))


@pytest.mark.parametrize("section", ["network", "plan", "training", "metrics", "provenance"])
@pytest.mark.parametrize("value", [None, 3, "text", [1]])
def test_section_of_the_wrong_type_is_named(section, value, members, repack):
    with pytest.raises(BundleError, match=f"repacked.lamina.*unknown: {section}"):
        load_bundle(repack(record(members, **{section: value})))


def test_unknown_section_is_named(members, repack):
    with pytest.raises(BundleError, match=r"repacked\.lamina.*unknown: hooks"):
        load_bundle(repack(record(members, hooks={"on_load": "rm"})))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"a": NaN}',
        '{"a": 1e999}',
        '{"a": "\\ud800"}',
        "[" * 100_000,
        "\xff",
    ],
)
def test_text_that_is_no_record_is_refused(text, repack):
    path = repack({"bundle.json": text.encode("latin-1")})
    with pytest.raises(BundleError, match=r"bundle\.json") as caught:
        load_bundle(path)
    assert str(path) in caught.value.message


@pytest.mark.parametrize(
    ("section", "key", "value", "message"),
    [
        ("plan", "labels", {"values": {"a": 1, "b": 1}}, "share the value 1"),
        ("plan", "labels", None, "labels"),
        ("plan", "target_spacing", "wide", "target_spacing"),
        ("plan", "surprise", 1, "plan.*surprise|surprise.*unknown"),
        ("plan", "channels", ["CT"], "normalisation has 2 entries; 1 are needed"),
        ("plan", "labels", {"values": {"a": 1}}, "num_classes of the network is 3, of the plan 2"),
        ("network", "name", 5, "needs a name and fields"),
        ("network", "fields", [], "needs a name and fields"),
    ],
)
def test_contradicting_record_is_explained(section, key, value, message, members, repack):
    whole = json.loads(members["bundle.json"])
    path = repack(record(members, **{section: whole[section] | {key: value}}))
    with pytest.raises(BundleError, match=message) as caught:
        load_bundle(path)
    assert str(path) in caught.value.message


class Payload:
    """Makes a folder when unpickled."""

    def __init__(self, target: str) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (self.target,)


def test_pickle_in_place_of_weights_is_not_run(repack, tmp_path):
    sentinel = tmp_path / "executed"
    attack = pickle.dumps(Payload(str(sentinel)))
    path = repack({"weights.safetensors": attack})
    with pytest.raises(BundleError, match=r"weights\.safetensors is not readable") as caught:
        load_bundle(path)
    assert str(path) in caught.value.message
    assert not sentinel.exists()
    pickle.loads(attack)
    assert sentinel.exists(), "the payload must have teeth for this test to mean anything"


def test_weights_of_another_network_are_named(saved, repack):
    weights = load_bundle(saved).weights
    first, second, *_ = weights
    weights["stranger"] = weights.pop(first)
    weights[second] = weights[second][None]
    path = repack({"weights.safetensors": safetensors.torch.save(weights)})
    loaded = load_bundle(path)
    with pytest.raises(BundleError) as caught:
        build_network(loaded)
    message = caught.value.message
    for part in (str(path), f"1 missing: {first}", "1 unexpected: stranger", f"shape: {second}"):
        assert part in message


def outcome(path: Path) -> torch.nn.Module | str:
    """Return the network, or the message the bundle was refused with."""
    try:
        return build_network(load_bundle(path))
    except BundleError as error:
        return error.message


def changed(data: st.DataObject, tree: Any) -> Any:
    """Replace one part of a JSON tree, at any depth, by something else."""
    whole = not isinstance(tree, (dict, list)) or not tree
    if whole or data.draw(st.integers(0, 4)) == 0:
        leaf = st.none() | st.booleans() | st.integers(-4, 40) | st.floats() | st.text(max_size=5)
        return data.draw(st.recursive(leaf, lambda x: st.lists(x) | st.dictionaries(st.text(), x)))
    if isinstance(tree, list):
        at = data.draw(st.integers(0, len(tree) - 1))
        return [*tree[:at], changed(data, tree[at]), *tree[at + 1 :]]
    key = data.draw(st.sampled_from(sorted(tree)))
    rest = {k: v for k, v in tree.items() if k != key}
    return rest if data.draw(st.integers(0, 9)) == 0 else rest | {key: changed(data, tree[key])}


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_forged_record_loads_or_is_refused(data, members, repack):
    forged = json.dumps(changed(data, json.loads(members["bundle.json"]))).encode()
    path = repack({"bundle.json": forged})
    found = outcome(path)
    assert isinstance(found, torch.nn.Module) or str(path) in found


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_forged_weights_load_or_are_refused(data, members, repack):
    forged = bytearray(members["weights.safetensors"])
    header = 8 + int.from_bytes(forged[:8], "little")
    for position in data.draw(st.lists(st.integers(0, header - 1), min_size=1, max_size=4)):
        forged[position] = data.draw(st.integers(0, 255))
    path = repack({"weights.safetensors": bytes(forged)})
    found = outcome(path)
    assert isinstance(found, torch.nn.Module) or str(path) in found

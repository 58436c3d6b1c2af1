"""Several networks in one bundle decide by the mean of their logits."""

import json
import re
import zipfile
from dataclasses import replace

import pytest
import torch

from lamina.bundle import (
    build_network,
    joined,
    load_bundle,
    model_card,
    parted,
    save_bundle,
)
from lamina.errors import BundleError
from lamina.models import configure

STEP = {"structure": "liver", "operation": "fill_holes", "dice_before": 0.9, "dice_after": 0.92}


@pytest.fixture(scope="module")
def alike(bundle):
    """The bundle, and two more of the same network with weights of their own."""
    config = configure(bundle.network["name"], **bundle.network["fields"])
    made = [bundle]
    for seed in (1, 2):
        torch.manual_seed(seed)
        made.append(replace(bundle, weights=config.build().state_dict()))
    return made


@pytest.fixture(scope="module")
def ensemble(bundle, alike):
    weights = joined([member.weights for member in alike])
    return replace(bundle, network=bundle.network | {"members": 3}, weights=weights)


def test_the_logits_are_the_mean_of_those_of_the_members(alike, ensemble, tmp_path):
    save_bundle(ensemble, tmp_path / "x.lamina")
    network = build_network(load_bundle(tmp_path / "x.lamina"))
    image = torch.randn(1, 2, 16, 20, 16)
    with torch.no_grad():
        alone = torch.stack([build_network(member)(image) for member in alike])
        assert torch.equal(network(image), alone.mean(0))
    assert not torch.equal(alone[0], alone[1])
    assert not any(module.training for module in network.modules())


def test_weights_lie_side_by_side_and_come_apart_again(alike, ensemble):
    assert {name.partition("/")[0] for name in ensemble.weights} == {
        "member_0",
        "member_1",
        "member_2",
    }
    for member, found in zip(alike, parted(ensemble.weights, 3), strict=True):
        assert found.keys() == member.weights.keys()
        assert all(torch.equal(found[name], tensor) for name, tensor in member.weights.items())
    assert joined([alike[0].weights]) == alike[0].weights


def test_a_single_model_is_written_as_it_always_was(bundle, saved):
    """Readers from before ensembles must go on reading it."""
    record = json.loads(archived(saved)["bundle.json"])
    assert record["format_version"] == 1
    assert "postprocessing" not in record
    assert "members" not in record["network"]
    assert load_bundle(saved).weights.keys() == bundle.weights.keys()


def test_older_readers_are_kept_from_what_they_would_not_do(bundle, ensemble, tmp_path):
    for name, new in (("a", ensemble), ("b", replace(bundle, postprocessing=(STEP,)))):
        save_bundle(new, tmp_path / f"{name}.lamina")
        record = json.loads(archived(tmp_path / f"{name}.lamina")["bundle.json"])
        assert record["format_version"] == 2


def test_postprocessing_travels_with_the_model_and_its_card_tells(bundle, tmp_path):
    save_bundle(replace(bundle, postprocessing=(STEP,)), tmp_path / "x.lamina")
    loaded = load_bundle(tmp_path / "x.lamina")
    assert loaded.postprocessing == (STEP,)
    assert "| liver | fill_holes | 0.9 | 0.92 |" in model_card(loaded)
    assert "Postprocessing" not in model_card(bundle)


def test_the_card_says_how_many_decide(bundle, ensemble):
    single = sum(weight.numel() for weight in build_network(bundle).parameters())
    assert f"{3 * single:,} parameters" in model_card(ensemble)
    assert "An ensemble of 3 such networks" in model_card(ensemble)
    assert "ensemble" not in model_card(bundle)


@pytest.mark.parametrize("told", [None, 2, 4, True, "3", 10**9])
def test_members_are_as_many_as_are_told(ensemble, told):
    network = {n: v for n, v in ensemble.network.items() if n != "members"}
    if told is not None:
        network["members"] = told
    with pytest.raises(BundleError, match="members of the network is"):
        replace(ensemble, network=network)


def test_a_member_that_does_not_fit_is_refused(ensemble):
    broken = dict(ensemble.weights)
    broken["member_1/ghost"] = broken.pop(next(n for n in broken if n.startswith("member_1/")))
    with pytest.raises(BundleError, match="(?s)1 missing.*1 unexpected: ghost"):
        build_network(replace(ensemble, weights=broken))


@pytest.mark.parametrize("steps", [{"a": 1}, ["fill"], 3])
def test_postprocessing_of_another_shape_is_refused(bundle, repack, tmp_path, steps):
    save_bundle(replace(bundle, postprocessing=(STEP,)), tmp_path / "x.lamina")
    content = archived(tmp_path / "x.lamina")
    record = json.loads(content["bundle.json"]) | {"postprocessing": steps}
    with pytest.raises(BundleError, match=re.escape("postprocessing must be a list of mappings")):
        load_bundle(repack({**content, "bundle.json": json.dumps(record).encode()}))


def archived(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}

"""A bundle in memory: what it insists on, and the network it makes."""

from dataclasses import replace

import pytest
import torch

from lamina.bundle import build_network
from lamina.errors import BundleError


def test_network_is_ready_to_predict(bundle):
    network = build_network(bundle)
    assert not any(module.training for module in network.modules())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, bundle.weights[name]), name


def test_network_owns_its_weights(bundle):
    first = next(iter(bundle.weights))
    before = bundle.weights[first].clone()
    with torch.no_grad():
        build_network(bundle).get_parameter(first).add_(1)
    assert torch.equal(bundle.weights[first], before)


@pytest.mark.parametrize("provenance", [{}, {"dataset": None}, {"dataset": "hearts"}])
def test_records_without_a_dataset_tell_nothing_of_it(bundle, provenance):
    assert replace(bundle, provenance={"dataset": {"name": "hearts"}}).dataset["name"] == "hearts"
    assert not replace(bundle, provenance=provenance).dataset


def test_building_leaves_the_random_state(bundle):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    build_network(bundle)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"name": "lightmedsog"}, "lightmedsog.*Did you mean lightmedseg"),
        ({"fields": {"ghost": "perhaps"}}, "ghost"),
        ({"fields": {"depth": 9}}, "depth: unknown"),
        ({"fields": {"name": "twice"}}, "name"),
    ],
)
def test_network_that_cannot_be_built_is_explained(network, message, bundle):
    fields = {**bundle.network["fields"], **network.get("fields", {})}
    altered = {"name": network.get("name", "lightmedseg"), "fields": fields}
    with pytest.raises(
        BundleError, match=f"(?s)here.lamina: network .* cannot be built.*{message}"
    ):
        build_network(replace(bundle, network=altered, source="here.lamina"))


def test_all_misfits_are_counted_and_the_first_shown(bundle):
    names = list(bundle.weights)
    weights = {name: tensor for name, tensor in bundle.weights.items() if name not in names[:5]}
    weights[names[5]] = torch.zeros(2, 1)
    weights[names[6]] = bundle.weights[names[6]].to(torch.complex64)
    with pytest.raises(BundleError) as caught:
        build_network(replace(bundle, weights=weights))
    message = caught.value.message
    assert f"5 missing: {', '.join(names[:3])} and 2 more;" in message
    assert f"1 of another shape: {names[5]} (2, 1) for" in message
    assert f"1 of another kind: {names[6]} torch.complex64 for torch.float32" in message


@pytest.mark.parametrize(("field", "number"), [("in_channels", 2), ("num_classes", 3)])
def test_network_must_match_the_plan(field, number, bundle):
    fields = bundle.network["fields"] | {field: 9}
    with pytest.raises(BundleError, match=f"{field} of the network is 9, of the plan {number}"):
        replace(bundle, network={"name": "lightmedseg", "fields": fields})

"""The ledger of networks: counted beside printed."""

import json

import pytest

from lamina.errors import ConfigError, UnknownNameError
from lamina.models import NETWORKS, build
from lamina.workflows.models import list_models


def test_every_registered_network_is_listed_once(cli):
    done = cli("models", "--json")
    assert [fact["name"] for fact in json.loads(done.stdout)["models"]] == list(NETWORKS)


def test_the_count_is_that_of_the_network_that_would_be_built():
    (fact,) = list_models(in_channels=3, num_classes=5, names=["lightmedseg"])
    network = build("lightmedseg", in_channels=3, num_classes=5)
    assert fact.parameters == sum(p.numel() for p in network.parameters())


def test_counts_are_made_where_the_paper_made_them():
    (fact,) = list_models(names=["lightmedseg"])
    assert (fact.in_channels, fact.num_classes, fact.size) == (4, 4, (128, 128, 128))
    assert (fact.parameters, fact.spatial_dims, fact.size_divisor) == (477_242, (2, 3), 16)
    assert fact.source.startswith("LightMedSeg: ")


def test_deviations_are_shares_of_what_is_printed():
    (fact,) = list_models(names=["lightmedseg"])
    plain = fact.as_dict()
    assert plain["published"]["parameters"] == "0.48 M"
    assert plain["parameters_deviation"] == pytest.approx(477_242 / 480_000 - 1, abs=1e-4)
    assert plain["macs_deviation"] == pytest.approx(fact.macs / 14.64e9 - 1, abs=1e-4)
    assert plain["flops"] == 2 * fact.macs


def test_people_see_both_counts(cli):
    shown = cli("models", "lightmedseg").stdout
    assert all(text in shown for text in ("477,242", "0.48 M", "14.64 G", "4→4 128³"))


def test_unknown_and_impossible_networks_are_refused():
    with pytest.raises(UnknownNameError, match="lightmedsec"):
        list_models(names=["lightmedsec"])
    with pytest.raises(ConfigError, match="in_channels = 0 must be at least 1"):
        list_models(in_channels=0, names=["lightmedseg"])

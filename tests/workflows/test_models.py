"""The list of networks."""

import pytest

from lamina.errors import ConfigError
from lamina.models import NETWORKS, build
from lamina.workflows.models import list_models


def test_every_registered_network_is_listed_once():
    assert [fact.name for fact in list_models()] == list(NETWORKS)


def test_the_count_is_that_of_the_network_that_would_be_built():
    for fact in list_models(in_channels=3, num_classes=5):
        network = build(fact.name, in_channels=3, num_classes=5)
        assert fact.parameters == sum(p.numel() for p in network.parameters())


def test_the_papers_own_setting_has_the_papers_count():
    (fact,) = (fact for fact in list_models(4, 4) if fact.name == "lightmedseg")
    assert (fact.parameters, fact.spatial_dims, fact.size_divisor) == (477_242, (2, 3), 16)
    assert fact.source.startswith("LightMedSeg: ")


def test_a_network_without_input_is_refused():
    with pytest.raises(ConfigError, match="in_channels = 0 must be at least 1"):
        list_models(in_channels=0)

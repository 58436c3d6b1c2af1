"""What papers print, as numbers."""

import pytest

from lamina.models import NETWORKS, PUBLISHED
from lamina.models.published import Published, quantity


@pytest.mark.parametrize(
    ("figure", "number"),
    [("47.16 M", 47.16e6), ("2,326,638", 2_326_638), ("8.6 k", 8600), ("14.64 G", 14.64e9)],
)
def test_figures_read_as_numbers(figure, number):
    assert quantity(figure) == pytest.approx(number)


@pytest.mark.parametrize("figure", ["47.16M", "47.16 m", "about 5", ""])
def test_other_figures_are_refused(figure):
    with pytest.raises(ValueError, match=r"unit|float"):
        Published(where="x", in_channels=1, num_classes=2, size=(8, 8), parameters=figure)


def test_only_registered_presets_are_published():
    assert set(PUBLISHED) <= set(NETWORKS)

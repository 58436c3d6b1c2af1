"""A plan whose fields contradict each other, or cannot be, does not come into being."""

import pytest

from lamina.data.plan import Normalisation, Plan
from lamina.errors import ConfigError
from lamina.geometry import affine_along, orientation_of

ZSCORE = Normalisation(scheme="zscore")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"orientation": "XYZ"}, "orientation = XYZ: must be one letter each"),
        ({"orientation": "RRS"}, "orientation = RRS"),
        ({"orientation": "RLS"}, "orientation = RLS"),
        ({"orientation": "ras"}, "orientation = ras"),
        ({"spatial_dims": 2, "orientation": "RL"}, "orientation = RL"),
        ({"normalisation": ()}, "normalisation has 0 entries; 1 are needed"),
        ({"normalisation": (ZSCORE, ZSCORE)}, "normalisation has 2 entries"),
        ({"mirror_axes": (0, 3)}, r"mirror_axes = \(0, 3\): must be 0 to 2"),
        ({"mirror_axes": (-1,)}, "mirror_axes"),
        ({"spatial_dims": 2, "mirror_axes": (2,)}, "must be 0 to 1"),
        ({"roi_size": (10**9,) * 3}, "roi_size = .* voxels at most"),
        ({"patch_size": (10**9,) * 3}, "patch_size = .* voxels at most"),
        ({"roi_size": (16, 0, 16)}, "must be above 0"),
    ],
)
def test_fields_that_cannot_be_are_named(plan_with, changes, message):
    with pytest.raises(ConfigError, match=message):
        plan_with(**changes)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "ASR", "ILP"])
def test_any_way_through_the_body_comes_back_as_it_was(plan_with, orientation):
    assert orientation_of(affine_along(orientation, (1, 1, 1))) == orientation
    plan = plan_with(orientation=orientation)
    assert Plan.from_dict(plan.as_dict()) == plan

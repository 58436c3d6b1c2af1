"""A segmentation lies on its scan's own grid, right way round, whatever grid the plan is for."""

import itertools

import numpy as np
import pytest
from known_phantom import (
    LIVER,
    MIDDLE,
    ORIENTATIONS,
    SEEN,
    assert_lands,
    dices,
    plan,
    predictor,
    scan,
    scanned,
    turned,
)

from lamina.geometry import affine_from
from lamina.inference.predictor import Predictor
from lamina.labels import LabelSet


def test_the_phantom_looks_different_from_every_other_side():
    truth = scanned("RAS", (6, 6, 6), shape=(45, 45, 45))[1]
    turns = list(itertools.product(itertools.permutations(range(3)), *[(1, -1)] * 3))
    assert len(turns) == len(set(ORIENTATIONS)) == 48
    for axes, *signs in turns[1:]:
        turned = truth.transpose(axes)[tuple(slice(None, None, sign) for sign in signs)]
        assert dices(turned, truth).min() < 0.75, (axes, signs)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_scans_of_every_orientation_for_plans_of_every_orientation(orientation):
    number = ORIENTATIONS.index(orientation)
    rng = np.random.default_rng(number)
    for planned, oblique in ((ORIENTATIONS[5 * number % 48], 0), (ORIENTATIONS[-number], 25)):
        spacing, target = rng.uniform(5, 9, 3), tuple(rng.uniform(5, 9, 3))
        image, truth = scanned(orientation, spacing, rng.uniform(-oblique, oblique, 3))
        assert image.orientation == orientation
        assert_lands(predictor(planned, target)(image), image, truth)


@pytest.mark.parametrize("degrees", [(45, 0, 0), (0, 45, 0), (0, 0, -45), (45, 45, 45)])
@pytest.mark.parametrize("planned", ["RAS", "SPL", "AIR"])
def test_scans_halfway_between_two_orientations(degrees, planned):
    affine, shape = affine_from((5, 6, 7)), (61, 45, 35)
    affine[:3, :3] = turned(degrees) @ affine[:3, :3]
    affine[:3, 3] = MIDDLE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    image, truth = scan(affine, shape)
    assert_lands(predictor(planned, (6.0, 6.5, 5.5))(image), image, truth)


@pytest.mark.parametrize(
    "shape",
    [(1, 1, 1), (1, 43, 41), (51, 1, 41), (51, 43, 1), (1, 1, 37), (53, 2, 3), (97, 7, 65)],
)
@pytest.mark.parametrize("orientation", ["RAS", "LPI", "SRA"])
def test_scans_of_odd_sizes(shape, orientation):
    for planned, degrees in (("RAS", (0, 0, 0)), ("IAL", (8, -12, 20))):
        image, truth = scanned(orientation, (5, 6, 7), degrees, shape, middle=LIVER)
        assert (truth == SEEN["liver"]).any()
        assert_lands(predictor(planned, (6.0, 5.5, 6.5))(image), image, truth, at_least=0.6)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("orientation", ["RAS", "PIL", "SRP", "LAI"])
def test_networks_that_see_slices(axis, orientation):
    window = tuple(1 if i == axis else 32 for i in range(3))
    sliced = predictor("LPS", (6.0, 6.0, 6.0), slice_axis=axis, patch_size=window, roi_size=window)
    image, truth = scanned(orientation, (5, 6, 7), (5, 10, -15))
    assert_lands(sliced(image), image, truth)


@pytest.mark.parametrize("orientation", ["RAS", "LPI", "PSR", "SLA"])
def test_networks_that_draw_regions(orientation):
    """Each region's logit is above 0 where its channel shows it."""
    labels = LabelSet(
        values=SEEN,
        regions={"all": tuple(SEEN), **{f"{name} alone": (name,) for name in list(SEEN)[1:]}},
    )
    drawing = Predictor(
        network=lambda batch: (
            np.concatenate([batch.sum(1, keepdims=True), batch[:, 1:]], axis=1) - 0.5
        ),
        plan=plan("RAS", (6.0, 6.0, 6.0), labels=labels, region_based=True),
    )
    image, truth = scanned(orientation, (5, 6, 7), (5, 10, -15))
    assert_lands(drawing(image), image, truth)

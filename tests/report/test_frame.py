"""Small pictures of one case: the same slices, both outlines, nothing that is not there."""

import numpy as np
import pytest

from lamina.geometry import affine_along
from lamina.labels import LabelSet
from lamina.report.frame import INK, Frames
from lamina.report.overlay import label_colours
from lamina.volume import Volume

LABELS = LabelSet(values={"organ": 1, "lesion": 2})


def frames(shape, orientation, spacing):
    image = np.linspace(0, 1, int(np.prod(shape)), dtype=np.float32).reshape(1, *shape) * 0.5
    reference = np.zeros((1, *shape), np.uint8)
    reference[(0, *(slice(n // 4, n // 2) for n in shape))] = 1
    affine = affine_along(orientation, spacing)
    return Frames(Volume(image, affine), reference, LABELS), reference


def count(picture, colour, rows=slice(0, -26)):
    return int((picture[rows] == colour).all(-1).sum())


@pytest.mark.parametrize(
    ("shape", "orientation", "spacing"),
    [((32, 40, 16), "LPS", (1, 1, 3)), ((30, 20, 24), "RAS", (1, 2, 1)), ((40, 32), "LP", (1, 1))],
)
def test_both_outlines_are_seen_on_the_same_slices_whatever_is_predicted(
    shape, orientation, spacing
):
    drawn, reference = frames(shape, orientation, spacing)
    organ, lesion = (
        tuple(round(255 * part) for part in colour) for colour in label_colours(LABELS).values()
    )
    right, nothing = drawn.draw(reference), drawn.draw(np.zeros_like(reference))
    assert right.shape == nothing.shape
    assert right.dtype == np.uint8
    assert count(right, INK) == count(nothing, INK) > 50
    assert count(right, organ) > 50
    assert count(nothing, organ) == count(right, lesion) == 0
    assert count(drawn.draw(2 * reference), lesion) == count(right, organ)


def test_voxels_to_ignore_and_empty_cases_are_drawn_as_nothing():
    image = Volume(np.zeros((1, 16, 16, 16), np.float32), affine_along("RAS", (1, 1, 1)))
    ignored = np.full((1, 16, 16, 16), 255, np.uint8)
    picture = Frames(image, ignored, LABELS).draw(np.zeros_like(ignored))
    assert count(picture, INK) == 0

"""What is done to a finished segmentation, and how a model carries it."""

import numpy as np
import pytest

from lamina.errors import ConfigError
from lamina.geometry import affine_from
from lamina.inference.postprocess import Step, postprocess, steps_from
from lamina.inference.predictor import Predictor
from lamina.labels import LabelSet
from lamina.volume import Volume

LABELS = LabelSet(values={"organ": 300, "tumour": 5}, background=9)


def scene(lean=0.0):
    """An organ with a hole, a tumour in it, and two islands of 1 and 8 voxels of 2 mm³."""
    affine = affine_from((1.0, 1.0, 2.0))
    affine[1, 2] = lean
    array = np.full((1, 16, 12, 12), 9, np.uint16)
    array[0, 1:8, 1:8, 1:8] = 300
    array[0, 3, 3, 3] = 9
    array[0, 5, 5, 5] = 5
    array[0, 10, 10, 10] = 300
    array[0, 12:14, 1:3, 1:3] = 300
    return Volume(array, affine, "scene")


def after(*steps, of=None):
    return postprocess(of or scene(), LABELS, steps).array[0]


def test_only_the_largest_part_of_a_structure_is_kept():
    found = after(Step(structure="organ", operation="largest_component"))
    expected = scene().array[0].copy()
    expected[9:] = 9
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("lean", [0.0, 1.5])
@pytest.mark.parametrize(("min_size", "parts"), [(2.0, 3), (2.1, 2), (16.0, 2), (16.1, 1)])
def test_parts_are_small_by_their_size_in_mm(min_size, parts, lean):
    step = Step(structure="organ", operation="remove_small", min_size=min_size)
    found = after(step, of=scene(lean))
    kept = [found[1, 1, 1] == 300, found[10, 10, 10] == 300, found[12, 1, 1] == 300]
    assert kept == [True, parts == 3, parts >= 2]


def test_voxels_that_touch_by_a_corner_belong_together():
    array = np.full((1, 4, 4, 4), 9, np.uint16)
    array[0, [0, 1, 2], [0, 1, 2], [0, 1, 2]] = 300
    for image in (array, array[:, :3, :3, 0].copy()):
        volume = Volume(image, affine_from((1.0,) * (image.ndim - 1)), "diagonal")
        found = after(Step(structure="organ", operation="largest_component"), of=volume)
        np.testing.assert_array_equal(found, image[0])


def test_a_hole_is_filled_and_what_lies_in_it_is_left():
    found = after(Step(structure="organ", operation="fill_holes"))
    expected = scene().array[0].copy()
    expected[3, 3, 3] = 300
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("shape", [(9, 9, 1), (9, 1, 9), (1, 9, 9), (9, 9)])
def test_a_hole_in_a_volume_of_one_slice_is_filled(shape):
    array = np.full((9, 9), 9, np.uint16)
    array[1:8, 1:8] = 300
    array[3, 3] = 9
    expected = np.where(array == 9, 9, 300)
    expected[3, 3] = 300
    volume = Volume(array.reshape(1, *shape), affine_from((1.0,) * len(shape)), "slice")
    found = after(Step(structure="organ", operation="fill_holes"), of=volume)
    np.testing.assert_array_equal(found, expected.reshape(shape))


def test_a_ring_in_one_slice_of_several_has_no_hole():
    array = np.full((1, 9, 9, 3), 9, np.uint16)
    array[0, 1:8, 1:8, 1] = 300
    array[0, 3, 3, 1] = 9
    volume = Volume(array, affine_from((1.0, 1.0, 1.0)), "ring")
    found = after(Step(structure="organ", operation="fill_holes"), of=volume)
    np.testing.assert_array_equal(found, array[0])


def test_a_structure_that_is_not_there_is_no_fault():
    empty = Volume(np.full((1, 4, 4, 4), 9, np.uint16), affine_from((1, 1, 1)), "empty")
    for operation in ("largest_component", "fill_holes"):
        assert (after(Step(structure="organ", operation=operation), of=empty) == 9).all()


def test_the_segmentation_that_was_given_stays_as_it_was():
    given = scene()
    after(Step(structure="organ", operation="largest_component"), of=given)
    np.testing.assert_array_equal(given.array, scene().array)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        ({"structure": "lung", "operation": "fill_holes"}, "'lung' is none of organ, tumour"),
        ({"structure": "organ", "operation": "melt"}, "operation"),
        ({"structure": "organ", "operation": "remove_small"}, "min_size = None: must be above 0"),
        ({"structure": "organ", "operation": "fill_holes", "min_size": 3.0}, "only there"),
        ({"operation": "fill_holes"}, "structure"),
    ],
)
def test_steps_that_make_no_sense_are_refused(record, fault):
    with pytest.raises(ConfigError, match=fault):
        steps_from([record], LABELS)


def test_figures_beside_a_step_do_not_matter():
    record = {"structure": "tumour", "operation": "fill_holes", "min_size": None, "dice_after": 1}
    assert steps_from([record], LABELS) == (Step(structure="tumour", operation="fill_holes"),)


def test_a_predictor_applies_its_steps_to_what_it_found(plan, two_balls):
    image, network = two_balls
    raw = Predictor(network=network, plan=plan)(image)
    step = Step(structure="ball", operation="largest_component")
    found = Predictor(network=network, plan=plan, postprocessing=(step,))(image)
    assert raw.array[0, 2, 2, 2] == raw.array[0, 12, 12, 12] == 7
    assert (found.array[0, 2, 2, 2], found.array[0, 12, 12, 12]) == (0, 7)
    np.testing.assert_array_equal(found.array, postprocess(raw, plan.labels, (step,)).array)


@pytest.fixture
def plan():
    from lamina.data.plan import Normalisation, Plan

    return Plan(
        spatial_dims=3,
        channels=("MR",),
        labels=LabelSet(values={"ball": 7}),
        orientation="RAS",
        target_spacing=(1.0, 1.0, 1.0),
        normalisation=(Normalisation(scheme="zscore"),),
        network="lightmedseg",
        patch_size=(16, 16, 16),
        roi_size=(16, 16, 16),
        batch_size=1,
        mirror_axes=(),
        epochs=1,
        steps_per_epoch=1,
    )


@pytest.fixture
def two_balls():
    """A scan of a small and a large bright box, and a network that finds what is bright."""
    array = np.random.default_rng(0).normal(0, 1, (1, 16, 16, 16)).astype(np.float32)
    array[0, 1:4, 1:4, 1:4] += 100
    array[0, 9:15, 9:15, 9:15] += 100

    def network(batch):
        return np.concatenate([np.ones_like(batch), batch], axis=1)

    return Volume(array, affine_from((1, 1, 1)), "two"), network

"""Brier score and ECE look around the reference: errors cost the same wherever they lie."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS
from lamina.evaluation.scores import score_case
from lamina.labels import LabelSet

LABELS = LabelSet(values={"organ": 1})


def scored(metric, prediction, reference, probability):
    """Score one structure as an evaluation does, cropped to what counts."""
    rows = score_case(
        "a",
        prediction.astype(np.uint8),
        reference.astype(np.uint8),
        LABELS,
        (1.0,) * reference.ndim,
        [metric],
        probabilities=np.stack([1 - probability, probability]),
    )
    return rows[0].value


def cube():
    """Return an organ of 10 voxels a side in a grid of 60, and what a network finds of it."""
    reference = np.zeros((60, 60, 60), bool)
    reference[20:30, 20:30, 20:30] = True
    prediction = reference.copy()
    prediction[20:25] = False
    return prediction, reference, np.where(prediction, 0.9, 0.2 * reference)


def test_the_box_is_the_references_and_three_voxels_on_each_side():
    expected = (500 * 0.1**2 + 500 * 0.8**2) / 16**3
    assert scored("brier", *cube()) == pytest.approx(expected)
    assert scored("ece", *cube()) == pytest.approx((500 * 0.1 + 500 * 0.8) / 16**3)


@pytest.mark.parametrize("place", [(0, 0, 0), (59, 59, 59), (40, 25, 25), (18, 18, 18)])
def test_a_false_voxel_costs_as_much_wherever_it_lies(place):
    prediction, reference, probability = cube()
    before = scored("brier", prediction, reference, probability)
    prediction[place], probability[place] = True, 0.7
    after = scored("brier", prediction, reference, probability)
    assert after - before == pytest.approx(0.7**2 / 16**3)


def test_false_voxels_without_number_cost_no_more_than_missing_the_structure():
    reference = cube()[1]
    everywhere = np.ones_like(reference)
    for metric in ("brier", "ece"):
        assert scored(metric, everywhere, reference, np.ones(reference.shape)) == 1
        assert scored(metric, ~everywhere, reference, np.zeros(reference.shape)) == 1
        assert scored(metric, everywhere, ~everywhere, np.full(reference.shape, 0.5)) == 1


masks = st.tuples(st.integers(2, 14), st.integers(2, 14), st.integers(0, 2**32 - 1))


@settings(deadline=None)
@given(drawn=masks, share=st.floats(0.0, 0.3), false=st.floats(0.0, 1.0))
def test_false_voxels_never_improve_the_brier_score(drawn, share, false):
    *shape, seed = drawn
    rng = np.random.default_rng(seed)
    reference = np.zeros(shape, bool)
    reference[tuple(rng.integers(shape))] = True
    reference |= rng.random(shape) < share * rng.random()
    probability = rng.random(shape)
    prediction = probability > rng.random()
    prediction[tuple(np.argwhere(reference)[0])] = True  # neither missed before, nor after
    before = scored("brier", prediction, reference, probability)
    added = ~reference & ~prediction & (rng.random(shape) < false)
    surer = np.where(added, rng.uniform(probability, 1), probability)
    assert scored("brier", prediction | added, reference, surer) >= before - 1e-12


@settings(deadline=None)
@given(drawn=masks)
def test_what_an_evaluation_crops_away_changes_nothing(drawn):
    *shape, seed = drawn
    rng = np.random.default_rng(seed)
    prediction, reference = rng.random((2, *shape)) < 0.05
    probability = rng.random(shape)
    whole = Comparison(prediction, reference, (1.0, 1.0), probability=probability)
    for metric in ("brier", "ece"):
        found = scored(metric, prediction, reference, probability)
        assert found == pytest.approx(METRICS.get(metric).value(whole), nan_ok=True)

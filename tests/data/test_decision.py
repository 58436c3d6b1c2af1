"""Logits become class indices or probabilities."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from lamina.data.decision import decided, to_probabilities

LOGITS = np.random.default_rng(0).normal(0, 30, (4, 6, 5, 7)).astype(np.float32)


def test_the_largest_class_wins_and_the_first_where_several_are():
    np.testing.assert_array_equal(decided(LOGITS), LOGITS.argmax(0))
    assert (decided(np.stack([LOGITS[0] - 1, LOGITS[0], LOGITS[0]])) == 1).all()


def test_regions_are_drawn_in_order():
    found = decided(LOGITS, drawing=((2, 3), (0, 1)))
    np.testing.assert_array_equal(found, np.where(LOGITS[0] > 0, 1, 3 * (LOGITS[2] > 0)))


@pytest.mark.parametrize("scale", [0.01, 1, 1e4])
def test_probabilities_are_exact_and_never_overflow(scale):
    logits = np.float32(scale) * LOGITS
    exclusive = to_probabilities(logits.copy(), exclusive=True)
    np.testing.assert_allclose(exclusive, softmax(logits, axis=0), atol=1e-6)
    apart = to_probabilities(logits.copy(), exclusive=False)
    np.testing.assert_allclose(apart, expit(logits), atol=1e-6)
    assert exclusive.dtype == apart.dtype == np.float32

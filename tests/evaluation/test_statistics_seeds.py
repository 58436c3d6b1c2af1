"""The spread of several trainings: by hand, and recovered from data made of known parts."""

import math

import numpy as np
import pytest

from lamina.evaluation.statistics.seeds import seed_spread


def test_by_hand():
    """Means 2 and 4; each seed's patients lie 1 and 3 around their mean in turn."""
    found = seed_spread(np.array([[1.0, 3.0], [1.0, 7.0]]))
    assert found.means == (2, 4)
    assert found.between == pytest.approx(math.sqrt(2))
    assert found.within == pytest.approx(math.sqrt((2 + 18) / 2))
    # mean squares: seeds 4, patients 16, rest 4
    assert found.seed == 0
    assert found.patient == pytest.approx(math.sqrt((16 - 4) / 2))
    assert found.rest == pytest.approx(2)


def test_finds_the_parts_that_values_were_made_of():
    rng = np.random.default_rng(3)
    seeds, patients = rng.normal(0, 0.02, (200, 1)), rng.normal(0, 0.08, (1, 300))
    values = 0.8 + seeds + patients + rng.normal(0, 0.03, (200, 300))
    found = seed_spread(values)
    parts = (found.seed, found.patient, found.rest)
    assert parts == pytest.approx((0.02, 0.08, 0.03), rel=0.1)
    assert found.between == pytest.approx(0.02, rel=0.1)


def test_seeds_that_agree_have_no_spread():
    found = seed_spread(np.array([[0.5, 0.7, 0.9]] * 3))
    assert (found.between, found.seed, found.rest) == pytest.approx((0, 0, 0))
    assert found.patient == pytest.approx(0.2)


def test_a_single_patient_has_no_spread_within():
    found = seed_spread(np.array([[0.5], [0.7]]))
    assert found.between == pytest.approx(0.2 / math.sqrt(2))
    assert all(math.isnan(part) for part in (found.within, found.seed, found.patient, found.rest))

"""What every registered metric promises, whatever its formula."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.evaluation.metrics import METRICS, empty_case

SHAPE, SPACING = (6, 5, 7), (1.5, 1.0, 0.8)
DIAGONAL = math.hypot(*np.multiply(SHAPE, SPACING))
RANKED = [name for name in METRICS if METRICS.get(name).higher_is_better is not None]
SPACINGS = {2: (0.7, 1.9), 3: SPACING}

every_metric = pytest.mark.parametrize("name", METRICS)
every_ranked_metric = pytest.mark.parametrize("name", RANKED)


@st.composite
def masks(draw, shape=SHAPE):
    """Return a mask that holds a few voxels anywhere, borders included, and at least one."""
    seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.02, 0.3, 0.95]))
    mask = np.random.default_rng(seed).random(shape) < share
    mask[tuple(draw(st.integers(0, size - 1)) for size in shape)] = True
    return mask


def badness(metric, value):
    """Return a number that grows as the score gets worse."""
    return -value if metric.higher_is_better else value


@every_metric
def test_is_registered_under_its_own_name_and_described(name):
    metric = METRICS.get(name)
    assert metric.name == name
    assert metric.title
    assert metric.definition.endswith(".")


@every_metric
def test_empty_masks_yield_what_the_rule_prints(name):
    metric = METRICS.get(name)
    some, none = np.ones(SHAPE, bool), np.zeros(SHAPE, bool)
    rule = metric.empty.as_dict()
    for case, pair in {
        "prediction_empty": (none, some),
        "reference_empty": (some, none),
        "both_empty": (none, none),
    }.items():
        value = metric.value(*pair, SPACING, DIAGONAL)
        assert empty_case(*pair) == case.replace("_", " ")
        if rule[case] == "not applicable":
            assert math.isnan(value)
        elif rule[case] == "computed":
            assert value == metric.function(*pair, SPACING)
        else:
            assert value == (DIAGONAL if rule[case] == "grid diagonal" else rule[case])


@every_ranked_metric
@settings(max_examples=15, deadline=None)
@given(prediction=masks(), reference=masks())
def test_missing_or_inventing_a_structure_never_gives_a_better_score(name, prediction, reference):
    metric, none = METRICS.get(name), np.zeros(SHAPE, bool)
    found = badness(metric, metric.value(prediction, reference, SPACING, DIAGONAL))
    missed = badness(metric, metric.value(none, reference, SPACING, DIAGONAL))
    invented = badness(metric, metric.value(prediction, none, SPACING, DIAGONAL))
    assert found <= missed
    assert found <= invented


@every_ranked_metric
def test_is_no_worse_when_empty_than_the_two_farthest_voxels_of_the_grid(name):
    metric = METRICS.get(name)
    first, last = np.zeros((2, *SHAPE), bool)
    first[0, 0, 0] = last[-1, -1, -1] = True
    apart = badness(metric, metric.value(first, last, SPACING, DIAGONAL))
    assert apart <= badness(metric, metric.value(first & last, last, SPACING, DIAGONAL))


@every_ranked_metric
@settings(max_examples=10, deadline=None)
@given(reference=masks(), prediction=masks())
def test_nothing_beats_agreement_and_order_does_not_matter(name, prediction, reference):
    metric = METRICS.get(name)
    value = metric.function(prediction, reference, SPACING)
    assert math.isfinite(value)
    assert value >= 0
    perfect = metric.function(reference, reference, SPACING)
    assert perfect == (1 if metric.higher_is_better else 0)
    assert badness(metric, perfect) <= badness(metric, value)
    assert metric.function(reference, prediction, SPACING) == pytest.approx(value, rel=1e-6)


@every_metric
@pytest.mark.parametrize("dims", [2, 3])
def test_a_margin_of_background_and_the_order_of_axes_change_nothing(name, dims):
    """Cropping to the structures, flipping and transposing must not change a score."""
    rng = np.random.default_rng(dims)
    metric, spacing = METRICS.get(name), SPACINGS[dims]
    pair = [rng.random(SHAPE[:dims]) < share for share in (0.2, 0.5)]
    value = metric.function(*pair, spacing)
    assert metric.function(*(np.pad(mask, 2) for mask in pair), spacing) == pytest.approx(value)
    assert metric.function(*(np.flip(mask) for mask in pair), spacing) == pytest.approx(value)
    turned = metric.function(*(mask.T for mask in pair), spacing[::-1])
    assert turned == pytest.approx(value, rel=1e-5)


@every_metric
def test_returns_a_plain_float_and_leaves_its_arguments_alone(name):
    rng = np.random.default_rng(0)
    pair = [rng.random(SHAPE) < 0.3 for _ in range(2)]
    copies = [mask.copy() for mask in pair]
    for mask in pair:
        mask.flags.writeable = False
    assert type(METRICS.get(name).value(*pair, (1, 1, 2.5), DIAGONAL)) is float
    np.testing.assert_array_equal(pair, copies)

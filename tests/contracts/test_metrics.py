"""What every registered metric promises, whatever its formula."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.evaluation.calibration import MARGIN
from lamina.evaluation.comparison import Comparison, diagonal_of
from lamina.evaluation.metrics import METRICS
from lamina.evaluation.scores import Scores, score_case
from lamina.labels import LabelSet

SHAPE, SPACING = (6, 5, 7), (1.5, 1.0, 0.8)
SPACINGS = {2: (0.7, 1.9), 3: SPACING}
RANKED = [name for name in METRICS if METRICS.get(name).higher_is_better is not None]
OF_MASKS = [name for name in METRICS if not METRICS.get(name).needs_probability]
LABELS = LabelSet(values={"liver": 1, "tumour": 2})

every_metric = pytest.mark.parametrize("name", METRICS)
every_ranked_metric = pytest.mark.parametrize("name", RANKED)


@st.composite
def masks(draw, shape=SHAPE):
    """Return a mask that holds a few voxels anywhere, borders included, and at least one."""
    seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.02, 0.3, 0.95]))
    mask = np.random.default_rng(seed).random(shape) < share
    mask[tuple(draw(st.integers(0, size - 1)) for size in shape)] = True
    return mask


@st.composite
def label_maps(draw):
    """Return a map that holds both structures."""
    seed = draw(st.integers(0, 2**32 - 1))
    indices = np.random.default_rng(seed).choice(3, SHAPE, p=[0.8, 0.15, 0.05]).astype(np.uint8)
    indices[0, 0, :2] = 1, 2
    return indices


def compared(prediction, reference, spacing=SPACING, **grid):
    """Compare masks, the prediction being as sure of itself as can be."""
    sure = prediction.astype(float)
    return Comparison(prediction, reference, spacing, probability=sure, **grid)


def badness(metric, value):
    """Return a number that grows as the score gets worse."""
    return -value if metric.higher_is_better else value


@every_metric
def test_is_registered_under_its_own_name_and_described(name):
    metric = METRICS.get(name)
    assert metric.name == name
    assert metric.title
    assert metric.definition.endswith(".")


@pytest.mark.parametrize("unit", ["mm", "px"])
def test_no_two_metrics_share_a_name_or_a_heading(unit):
    metrics = [METRICS.get(name).measured_in(unit) for name in METRICS]
    assert len({metric.name for metric in metrics}) == len(metrics)
    assert len({(metric.title, metric.unit) for metric in metrics}) == len(metrics)
    if unit == "px":
        assert not any(
            "mm" in metric.definition or metric.unit in ("mm", "ml") for metric in metrics
        )


@every_metric
def test_empty_masks_yield_what_the_rule_prints(name):
    metric = METRICS.get(name)
    some, none = np.ones(SHAPE, bool), np.zeros(SHAPE, bool)
    rule = metric.empty.as_dict()
    whole = math.prod(SHAPE) * math.prod(SPACING) / 1000
    said = {"grid diagonal": math.hypot(*np.multiply(SHAPE, SPACING)), "grid volume": whole}
    for case, pair in {
        "prediction_empty": (none, some),
        "reference_empty": (some, none),
        "both_empty": (none, none),
    }.items():
        comparison = compared(*pair)
        value = metric.value(comparison)
        assert comparison.empty == case.replace("_", " ")
        if rule[case] == "not applicable":
            assert math.isnan(value)
        elif rule[case] == "computed":
            assert value == metric.function(comparison)
        else:
            assert value == pytest.approx(said.get(rule[case], rule[case]))


@every_metric
@pytest.mark.parametrize("unit", ["mm", "px"])
def test_a_structure_that_was_rightly_left_out_is_in_no_mean(name, unit):
    none = np.zeros(SHAPE, bool)
    assert math.isnan(METRICS.get(name).measured_in(unit).value(compared(none, none)))


@every_ranked_metric
@settings(max_examples=15, deadline=None)
@given(prediction=masks(), reference=masks())
def test_missing_or_inventing_a_structure_never_gives_a_better_score(name, prediction, reference):
    metric, none = METRICS.get(name), np.zeros(SHAPE, bool)
    found = badness(metric, metric.value(compared(prediction, reference)))
    missed = badness(metric, metric.value(compared(none, reference)))
    invented = badness(metric, metric.value(compared(prediction, none)))
    assert found <= missed
    assert found <= invented


@settings(max_examples=10, deadline=None)
@given(prediction=label_maps(), reference=label_maps(), lost=st.sampled_from([1, 2]))
def test_losing_a_structure_betters_no_mean_over_cases(prediction, reference, lost):
    without = np.where(prediction == lost, 0, prediction).astype(np.uint8)
    ranked = [name for name in RANKED if name in OF_MASKS]

    def scores(found):
        rows = [
            row
            for case, indices in (("a", reference), ("b", found))
            for row in score_case(case, indices, reference, LABELS, SPACING, ranked)
        ]
        return Scores(labels=LABELS, metrics=tuple(ranked), rows=tuple(rows))

    before, after = scores(prediction), scores(without)
    label = LABELS.foreground[lost - 1]
    for name in ranked:
        metric = METRICS.get(name)
        means = [badness(metric, each.summary()[label][name].mean) for each in (before, after)]
        assert means[0] <= means[1] + 1e-12, name
        own = [each.summary()[label][name].n for each in (before, after)]
        assert own == [2, 2], "a lost structure must not leave the mean"


@every_ranked_metric
def test_is_no_worse_when_empty_than_the_two_farthest_voxels_of_the_grid(name):
    metric = METRICS.get(name)
    first, last = np.zeros((2, *SHAPE), bool)
    first[0, 0, 0] = last[-1, -1, -1] = True
    apart = badness(metric, metric.value(compared(first, last)))
    assert apart <= badness(metric, metric.value(compared(first & last, last)))


@every_ranked_metric
@settings(max_examples=10, deadline=None)
@given(reference=masks(), prediction=masks())
def test_nothing_beats_agreement(name, prediction, reference):
    metric = METRICS.get(name)
    value = metric.function(compared(prediction, reference))
    assert math.isfinite(value)
    perfect = metric.function(compared(reference, reference))
    assert perfect == (1 if metric.higher_is_better else 0)
    assert badness(metric, perfect) <= badness(metric, value)


@every_metric
@pytest.mark.parametrize("dims", [2, 3])
def test_cropping_flipping_and_the_order_of_axes_change_nothing(name, dims):
    rng = np.random.default_rng(dims)
    metric, spacing = METRICS.get(name), SPACINGS[dims]
    # Calibration looks so far around the reference, where there is as much.
    pair = [np.pad(rng.random(SHAPE[:dims]) < share, MARGIN) for share in (0.2, 0.5)]
    value = metric.function(compared(*pair, spacing))
    padded = [np.pad(mask, 2) for mask in pair]
    grid = {"num_voxels": padded[0].size, "diagonal": diagonal_of(padded[0].shape, spacing)}
    whole = metric.function(compared(*padded, spacing))
    assert metric.function(compared(*pair, spacing, **grid)) == pytest.approx(whole)
    if not metric.counts_background:
        assert whole == pytest.approx(value)
    flipped = (np.flip(mask) for mask in pair)
    assert metric.function(compared(*flipped, spacing)) == pytest.approx(value)
    turned = metric.function(compared(*(mask.T for mask in pair), spacing[::-1]))
    assert turned == pytest.approx(value, rel=1e-5)


@every_metric
def test_returns_a_plain_float_and_leaves_its_arguments_alone(name):
    rng = np.random.default_rng(0)
    pair = [rng.random(SHAPE) < 0.3 for _ in range(2)]
    copies = [mask.copy() for mask in pair]
    for mask in pair:
        mask.flags.writeable = False
    assert type(METRICS.get(name).value(compared(*pair, (1, 1, 2.5)))) is float
    np.testing.assert_array_equal(pair, copies)

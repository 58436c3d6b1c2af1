"""Overlaps and volume errors: what changes them, and what does not."""

import numpy as np
import pytest

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS
from lamina.evaluation.metrics.dice import dice
from lamina.evaluation.metrics.iou import iou
from lamina.evaluation.metrics.volume_error import volume_error_ml


@pytest.fixture
def bars():
    """Return two bars of 4 and 6 voxels that share 3."""
    prediction, reference = np.zeros((2, 3, 10, 2), bool)
    prediction[1, 0:4, 1] = True
    reference[1, 1:7, 1] = True
    return prediction, reference


def test_overlaps_do_not_depend_on_spacing_but_volume_does(bars):
    assert dice(Comparison(*bars, (9, 2, 0.1))) == dice(Comparison(*bars, (1, 1, 1)))
    assert iou(Comparison(*bars, (9, 2, 0.1))) == iou(Comparison(*bars, (1, 1, 1)))
    assert volume_error_ml(Comparison(*bars, (10, 10, 5))) == pytest.approx(-2 * 0.5)
    slanted = Comparison(*bars, (10, 10, 5), voxel_volume=400)
    assert volume_error_ml(slanted) == pytest.approx(-2 * 0.4)


def test_volume_error_keeps_its_sign_and_is_defined_where_one_mask_is_empty(bars):
    prediction, reference = bars
    empty = np.zeros_like(reference)
    assert volume_error_ml(Comparison(reference, prediction, (10, 10, 10))) == pytest.approx(2)
    assert volume_error_ml(Comparison(empty, reference, (10, 10, 10))) == pytest.approx(-6)


def test_volume_error_of_an_image_takes_a_slice_of_one_millimetre():
    full, empty = np.ones((10, 10), bool), np.zeros((10, 10), bool)
    assert volume_error_ml(Comparison(full, empty, (2, 5))) == pytest.approx(1.0)


SYMMETRIC = ("dice", "iou", "accuracy", "mcc", "hd", "hd95", "assd", "nsd", "relative_volume_error")


@pytest.mark.parametrize("name", SYMMETRIC)
def test_what_asks_only_how_two_masks_differ_does_not_ask_which_is_which(name, bars):
    there, back = (
        METRICS.get(name).function(Comparison(*pair, (1, 2, 3))) for pair in (bars, bars[::-1])
    )
    assert there == pytest.approx(back)


def test_precision_of_one_way_is_recall_of_the_other(bars):
    precision, recall = METRICS.get("precision"), METRICS.get("recall")
    assert precision.function(Comparison(*bars, (1, 1, 1))) == pytest.approx(3 / 4)
    assert recall.function(Comparison(*bars, (1, 1, 1))) == pytest.approx(3 / 6)
    assert precision.function(Comparison(*bars[::-1], (1, 1, 1))) == pytest.approx(3 / 6)


def test_a_shared_part_is_computed_once(bars):
    calls = []
    comparison = Comparison(*bars, (1, 1, 1))

    def part(given):
        calls.append(given)
        return 7

    assert [comparison.part(part), comparison.part(part)] == [7, 7]
    assert calls == [comparison]

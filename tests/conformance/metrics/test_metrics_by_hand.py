"""Metrics of masks so small that every number can be worked out on paper."""

from math import sqrt

import numpy as np
import pytest

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS

# Pixels of 2 x 1 mm on a grid of 4 x 6. Both structures are two rows high; the reference (R) takes
# columns 1 to 3, the prediction (P) columns 2 to 5:
#
#     column  0 1 2 3 4 5
#     row 1     R B B P P        B: both
#     row 2     R B B P P
#
# TP = 4, FP = 4, FN = 2 and TN = 24 - 10 = 14.
#
# Two rows: every pixel touches the outside, so all are surface. From the prediction, columns 2 and
# 3 are at 0 mm, column 4 is 1 mm away and column 5 is 2 mm: 0 0 0 0 1 1 2 2. From the reference,
# column 1 is 1 mm away: 0 0 0 0 1 1. Of eight sorted distances the 95th percentile stands at
# 0.95 * 7 = 6.65, between two distances of 2.
#
# The outline runs through the corners of pixels, and each carries a piece of it: a corner of the
# structure has half a diagonal, sqrt(5) / 2; between two columns there are pieces of 1 mm, above
# and below; between the rows one of 2 mm on either side. The reference: 4 corners, 2 x 2 pieces of
# 1 mm, 2 of 2 mm, together 2 sqrt(5) + 8. The prediction: 4 corners, 2 x 3 pieces of 1 mm, 2 of
# 2 mm, together 2 sqrt(5) + 10. Farther than 1 mm from the other outline are the right side of the
# reference (2), and the right end of the prediction: its side (2) and its two corners (sqrt(5)).
FLAT = {
    "dice": 8 / 14,
    "iou": 4 / 10,
    "precision": 4 / 8,
    "recall": 4 / 6,
    "specificity": 14 / 18,
    "accuracy": 18 / 24,
    "mcc": 1 / sqrt(6),  # (4 * 14 - 4 * 2) / sqrt(8 * 6 * 18 * 16) = 48 / (24 sqrt(24))
    "hd": 2,
    "hd95": 2,
    "assd": (1 + 1 + 2 + 2 + 1 + 1) / (8 + 6),
    "nsd": (2 * sqrt(5) + 8 - 2 + 2 * sqrt(5) + 10 - 2 - sqrt(5)) / (4 * sqrt(5) + 18),
    "volume_error_ml": 2 * 0.002,  # two pixels of 2 mm2, 1 mm thick
    "volume_error_percent": 100 * 2 / 6,
    "absolute_volume_error_ml": 2 * 0.002,
    "relative_volume_error": 2 / 7,
    "lesion_f1": 1,
    "lesion_dice": 8 / 14,
    # The reference's box and 3 pixels more on each side are the whole grid. Eight at 0.75, four of
    # them in the reference: the bin is off by 0.25. Sixteen at 0.25, two of them in the reference:
    # off by 0.125.
    "ece": (8 * 0.25 + 16 * 0.125) / 24,
    "brier": (4 * 0.25**2 + 4 * 0.75**2 + 2 * 0.75**2 + 14 * 0.25**2) / 24,
}


@pytest.fixture(scope="module")
def flat():
    prediction, reference = np.zeros((2, 4, 6), bool)
    reference[1:3, 1:4] = prediction[1:3, 2:6] = True
    probability = np.where(prediction, 0.75, 0.25)
    return Comparison(prediction, reference, (2.0, 1.0), probability=probability)


@pytest.mark.parametrize("name", METRICS)
def test_of_two_overlapping_bars(name, flat):
    assert METRICS.get(name).value(flat) == pytest.approx(FLAT[name], rel=1e-6)


def value_of(name, prediction, reference, spacing=(1.0, 1.0, 1.0)):
    return METRICS.get(name).value(Comparison(prediction, reference, spacing))


def test_distances_of_a_shifted_cube():
    # A solid cube of 3 voxels a side has 26 of its 27 voxels on the surface. Shifted by one voxel
    # of 2 mm, two of its three layers fall on the other cube's. The middle of the one that falls on
    # the other's middle layer is not on the other's surface, but 1 mm beside it; the rest of both
    # layers is. All 9 voxels of the layer that sticks out are 2 mm away.
    reference = np.zeros((7, 7, 7), bool)
    reference[1:4, 2:5, 2:5] = True
    prediction = np.roll(reference, 1, axis=0)
    spacing = (2.0, 1.0, 1.0)
    # 26 distances each way: nine of 2 mm, one of 1 mm, sixteen of 0.
    assert value_of("assd", prediction, reference, spacing) == pytest.approx((9 * 2 + 1) / 26)
    assert value_of("hd", prediction, reference, spacing) == 2
    assert value_of("hd95", prediction, reference, spacing) == 2


def test_a_stray_voxel_decides_the_largest_distance_alone():
    reference = np.zeros((30, 30, 3), bool)
    reference[2:22, 2:4, 1] = True  # 40 voxels, all of them surface
    prediction = reference.copy()
    prediction[29, 2, 1] = True  # 8 voxels beyond the end of the bar
    assert value_of("hd", prediction, reference) == 8
    assert value_of("hd95", prediction, reference) == 0
    assert value_of("assd", prediction, reference) == pytest.approx(8 / (41 + 40))


def test_the_worse_direction_counts():
    near, both = np.zeros((2, 12, 12, 12), bool)
    near[0, 0, 0] = both[0, 0, 0] = both[0, 0, 9] = True
    # From the pair, half of the distances are 0 and half 9: the 95th percentile lies at 0.95 * 9.
    assert value_of("hd95", near, both) == pytest.approx(9 * 0.95)
    assert value_of("hd95", both, near) == pytest.approx(9 * 0.95)


def test_a_twentieth_of_the_surface_is_forgiven():
    line, half = np.zeros((2, 3, 60, 40), bool)
    line[0, 0] = half[0, 0, :20] = True
    speck = line.copy()
    speck[2, 50, 0] = True
    assert value_of("hd95", speck, line) == 0
    assert value_of("hd95", half, line) == pytest.approx(18.05)


def test_inner_voxels_are_no_surface():
    solid = np.zeros((9, 9, 9), bool)
    solid[1:8, 1:8, 1:8] = True
    hollow = solid.copy()
    hollow[2:7, 2:7, 2:7] = False
    core = np.zeros_like(solid)
    core[4, 4, 4] = True
    assert value_of("hd95", solid, core) == value_of("hd95", hollow, core)


@pytest.mark.parametrize(("spacing_mm", "expected"), [(0.5, 1.0), (0.9, 0.5), (1.1, 0.0)])
def test_a_shifted_voxel_is_right_within_the_tolerance_only(spacing_mm, expected):
    first, second = np.zeros((2, 7, 7, 7), bool)
    first[3, 3, 2] = second[3, 3, 4] = True
    # The near half of either surface is one spacing away from the other voxel, the far half two.
    assert value_of("nsd", first, second, (9.0, 9.0, spacing_mm)) == pytest.approx(expected)


def test_pixels_that_touch_diagonally_keep_the_length_of_their_outlines():
    # Every pixel alone is outlined by four halves of a diagonal. Two that touch keep all eight, of
    # both masks; the third pixel's four, of one mask, are far from the other: 16 of 20.
    reference, prediction = np.zeros((2, 12, 12), bool)
    reference[[1, 2, 9], [1, 2, 9]] = prediction[[1, 2], [1, 2]] = True
    assert value_of("nsd", prediction, reference, (1.0, 1.0)) == pytest.approx(16 / 20)


@pytest.mark.parametrize(("spacing_mm", "widest_gap"), [(1.0, 6), (2.0, 4), (3.0, 2), (0.5, 12)])
def test_parts_of_a_lesion_are_one_up_to_a_gap_of_two_widenings(spacing_mm, widest_gap):
    # Each part grows by the whole number of voxels nearest to 3 mm; grown parts that touch are one
    # lesion. Finding one part of two finds the lesion, or leaves the other missed: F1 of 2 / 3.
    for gap, expected in ((widest_gap, 1), (widest_gap + 1, 2 / 3)):
        reference = np.zeros((3, 3, 40), bool)
        reference[1, 1, 4] = reference[1, 1, 4 + gap + 1] = True
        prediction = np.zeros_like(reference)
        prediction[1, 1, 4] = True
        spacing = (9.0, 9.0, spacing_mm)
        assert value_of("lesion_f1", prediction, reference, spacing) == pytest.approx(expected)


def test_lesions_count_alike_whatever_their_size():
    # Reference: a lesion of 8 x 8 voxels and one of 2. Prediction: 48 of the 64, nothing of the
    # small one, and two invented parts. Dice of the first: 2 * 48 / (64 + 48). F1: one hit, one
    # miss, two inventions.
    reference, prediction = np.zeros((2, 40, 40), bool)
    reference[2:10, 2:10] = reference[30, 30:32] = True
    prediction[2:8, 2:10] = prediction[2:4, 20:22] = prediction[20, 2] = True
    spacing = (1.0, 1.0)
    first = 2 * 48 / (64 + 48)
    assert value_of("lesion_dice", prediction, reference, spacing) == pytest.approx(first / 4)
    assert value_of("lesion_f1", prediction, reference, spacing) == pytest.approx(2 / (2 + 2 + 1))


def test_one_part_over_two_lesions_finds_both_and_is_right_about_neither():
    # Two lesions of 3 voxels, 9 voxels apart, and one predicted bar of 15 over both: each lesion's
    # Dice is 2 * 3 / (3 + 15).
    reference, prediction = np.zeros((2, 5, 30), bool)
    reference[2, 5:8] = reference[2, 17:20] = prediction[2, 5:20] = True
    assert value_of("lesion_dice", prediction, reference, (1.0, 1.0)) == pytest.approx(6 / 18)
    assert value_of("lesion_f1", prediction, reference, (1.0, 1.0)) == 1


@pytest.mark.parametrize(("apart", "f1", "dice"), [(3, 1, 2 * 4 / (4 + 6)), (4, 2 / 3, 1 / 2)])
def test_a_part_within_the_widening_belongs_to_the_lesion_as_in_brats(apart, f1, dice):
    # A lesion of 4 pixels, found exactly, and 2 predicted pixels beside it. Up to 3 mm off, these
    # are taken for a piece of it: no invention, but two pixels too many. Beyond, they are invented.
    reference, prediction = np.zeros((2, 5, 20), bool)
    reference[2, 2:6] = prediction[2, 2:6] = True
    prediction[2, 5 + apart : 7 + apart] = True
    assert value_of("lesion_f1", prediction, reference, (1.0, 1.0)) == pytest.approx(f1)
    assert value_of("lesion_dice", prediction, reference, (1.0, 1.0)) == pytest.approx(dice)


def test_probabilities_count_in_the_widened_box_and_where_something_is_predicted():
    # One pixel, found at 0.9, in the corner of a row of 12: with 3 more the box has 4. In it 0.2 is
    # said of each of the others. Of 8 beyond, two are predicted, at 0.6; what is said of the others
    # does not count. Bins: 0.9 of one pixel that is there, 3 * 0.2 and 2 * 0.6 of none.
    reference, prediction = np.zeros((2, 1, 12), bool)
    reference[0, 0] = prediction[0, 0] = prediction[0, 7] = prediction[0, 11] = True
    probability = np.array([[0.9, 0.2, 0.2, 0.2, 0.4, 0.4, 0.4, 0.6, 0.4, 0.4, 0.4, 0.6]])
    comparison = Comparison(prediction, reference, (1.0, 1.0), probability=probability)
    squares = 0.1**2 + 3 * 0.2**2 + 2 * 0.6**2
    assert METRICS.get("brier").value(comparison) == pytest.approx(squares / 4)
    assert METRICS.get("ece").value(comparison) == pytest.approx((0.1 + 3 * 0.2 + 2 * 0.6) / 4)


def test_voxels_without_a_probability_are_no_evidence():
    mask = np.ones((2, 2), bool)
    probability = np.array([[0.9, np.nan], [0.7, np.nan]])
    comparison = Comparison(mask, mask, (1.0, 1.0), probability=probability)
    assert METRICS.get("brier").value(comparison) == pytest.approx((0.1**2 + 0.3**2) / 2)
    assert METRICS.get("ece").value(comparison) == pytest.approx((0.1 + 0.3) / 2)

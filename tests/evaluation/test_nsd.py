"""Surface Dice against contours measured by hand and by brute force."""

import math

import numpy as np
import pytest

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics.nsd import TOLERANCE, nsd


def nsd_of(prediction, reference, spacing):
    return nsd(Comparison(prediction, reference, spacing))


def contour(mask, spacing):
    """Return the midpoints in mm and the lengths of the contour pieces between four pixels each.

    One or three pixels of four inside: a piece across a corner. Two neighbours: a straight piece.
    Two opposite: two corners.
    """
    padded = np.pad(mask, 1).astype(int)
    corner = math.hypot(*spacing) / 2
    points, lengths = [], []
    for i in range(padded.shape[0] - 1):
        for j in range(padded.shape[1] - 1):
            block = padded[i : i + 2, j : j + 2]
            if block.sum() in (0, 4):
                continue
            length = corner
            if block.sum() == 2:
                rows_alike, columns_alike = (
                    (block[0] == block[1]).all(),
                    (block.T[0] == block.T[1]).all(),
                )
                length = spacing[0] if rows_alike else spacing[1] if columns_alike else 2 * corner
            points.append(np.multiply((i, j), spacing))
            lengths.append(length)
    return np.array(points), np.array(lengths)


def brute_force(prediction, reference, spacing):
    (here, own), (there, other) = contour(prediction, spacing), contour(reference, spacing)
    gaps = np.linalg.norm(here[:, None] - there[None], axis=-1)
    within = own[gaps.min(axis=1) <= TOLERANCE].sum()
    within += other[gaps.min(axis=0) <= TOLERANCE].sum()
    return within / (own.sum() + other.sum())


def test_of_a_bar_and_a_longer_bar_is_the_contour_within_a_millimetre():
    short, long = np.zeros((2, 5, 20), bool)
    short[2, 2:6] = long[2, 2:10] = True
    # Contours: four corner pieces of sqrt(1/2) mm each, 3 + 3 and 7 + 7 straight pieces of 1 mm.
    # Beyond 1 mm of the short bar lie two columns of straight pieces and one of corners.
    corners = 4 * math.sqrt(0.5)
    lengths = (6 + corners) + (14 + corners)
    assert nsd_of(short, long, (1, 1)) == pytest.approx(1 - (4 + corners / 2) / lengths)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 0.8), (0.4, 2.0)])
def test_agrees_with_brute_force_in_two_dimensions(spacing):
    rng = np.random.default_rng(7)
    for share in (0.05, 0.5):
        prediction, reference = rng.random((2, 12, 9)) < share
        prediction[0, 3:5] = reference[-1, 2] = True
        expected = brute_force(prediction, reference, spacing)
        assert nsd_of(prediction, reference, spacing) == pytest.approx(expected, abs=1e-5)


def test_counts_a_second_structure_out_of_reach_as_error():
    box, twins = np.zeros((2, 5, 6, 20), bool)
    box[1:4, 1:5, 1:4] = twins[1:4, 1:5, 1:4] = twins[1:4, 1:5, 12:15] = True
    assert nsd_of(box, twins, (2.0, 1.1, 0.9)) == pytest.approx(2 / 3, rel=1e-5)


@pytest.mark.parametrize(("spacing_mm", "expected"), [(0.5, 1.0), (0.9, 0.5), (1.1, 0.0)])
def test_a_shifted_voxel_is_right_within_the_tolerance_only(spacing_mm, expected):
    first, second = np.zeros((2, 7, 7, 7), bool)
    first[3, 3, 2] = second[3, 3, 4] = True
    # The near half of either surface is one spacing away from the other voxel, the far half two.
    assert nsd_of(first, second, (9.0, 9.0, spacing_mm)) == pytest.approx(expected)

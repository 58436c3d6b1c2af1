"""Outlines enclose the pixels of a mask, no more and no less, however they are filled."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path
from scipy.ndimage import label

from lamina.io.derived.outlines import outlines
from lamina.io.rtstruct import fill_plane

SHAPES = {
    "pixel": ["#"],
    "ring": ["###", "#.#", "###"],
    "ring in a ring": ["#######", "#.....#", "#.###.#", "#.#.#.#", "#.###.#", "#.....#", "#######"],
    "two holes above each other": ["###", "#.#", "###", "#.#", "###"],
    "holes that touch at a corner": ["####", "#.##", "##.#", "####"],
    "parts that touch at a corner": ["#.", ".#"],
    "hole that touches the outside at a corner": ["##.", "#.#", "###"],
    "comb": ["#.#.#", "#.#.#", "#####"],
}


def plane(rows):
    return np.array([[letter == "#" for letter in row] for row in rows])


def area(corners):
    following = np.roll(corners, -1, axis=0)
    return abs(np.sum(corners[:, 0] * following[:, 1] - corners[:, 1] * following[:, 0])) / 2


def filled_by_winding(corners, shape):
    centres = np.argwhere(np.ones(shape, bool))
    closed = np.vstack([corners, corners[:1]])
    return Path(closed, closed=True).contains_points(centres).reshape(shape)


def assert_encloses(mask):
    found = outlines(mask)
    assert len(found) == label(mask)[1]
    np.testing.assert_array_equal(fill_plane(found, mask.shape), mask)
    alone = [fill_plane([one], mask.shape) for one in found]
    np.testing.assert_array_equal(np.sum(alone, axis=0), mask)
    assert sum(map(area, found)) == pytest.approx(mask.sum())


@pytest.mark.parametrize("name", SHAPES)
def test_each_part_is_one_outline_around_its_pixels(name):
    mask = plane(SHAPES[name])
    assert_encloses(mask)
    for turned in (mask[::-1], mask[:, ::-1], mask.T):
        assert_encloses(turned)


@pytest.mark.parametrize("name", SHAPES)
def test_another_way_of_filling_gives_the_same(name):
    mask = plane(SHAPES[name])
    found = [filled_by_winding(one, mask.shape) for one in outlines(mask)]
    np.testing.assert_array_equal(np.sum(found, axis=0), mask)


def test_a_rectangle_has_four_corners():
    (found,) = outlines(np.ones((3, 5), bool))
    assert sorted(map(tuple, found)) == [(-0.5, -0.5), (-0.5, 4.5), (2.5, -0.5), (2.5, 4.5)]


def test_an_empty_plane_has_no_outline():
    assert outlines(np.zeros((3, 5), bool)) == []


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 14),
    columns=st.integers(1, 14),
    share=st.floats(0, 1),
)
def test_any_mask_is_enclosed(seed, rows, columns, share):
    assert_encloses(np.random.default_rng(seed).random((rows, columns)) < share)

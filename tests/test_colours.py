"""Structures of one label map are drawn in colours of their own."""

from itertools import combinations, pairwise

import numpy as np

from lamina.colours import OKABE_ITO, default_colour


def test_the_first_structures_have_the_colours_that_everybody_tells_apart():
    first = ["#{:02X}{:02X}{:02X}".format(*default_colour(number)) for number in range(7)]
    assert tuple(first) == OKABE_ITO


def test_no_two_of_all_classes_share_a_colour():
    colours = [default_colour(number) for number in range(255)]
    assert len({*colours}) == 255
    assert all(0 <= part <= 255 for colour in colours for part in colour)
    assert default_colour(700) in colours  # beyond what a label map holds


def test_further_colours_are_as_far_apart_as_those_before_them():
    def least_apart(count):
        pairs = combinations([default_colour(number) for number in range(count)], 2)
        return min(np.abs(np.subtract(one, other)).sum() for one, other in pairs)

    apart = [least_apart(count) for count in (21, 60, 100, 200)]
    assert apart[0] == apart[1] == apart[2]
    assert all(before >= after for before, after in pairwise(apart))

"""Connected parts are those of an independent implementation."""

import numpy as np
import pytest
from scipy.ndimage import label

from lamina.components import connected_parts


@pytest.mark.parametrize("shape", [(3, 4), (4, 3), (2, 3, 2)])
def test_parts_of_every_small_mask_are_those_that_scipy_finds(shape):
    bits = np.arange(np.prod(shape))
    for number in range(2 ** len(bits)):
        mask = (number >> bits & 1).astype(bool).reshape(shape)
        expected, count = label(mask, np.ones((3,) * mask.ndim))
        parts, sizes = connected_parts(mask)
        assert len(sizes) == count + 1
        assert np.array_equal(sizes[1:], np.bincount(parts[mask])[1:])
        assert sizes[0] == 0
        assert not parts[~mask].any()
        assert len({*zip(parts[mask].tolist(), expected[mask].tolist(), strict=True)}) == count


def test_masks_may_be_cut_from_larger_ones():
    mask = np.zeros((40, 50), bool)
    mask[5:9, 5:9] = mask[20:30, 20:40] = True
    parts, sizes = connected_parts(mask[4:, 4:].T)
    assert sizes.tolist() == [0, 16, 200]
    assert np.array_equal(parts > 0, mask[4:, 4:].T)

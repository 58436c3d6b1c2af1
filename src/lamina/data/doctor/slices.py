"""Slices that are missing: blank or repeated ones in an image, gaps within a structure."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.data.cohort import Cohort
from lamina.data.doctor import Finding
from lamina.data.doctor.contents import channel_name
from lamina.data.doctor.facts import Examination
from lamina.data.doctor.groups import folded
from lamina.errors import some

LONGEST = 2
"""Slices that a structure may lack in a row to be suspected; wider apart are two structures."""
SAME_PLACE = 0.5
"""Intersection over union of what lies before and behind a gap, from which it is one structure."""

_LEAST = 10
"""Voxels that must lie in the same place before and behind."""


def lost_slices(array: NDArray[Any], axis: int) -> tuple[int, ...]:
    """Return the slices that have one value everywhere, or repeat the one before.

    Args:
        array: One channel ``(*S)`` of a volume; slices at either end may well be empty.
        axis: Where slices follow each other.
    """
    planes = np.moveaxis(array, axis, 0)
    lows, highs = planes.min(axis=(1, 2)), planes.max(axis=(1, 2))
    filled = np.flatnonzero(lows < highs)
    if not filled.size:
        return ()
    found = []
    for k in range(int(filled[0]) + 1, int(filled[-1]) + 1):
        alike = lows[k] == lows[k - 1] and highs[k] == highs[k - 1]
        if lows[k] == highs[k] or (alike and np.array_equal(planes[k], planes[k - 1])):
            found.append(k)
    return tuple(found)


def interruptions(array: NDArray[Any], axis: int) -> dict[int, tuple[int, ...]]:
    """Return the slices that a structure skips though it is in the same place on both sides.

    Args:
        array: Label values ``(*S)``, whole numbers.
        axis: Where slices follow each other.

    Returns:
        Value -> slices; values that skip none are left out.
    """
    planes = np.moveaxis(array, axis, 0)
    found: dict[int, list[int]] = {}
    before: dict[int, int] = {}
    for k, plane in enumerate(planes):
        for value in np.unique(plane[plane > 0]).tolist():
            last = before.get(value, k)
            before[value] = k
            if 1 < k - last <= LONGEST + 1 and _same_place(planes[last] == value, plane == value):
                found.setdefault(int(value), []).extend(range(last + 1, k))
    return {value: tuple(skipped) for value, skipped in found.items()}


def _same_place(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> bool:
    shared = np.count_nonzero(one & other)
    return bool(shared >= max(_LEAST, SAME_PLACE * np.count_nonzero(one | other)))


def check_slices(cohort: Cohort, seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report slices that an image lacks, and structures that skip one."""
    lost = [
        one.finding(
            "image",
            "warning",
            "slices",
            f"{channel_name(cohort, index)} is blank, or repeats the slice before, in "
            f"{_some(slices)}.",
            "Slices were lost, or filled in; get the scan again, or cut them off.",
        )
        for one in seen
        if one.image
        for index, slices in enumerate(one.image.lost_slices)
        if slices
    ]
    names = {value: name for name, value in cohort.labels.values.items()}
    skipped = [
        one.finding(
            "label",
            "warning",
            "slices",
            f"{names.get(value, value)} skips {_some(slices)}, and is in the same "
            "place before and behind.",
            "Look whether they were forgotten.",
        )
        for one in seen
        if one.label
        for value, slices in one.label.interruptions.items()
    ]
    yield from folded(lost, len(seen))
    yield from folded(skipped, len(seen))


def _some(slices: Sequence[int]) -> str:
    return f"slice{'s' if len(slices) > 1 else ''} {some(slices)} (counted from 0)"

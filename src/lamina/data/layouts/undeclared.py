"""Channels and labels that nobody declared, as the files have them."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path
from statistics import median_low

import numpy as np

from lamina.data.case import Case
from lamina.errors import DatasetError, LabelError, LaminaError
from lamina.io import read_labels, read_volume
from lamina.labels import LabelSet

_LOOKED_AT = 15
"""Pictures whose channels are counted; reading all of a large set would take long."""
_MOST_VALUES = 30
"""Masks of pictures that hold more values were resized with interpolation, or number objects."""
RESIZED = (
    "Threshold them, and resize masks with nearest neighbour; or declare labels in dataset.json."
)
"""What to do about such masks."""


def guess_channels(cases: Sequence[Case]) -> tuple[str, ...]:
    """Count the channels that most pictures have, or the first volume; the others are held to it.

    Raises:
        DatasetError: No scan can be read.
    """
    with _unheard():
        counts = Counter(islice(_channel_counts(cases), _LOOKED_AT))
    if not counts:
        raise DatasetError(
            f"{cases[0].images[0].parent}: none of {len(cases)} scans can be read.",
            remedy="Get the files again, or bring those that can be read.",
        )
    return tuple(f"channel_{i}" for i in range(counts.most_common(1)[0][0]))


def _channel_counts(cases: Sequence[Case]) -> Iterator[int]:
    """Yield how many channels pictures from all over the set have, then those between them.

    Of volumes, which take long to read and are rarely mixed, the first one tells.
    """
    step = max(1, len(cases) // _LOOKED_AT)
    for case in chain.from_iterable(cases[first::step] for first in range(step)):
        with suppress(LaminaError):
            image = read_volume(case.images[0])
            yield image.num_channels
            if image.spatial_dims == 3:
                return


def found_labels(cases: Sequence[Case]) -> tuple[LabelSet, tuple[Path, ...]]:
    """Name labels after the values that occur, since nobody declared them.

    A damaged file is reported when its case is surveyed, unless there are no others.

    Returns:
        The labels, and the masks of pictures that had no say, since they hold more values than
        usual and all together hold too many.

    Raises:
        LabelError: No structure occurs, or too many do in usual masks of pictures.
    """
    files = [path for case in cases for path in case.label_files]
    values: set[int] = set()
    pictured: dict[Path, set[int]] = {}
    faults: list[LaminaError] = []
    with _unheard():
        for path in files:
            try:
                label = read_labels(path)
            except LaminaError as error:
                faults.append(error)
                continue
            found = {int(value) for value in np.unique(label.array)}
            if label.unit == "px":
                pictured[path] = found
            else:
                values |= found
    odd = _odd_masks(pictured)
    values = values.union(*(pictured[path] for path in pictured.keys() - odd))
    if not values - {0}:
        raise _no_structure(files, faults)
    labels = LabelSet(values={f"label_{value}": value for value in sorted(values - {0})})
    return labels, odd


def _odd_masks(pictured: Mapping[Path, set[int]]) -> tuple[Path, ...]:
    """Return the masks with more values than most have, where all together hold too many."""
    if len(set[int]().union(*pictured.values())) <= _MOST_VALUES:
        return ()
    usual = median_low(len(found) for found in pictured.values() if found != {0})
    values = set[int]().union(*(found for found in pictured.values() if len(found) <= usual))
    if len(values) > _MOST_VALUES:
        worst = max(pictured, key=lambda path: len(pictured[path]))
        raise LabelError(
            f"{worst}: holds {len(pictured[worst])} values, and usual masks together {len(values)} "
            f"between {min(values)} and {max(values)}, which nobody declared: resized masks?",
            remedy=RESIZED,
        )
    return tuple(path for path, found in pictured.items() if len(found) > usual)


def _no_structure(files: Sequence[Path], faults: Sequence[LaminaError]) -> LabelError:
    if not faults:
        return LabelError(
            f"{files[0].parent}: all labels are 0 everywhere: {len(files)} files.",
            remedy="Bring labels that hold structures, or declare labels in dataset.json.",
        )
    return LabelError(
        f"{len(faults)} of {len(files)} labels cannot be used, and no other holds a structure. "
        f"{faults[0].message}",
        remedy=faults[0].remedy,
    )


@contextmanager
def _unheard() -> Iterator[None]:
    """Leave it to those who examine or prepare the scans to tell what readers doubt."""
    logger = logging.getLogger("lamina.io")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)

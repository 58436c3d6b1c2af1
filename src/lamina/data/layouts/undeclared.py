"""Channels and labels that nobody declared, as the files have them."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import chain, islice
from pathlib import Path

import numpy as np

from lamina.data.case import Case
from lamina.errors import DatasetError, LabelError, LaminaError
from lamina.io import claim_of, read_labels, read_volume
from lamina.labels import LabelSet

_LOOKED_AT = 15
"""Scans whose channels are counted; looking at all of a large set would take long."""
_MOST_VALUES = 30
"""Masks of pictures that hold more values were resized with interpolation, or number objects."""
RESIZED = (
    "Threshold them, and resize masks with nearest neighbour; or declare labels in dataset.json."
)
"""What to do about such masks."""


def guess_channels(cases: Sequence[Case]) -> tuple[str, ...]:
    """Count the channels that most scans have; the others are held to it.

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
    """Yield how many channels scans from all over the set have, then those between them."""
    step = max(1, len(cases) // _LOOKED_AT)
    for case in chain.from_iterable(cases[first::step] for first in range(step)):
        with suppress(LaminaError):
            image = case.images[0]
            yield claim_of(image).num_channels or read_volume(image).num_channels


def found_labels(cases: Sequence[Case]) -> tuple[LabelSet, tuple[Path, ...]]:
    """Name labels after the values that occur, since nobody declared them.

    A damaged file is reported when its case is surveyed, unless there are no others.

    Returns:
        The labels, and the masks of pictures that had no say, for they hold too many values; the
        fullest first.

    Raises:
        LabelError: No structure occurs, or too many do in the other masks of pictures.
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
    """Return the masks that hold too many values, the fullest first."""
    fullest = sorted(pictured, key=lambda path: -len(pictured[path]))
    odd = tuple(path for path in fullest if len(pictured[path]) > _MOST_VALUES)
    others = [pictured[path] for path in fullest[len(odd) :]]
    values = set[int]().union(*others or pictured.values())
    if len(values) > _MOST_VALUES:
        raise LabelError(
            f"{fullest[0]}: holds {len(pictured[fullest[0]])} values, and masks together "
            f"{len(values)} between {min(values)} and {max(values)}, which nobody declared: "
            "resized masks?",
            remedy=RESIZED,
        )
    return odd


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

"""Read a case as it is stored, whatever is wrong with its values."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lamina.data.case import Case
from lamina.errors import LabelError
from lamina.io import read_stored_labels, read_volume
from lamina.io.pictures import is_picture, used_colours
from lamina.io.structures import has_structures
from lamina.labels import LabelSet
from lamina.volume import Volume


def read_label_map(case: Case, labels: LabelSet | None = None) -> Volume | None:
    """Read the label of a case; what further files of it mark is laid over.

    Args:
        case: Its files.
        labels: The values of structures that have names, as those of DICOM labels do.

    Raises:
        FileError, GeometryError: A file is missing, damaged, or on another grid than the first.
        LabelError: One has other channels than the first.
    """
    if labels and case.label and has_structures(case.label):
        drawn = case.read_label(labels, read_volume(case.images[0], case.series))
        return replace(drawn, array=labels.decode(drawn.array))
    parts = [read_stored_labels(path) for path in case.label_files]
    return case.sized(_merged(parts)) if parts else None


def label_colours(case: Case) -> frozenset[tuple[int, str]]:
    """Return the values that pictures with a palette hold, each with its colour there.

    Raises:
        FileError: A picture is damaged.
    """
    return frozenset(
        pair for path in case.label_files if is_picture(path) for pair in used_colours(path).items()
    )


def _merged(parts: Sequence[Volume]) -> Volume:
    first, *others = parts
    array = first.array
    for part in others:
        first.check_grid_of(part)
        if part.num_channels != first.num_channels:
            raise LabelError(
                f"{part.source}: holds {part.num_channels} channels, {first.source} "
                f"{first.num_channels}.",
                remedy="Store every object as a map of one channel.",
            )
        array = np.where(part.array != 0, part.array, array)
    return replace(first, array=array)

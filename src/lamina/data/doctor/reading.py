"""Read a case as it is stored, whatever is wrong with its values."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lamina.data.case import Case
from lamina.errors import LabelError
from lamina.geometry import check_same_grid
from lamina.io import read_stored_labels, read_volume
from lamina.io.pictures import is_picture, used_colours
from lamina.io.structures import has_structures
from lamina.labels import LabelSet
from lamina.volume import Volume


def read_part(case: Case, path: Path) -> Volume:
    """Read one image file of a case, in the size that a list beside the pictures may tell.

    Raises:
        FileError, GeometryError: As :func:`lamina.io.read_volume`.
    """
    return case.sized(read_volume(path, case.series))


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
        return case.read_stored_label(labels)
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


def check_beside(first: Volume, part: Volume) -> None:
    """Check that two files of a case lie on one grid; a ``GeometryError`` otherwise."""
    what = f"{first.source} and {part.source}"
    check_same_grid(first.affine, first.spatial_shape, part.affine, part.spatial_shape, what)


def _merged(parts: Sequence[Volume]) -> Volume:
    first, *others = parts
    array = first.array
    for part in others:
        check_beside(first, part)
        if part.num_channels != first.num_channels:
            raise LabelError(
                f"{part.source}: holds {part.num_channels} channels, {first.source} "
                f"{first.num_channels}.",
                remedy="Store every object as a map of one channel.",
            )
        array = np.where(part.array != 0, part.array, array)
    return replace(first, array=array)

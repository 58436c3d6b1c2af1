"""What was segmented, and what about it deserves a look, as the page and reports list it."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.components import connected_parts
from lamina.explain.quality import unit_of, voxel_size
from lamina.labels import LabelSet
from lamina.volume import Volume

_PIECE = 0.1
"""A second part counts as a piece of its own from this share of the largest on."""


def describe_labels(labels: LabelSet) -> list[dict[str, Any]]:
    """Return ``name``, ``value`` in files and ``color`` (``#rrggbb``) of each structure."""
    return [
        {"name": name, "value": value, "color": labels.term(name).hex_colour()}
        for name, value in labels.values.items()
    ]


def count_structures(
    labels: LabelSet, counts: Mapping[int, int], grid: Volume
) -> list[dict[str, Any]]:
    """Return each structure with its size.

    Args:
        labels: Names and values.
        counts: Value -> voxels that have it.
        grid: Any volume on the grid of these voxels.

    Returns:
        What :func:`describe_labels` does, ``size`` in ``unit`` (``ml``, ``cm²`` of 2D images, or
        ``px``), and ``flags``, which say what was not found.
    """
    each, unit = voxel_size(grid), unit_of(grid)
    return [
        entry
        | {
            "size": counts.get(entry["value"], 0) * each,
            "unit": unit,
            "flags": [] if counts.get(entry["value"]) else ["not found"],
        }
        for entry in describe_labels(labels)
    ]


def describe_structures(segmentation: Volume, labels: LabelSet) -> list[dict[str, Any]]:
    """Return each structure with its size, and all that is odd about it among its flags.

    Args:
        segmentation: Label map ``(1, *S)`` in file values.
        labels: Names and values.

    Returns:
        As :func:`count_structures`; flags also say what touches the edge or lies in pieces.
    """
    array = segmentation.array[0]
    counts = {value: int(np.count_nonzero(array == value)) for value in labels.values.values()}
    found = count_structures(labels, counts, segmentation)
    for each in found:
        if not each["flags"]:
            each["flags"] += _flags(array == each["value"])
    return found


def _flags(mask: NDArray[np.bool_]) -> Iterable[str]:
    if any(mask.take(end, axis).any() for axis in range(mask.ndim) for end in (0, -1)):
        yield "touches the edge of the scan"
    _, sizes = connected_parts(mask)
    sizes = np.sort(sizes[1:])[::-1]
    pieces = int((sizes >= _PIECE * sizes[0]).sum())
    if pieces > 1:
        yield f"in {pieces} pieces"

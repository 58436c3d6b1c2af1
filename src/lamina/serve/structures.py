"""What was segmented, and what about it deserves a look."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.labels import LabelSet
from lamina.volume import Volume

_PIECE = 0.1
"""A second part counts as a piece of its own from this share of the largest on."""


def describe_labels(labels: LabelSet) -> list[dict[str, Any]]:
    """Return name, value in files and colour of each structure."""
    return [
        {"name": name, "value": value, "color": labels.term(name).hex_colour()}
        for name, value in labels.values.items()
    ]


def describe_structures(segmentation: Volume, labels: LabelSet) -> list[dict[str, Any]]:
    """Return each structure with its volume and flags.

    Args:
        segmentation: Label map ``(1, *S)`` in file values.
        labels: Names and values.

    Returns:
        ``name``, ``value``, ``color``, ``ml`` (``None`` for pictures), ``flags``.
    """
    solid = segmentation.spatial_dims == 3 and segmentation.unit == "mm"
    ml_each = float(np.prod(segmentation.spacing)) / 1000
    found = []
    for entry in describe_labels(labels):
        mask = segmentation.array[0] == entry["value"]
        ml = round(np.count_nonzero(mask) * ml_each, 4) if solid else None
        found.append(entry | {"ml": ml, "flags": list(_flags(mask))})
    return found


def _flags(mask: NDArray[np.bool_]) -> Iterable[str]:
    import cc3d

    if not mask.any():
        yield "not found"
        return
    if any(mask.take(end, axis).any() for axis in range(mask.ndim) for end in (0, -1)):
        yield "touches the edge of the scan"
    numbered = cc3d.connected_components(mask, connectivity=26 if mask.ndim == 3 else 8)
    sizes = np.sort(np.bincount(numbered.ravel())[1:])[::-1]
    pieces = int((sizes >= _PIECE * sizes[0]).sum())
    if pieces > 1:
        yield f"in {pieces} pieces"

"""Two label maps, structure by structure and region by region, as masks to be compared."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from lamina.evaluation.calibration import widened
from lamina.evaluation.comparison import Comparison, diagonal_of
from lamina.labels import IGNORE_INDEX, LabelSet

Indices = NDArray[np.integer[Any]]
Probabilities = NDArray[np.floating[Any]]
Box = tuple[slice, ...]


def classes_of(labels: LabelSet) -> dict[str, list[int]]:
    """Return the class indices of every structure, then of every region."""
    index = {name: i for i, name in enumerate(labels.foreground, start=1)}
    regions = {
        region: [index[name] for name in members] for region, members in labels.regions.items()
    }
    return {name: [i] for name, i in index.items()} | regions


def comparisons(
    prediction: Indices,
    reference: Indices,
    labels: LabelSet,
    spacing: Sequence[float],
    voxel_volume: float | None,
    probabilities: Probabilities | None,
) -> Iterator[tuple[str, Comparison]]:
    """Yield each structure and region, cropped to what holds both masks and counts around them."""
    ignored = reference == IGNORE_INDEX
    num_ignored = int(np.count_nonzero(ignored))
    if num_ignored:
        prediction = np.where(ignored, IGNORE_INDEX, prediction)
    found = find_objects(prediction, IGNORE_INDEX - 1), find_objects(reference, IGNORE_INDEX - 1)
    for label, classes in classes_of(labels).items():
        box = _union([boxes[i - 1] for boxes in found for i in classes], reference.ndim)
        if probabilities is not None:
            box = widened(box, reference.shape)
        yield (
            label,
            Comparison(
                _mask(prediction[box], classes),
                _mask(reference[box], classes),
                spacing,
                voxel_volume=voxel_volume,
                num_voxels=reference.size - num_ignored,
                diagonal=diagonal_of(reference.shape, spacing),
                probability=_probability(probabilities, classes, box, ignored),
            ),
        )


def _mask(indices: Indices, classes: Sequence[int]) -> NDArray[np.bool_]:
    """Tell which voxels are of one of the classes."""
    if len(classes) == 1:
        only: NDArray[np.bool_] = indices == classes[0]
        return only
    wanted = np.zeros(IGNORE_INDEX + 1, np.bool_)
    wanted[list(classes)] = True
    return wanted[indices]


def _probability(
    probabilities: Probabilities | None,
    classes: Sequence[int],
    box: Box,
    ignored: NDArray[np.bool_],
) -> Probabilities | None:
    """Return the probability of any of the classes in the box; NaN where nothing counts."""
    if probabilities is None:
        return None
    together = sum((probabilities[i][box] for i in classes[1:]), probabilities[classes[0]][box])
    return np.where(ignored[box], np.nan, together)


def _union(boxes: Sequence[Box | None], dims: int) -> Box:
    """Return the smallest box around all boxes; one without voxels when there are none."""
    present = [box for box in boxes if box is not None]
    if not present:
        return (slice(0, 0),) * dims
    return tuple(
        slice(min(part.start for part in parts), max(part.stop for part in parts))
        for parts in zip(*present, strict=True)
    )

"""Changes to a finished segmentation, one structure at a time, that need no image.

Structures are looked at on the scan's own grid. Voxels that touch by a corner belong together, so
that thin structures are not taken apart; a hole is closed where it does not even touch by a face.
Along an axis of one voxel there is no outside to touch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lamina.components import connected_parts
from lamina.config import resolve
from lamina.errors import ConfigError
from lamina.labels import LabelSet
from lamina.volume import Volume

STEP_BYTES = 8
"""Memory that a step takes at most for a while, for each voxel of the scan."""

_FIELDS = ("structure", "operation", "min_size")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One change to one structure.

    Raises:
        ConfigError: Small parts are to be removed and ``min_size`` does not say which, or it is
            given for another operation.
    """

    structure: str
    """Name of a structure; regions are unions of them and follow."""
    operation: Literal["largest_component", "remove_small", "fill_holes"]
    """Keep the largest connected part; remove parts below ``min_size``; give background voxels
    that the structure encloses to it."""
    min_size: float | None = None
    """In mm³, in mm² for images, in pixels where a picture does not tell their size."""

    def __post_init__(self) -> None:
        if (self.operation == "remove_small") != ((self.min_size or 0) > 0):
            raise ConfigError(
                f"min_size = {self.min_size}: must be above 0 with remove_small, and only there."
            )


def steps_from(records: Sequence[Mapping[str, Any]], labels: LabelSet) -> tuple[Step, ...]:
    """Read steps from plain data; what else a record holds, such as figures, is passed over.

    Raises:
        ConfigError: A step is malformed or of an unknown structure.
    """
    plain = [{name: r[name] for name in _FIELDS if name in r} for r in records]
    steps = tuple(resolve(Step, each) for each in plain)
    if unknown := [step.structure for step in steps if step.structure not in labels.values]:
        raise ConfigError(
            f"postprocessing: {unknown[0]!r} is none of {', '.join(labels.foreground)}."
        )
    return steps


def postprocess(segmentation: Volume, labels: LabelSet, steps: Sequence[Step]) -> Volume:
    """Apply steps, one after the other.

    Args:
        segmentation: Label map ``(1, *S)`` with the values of files.
        labels: What the values stand for.
        steps: May be empty.

    Returns:
        A label map on the same grid; the one given is left as it is.
    """
    if not steps:
        return segmentation
    array = segmentation.array.copy()
    voxel = segmentation.voxel_volume
    for step in steps:
        apply(step, array[0], labels.values[step.structure], labels.background, voxel)
    return replace(segmentation, array=array)


def apply(step: Step, array: NDArray[Any], value: int, background: int, voxel: float) -> None:
    """Change a label map in place, within the box around the structure.

    Args:
        step: What to do.
        array: ``(*S)``.
        value: Of the structure.
        background: What stands for nothing.
        voxel: Size of a voxel, in the unit of ``min_size``.
    """
    from scipy.ndimage import binary_fill_holes, find_objects

    boxes = find_objects((array == value).view(np.uint8))
    if not boxes:
        return
    part = array[boxes[0]]
    mask = part == value
    if step.operation == "fill_holes":
        single = tuple(axis for axis, size in enumerate(array.shape) if size == 1)
        filled = binary_fill_holes(mask.squeeze(single)).reshape(mask.shape)
        part[filled & (part == background)] = value
        return
    parts, sizes = connected_parts(mask)
    if step.operation == "largest_component":
        kept = np.arange(len(sizes)) == sizes.argmax()
    else:
        kept = sizes * voxel >= (step.min_size or 0)
    part[mask & ~kept[parts]] = background

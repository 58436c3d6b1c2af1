"""Slices of a scan and its label maps as a radiologist looks at them.

The patient's right is on the viewer's left, the front or the head is up; a sagittal plane is seen
from the patient's left, the front on the viewer's left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.geometry import Affine, orientation_of, reorientation, spacing_of
from lamina.volume import Volume

OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))
SOFT_TISSUE_HU = (-160.0, 240.0)


@dataclass(frozen=True)
class Plane:
    """A way to look at the body, in letters such as ``"L"`` for the patient's left."""

    name: str
    down: str
    """Where the screen's rows run to."""
    right: str
    """Where the screen's columns run to."""
    through: str
    """Where the slices run to."""


PLANES = (
    Plane("axial", "P", "L", "S"),
    Plane("coronal", "I", "L", "A"),
    Plane("sagittal", "I", "P", "L"),
)


@dataclass(frozen=True)
class View:
    """One slice of a scan, ``(rows, columns)`` as they stand on the screen."""

    plane: Plane
    image: NDArray[Any]
    segmentation: NDArray[np.uint8]
    """Class indices."""
    reference: NDArray[np.uint8] | None
    """Class indices."""
    spacing: tuple[float, float]
    """Height and width of a pixel in mm."""
    index: int
    """Which slice of the stack, as ``to_screen`` counts them."""

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width of the whole."""
        rows, columns = self.image.shape
        return rows * self.spacing[0], columns * self.spacing[1]


def planes_of(image: Volume) -> tuple[Plane, ...]:
    """Return the planes an image can be shown in: all three for a volume, its own in 2D."""
    letters = orientation_of(image.affine, image.spatial_dims)
    shown = {*letters, *(OPPOSITE[letter] for letter in letters)}
    return tuple(plane for plane in PLANES if {plane.down, plane.right} <= shown)


def view_of(
    image: Volume,
    segmentation: NDArray[np.uint8],
    reference: NDArray[np.uint8] | None,
    plane: Plane,
) -> View:
    """Cut the slice of a plane that shows most of every structure.

    Args:
        image: Image ``(C, *S)``; channel 0 is taken.
        segmentation: Class indices ``(1, *S)``.
        reference: Class indices ``(1, *S)``, which then choose the slice too.
        plane: One of ``planes_of(image)``.
    """
    maps = [segmentation] if reference is None else [segmentation, reference]
    stack, affine = to_screen(image.array[:1], image.affine, plane)
    turned = [to_screen(each, image.affine, plane)[0] for each in maps]
    index = telling_slice(turned)
    row_mm, column_mm = spacing_of(affine, 2)
    return View(
        plane=plane,
        image=stack[:, :, index],
        segmentation=turned[0][:, :, index],
        reference=None if reference is None else turned[1][:, :, index],
        spacing=(row_mm, column_mm),
        index=index,
    )


def to_screen(array: NDArray[Any], affine: Affine, plane: Plane) -> tuple[NDArray[Any], Affine]:
    """Turn an array ``(1, *S)`` into slices as they stand on the screen.

    Returns:
        ``(rows, columns, slices)``, the first row on top, the first column on the left, one slice
        for a 2D image; and the affine of these axes.
    """
    target = plane.down + plane.right + plane.through
    turn = reorientation(affine, target[: array.ndim - 1])
    turned = turn.apply(array)[0]
    stack = turned if turned.ndim == 3 else turned[:, :, None]
    return stack, turn.affine(affine, array.shape[1:])


def window_of(channel: NDArray[Any]) -> tuple[float, float]:
    """Return the intensities to show black and white: soft tissue for CT, else percentiles."""
    values = channel[np.isfinite(channel)].astype(np.float32)
    if values.size == 0:
        return 0.0, 1.0
    low, high, mean = float(values.min()), float(values.max()), float(values.mean())
    if low <= -300 and high <= 5000:
        return SOFT_TISSUE_HU
    if low == high:
        return low, low + 1.0
    body = values[values > (low + mean) / 2]
    return float(np.percentile(values, 0.5)), float(np.percentile(body, 99.5))


def telling_slice(maps: Sequence[NDArray[np.uint8]]) -> int:
    """Return the slice where structures show most, each relative to its own largest section.

    Absolute areas would let a large organ hide a small lesion. The middle slice when all is empty.
    """
    score = np.zeros(maps[0].shape[2])
    for stack in maps:
        for index in np.unique(stack[stack > 0]):
            areas = (stack == index).sum(axis=(0, 1))
            score += areas / areas.max()
    return int(score.argmax()) if score.any() else len(score) // 2

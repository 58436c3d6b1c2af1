"""Slices of a scan and its label maps as a radiologist looks at them.

The patient's right is on the viewer's left, the front or the head is up; a sagittal plane is seen
from the patient's left, the front on the viewer's left.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.data.plan import Plan
from lamina.geometry import Affine, orientation_of, reorientation, spacing_of
from lamina.volume import Volume

OPPOSITE = dict(zip("LRPAIS", "RLAPSI", strict=True))
SOFT_TISSUE_HU = (-160.0, 240.0)

_COLOURS = 3
_SAMPLES = 1_000_000
_DARKEST_CT, _BRIGHTEST_CT = (-3100, -800), 3100
"""HU between which the 0.5 % darkest voxels of a CT lie, air or what pads it, and most others."""


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
    """``(rows, columns)``, and a last axis of red, green and blue where it is a photograph."""
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
        rows, columns = self.segmentation.shape
        return rows * self.spacing[0], columns * self.spacing[1]


def is_photograph(image: Volume) -> bool:
    """Tell whether the channels are the red, green and blue of a picture, not one image each."""
    return image.in_colour and image.num_channels == _COLOURS


def in_body(image: Volume) -> bool:
    """Tell whether planes and directions of an image mean something, which those of 2D ones do not.

    A picture may be given the size of its pixels; it lies nowhere all the same.
    """
    return image.spatial_dims == 3 and image.unit == "mm"


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
        image: Image ``(C, *S)``, of which is taken what :func:`image_on_screen` takes.
        segmentation: Class indices ``(1, *S)``.
        reference: Class indices ``(1, *S)``, which then choose the slice too.
        plane: One of ``planes_of(image)``.
    """
    maps = [segmentation] if reference is None else [segmentation, reference]
    stack, affine = image_on_screen(image, plane)
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


def image_on_screen(image: Volume, plane: Plane) -> tuple[NDArray[Any], Affine]:
    """Return what is shown of an image: channel 0, or the colours of a photograph.

    Returns:
        As :func:`to_screen` does; a photograph has a last axis of red, green and blue.
    """
    if not is_photograph(image):
        return to_screen(image.array[:1], image.affine, plane)
    turned = [to_screen(image.array[[i]], image.affine, plane) for i in range(_COLOURS)]
    return np.stack([stack for stack, _ in turned], axis=-1), turned[0][1]


def window_of(image: Volume, ct: bool | None = None) -> tuple[float, float]:
    """Return the intensities to show black and white: soft tissue for CT, else percentiles.

    Args:
        image: Image ``(C, *S)``, of which is looked at what is shown.
        ct: Whether it is a CT; by default told by its darkest and brightest half percent, for
            single voxels of metal, or of nothing, may have any value.
    """
    photograph = is_photograph(image)
    if photograph and image.array.dtype == np.uint8:
        return 0.0, 255.0
    values = image.array[: _COLOURS if photograph else 1].reshape(-1)
    if values.size > _SAMPLES:  # at random, for steps of equal length may miss whole slices
        values = values[np.random.default_rng(0).integers(0, values.size, _SAMPLES)]
    values = values.astype(np.float64)
    values = values[np.isfinite(values)]
    if values.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(values, (0.5, 99.5))
    found = _DARKEST_CT[0] <= low <= _DARKEST_CT[1] and high <= _BRIGHTEST_CT
    if found if ct is None else ct:
        return SOFT_TISSUE_HU
    if low == high:
        low, high = values.min(), values.max()
        return float(low), float(high if high > low else low + 1)
    body = values[values > (low + values.clip(low, high).mean()) / 2]
    return float(low), float(np.percentile(body, 99.5))


def is_ct(plan: Plan) -> bool | None:
    """Tell whether a plan takes its first channel for CT; ``None`` where it does not say."""
    return plan.normalisation[0].scheme == "ct" or None


def as_shown(pixels: NDArray[Any], window: tuple[float, float]) -> NDArray[np.float32]:
    """Return intensities from 0, black, to 1, white; what is no number is black."""
    low, high = window
    levels = (pixels.astype(np.float64) - low) / (high - low)
    return np.asarray(np.nan_to_num(levels).clip(0, 1), np.float32)


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

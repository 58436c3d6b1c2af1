"""The grid that the slices of a DICOM series make.

Source: DICOM PS3.3, C.7.6.2.1.1: the position and orientation of an image plane, in LPS mm.
"""

import logging
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from lamina.errors import GeometryError
from lamina.geometry import GRID_TOLERANCE_MM, LPS_TO_RAS, Affine
from lamina.io.dicom_headers import MARKS, Frame, listed, value_of

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_log = logging.getLogger(__name__)

SCAN_TAGS = ("StudyInstanceUID", "PatientID", "FrameOfReferenceUID")
"""What all slices of a scan have in common, as far as they tell it; never quoted."""
UNEVEN = 0.1
"""Slices may lie beside the even grid by this part of their distance; a tenth of it is silent."""

_ALIKE = 1e-3
"""Direction cosines and spacings of one series may differ by this part, as rounded decimals do."""
_AGAIN = "Export it again with its geometry, which is never guessed."
_APART = "Move what is another scan or a scout into a folder of its own."


def check_one_scan(headers: Iterable["Dataset"], source: str) -> None:
    """Check that slices are of one patient, study and frame of reference.

    Raises:
        GeometryError: They are not.
    """
    told = [[str(value_of(header, tag) or "").strip() for tag in SCAN_TAGS] for header in headers]
    for tag, values in zip(SCAN_TAGS, zip(*told, strict=True), strict=True):
        if len({*values} - {""}) > 1:
            raise GeometryError(f"{source}: slices of one series differ in {tag}.", remedy=_APART)


def check_alike(frames: Sequence[Frame], source: str) -> None:
    """Check that all slices are placed, and of one size, spacing and orientation.

    Raises:
        GeometryError: They are not.
    """
    told: dict[str, list[tuple[float, ...]]] = {
        "ImagePositionPatient": [frame.position for frame in frames],
        "ImageOrientationPatient": [frame.orientation for frame in frames],
        "PixelSpacing": [frame.spacing for frame in frames],
        "Columns and Rows": [frame.size for frame in frames],
    }
    for what, values in told.items():
        if () in values:
            raise GeometryError(
                f"{source}: {values.count(())} of {len(frames)} slices have no {what}.",
                remedy=f"{_AGAIN} If these are pictures, give one file, not their folder.",
            )
    del told["ImagePositionPatient"]
    for what, values in told.items():
        numbers = np.array(values)
        tolerance = _ALIKE * np.abs(numbers[0]).max() if numbers.dtype.kind == "f" else 0
        apart = (np.abs(numbers - numbers[0]) > tolerance).any(axis=1)
        if apart.any():
            raise GeometryError(
                f"{source}: slices differ in {what}: {listed(values[0])} and "
                f"{listed(values[int(np.argmax(apart))])}.",
                remedy=_APART,
            )


def places(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Sort slices along their normal and gather those that lie at one place."""
    normal = _normal(frames[0])
    heights = [float(normal @ frame.position) for frame in frames]
    found: list[list[Frame]] = []
    last = -math.inf
    for index in np.argsort(heights, kind="stable"):
        if heights[index] - last > GRID_TOLERANCE_MM:
            found.append([])
            last = heights[index]
        found[-1].append(frames[index])
    return found


def affine_of(frames: Sequence[Frame], source: str) -> Affine:
    """Return the RAS+ affine of sorted slices; it is sheared where a gantry was tilted.

    A single slice is as thick as SpacingBetweenSlices or SliceThickness says; nothing else is
    taken from these tags, which often are wrong.

    Raises:
        GeometryError: The slices are not evenly spaced, or a single one has no thickness.
    """
    first = frames[0]
    across, down = _directions(first)
    rows, columns = first.spacing
    step = _normal(first) * _thickness(first, source) if len(frames) == 1 else _step(frames, source)
    affine = np.eye(4)
    affine[:3] = np.column_stack([across * columns, down * rows, step, first.position])
    return LPS_TO_RAS @ affine


def differing(frames: Iterable[Frame]) -> str:
    """Say in which tags slices differ, such as ``"DiffusionBValue 0, 800"``; may be empty."""
    found = []
    for tag in MARKS:
        values = list(dict.fromkeys(frame.marks.get(tag, "none") for frame in frames))
        if len(values) > 1:
            more = ", ..." if len(values) > 4 else ""
            found.append(f"{tag} {', '.join(values[:4])}{more}")
    return "; ".join(found[:3])


def picture_affine(frame: Frame) -> tuple[Affine, Literal["mm", "px"]]:
    """Return the affine and unit of a picture that does not claim to lie in the body."""
    rows, columns = frame.spacing or (1.0, 1.0)
    return np.diag([-columns, -rows, 1.0, 1.0]), "mm" if frame.spacing else "px"


def _normal(frame: Frame) -> NDArray[np.float64]:
    """Return the direction in which slices are counted, of length 1."""
    return np.asarray(np.cross(*_directions(frame)))


def _directions(frame: Frame) -> NDArray[np.float64]:
    """Return the directions of increasing columns and rows, each of length 1."""
    axes = np.reshape(frame.orientation, (2, 3))
    return np.asarray(axes / np.linalg.norm(axes, axis=1, keepdims=True))


def _thickness(frame: Frame, source: str) -> float:
    thickness = frame.between or frame.thickness
    if not thickness:
        raise GeometryError(
            f"{source}: its only slice does not say how thick it is.", remedy=_AGAIN
        )
    _log.warning("%s: has one slice; its nominal thickness of %.4g mm is taken.", source, thickness)
    return thickness


def _step(frames: Sequence[Frame], source: str) -> NDArray[np.float64]:
    """Return the way from one slice to the next, after checking that it is the same for all."""
    positions = np.array([frame.position for frame in frames])
    step = (positions[-1] - positions[0]) / (len(frames) - 1)
    grid = positions[0] + np.arange(len(frames))[:, None] * step
    beside = float(np.linalg.norm(positions - grid, axis=1).max())
    heights = (positions - positions[0]) @ _normal(frames[0])
    gaps = np.diff(heights)
    usual = float(np.sort(gaps)[(len(gaps) - 1) // 2])
    worst = int(np.argmax(np.abs(gaps - usual)))
    if beside > UNEVEN * usual:
        if abs(gaps[worst] - usual) > UNEVEN * usual:
            fault = (
                f"has a gap of {gaps[worst]:.4g} mm between slices {worst + 1} and {worst + 2} of "
                f"{len(frames)} ({heights[worst]:.4g} mm from the first); {usual:.4g} mm is usual"
            )
        else:
            fault = f"has slices that lie up to {beside:.4g} mm beside a straight line"
        raise GeometryError(
            f"{source}: {fault}.", remedy="Get what is missing; gaps are never filled."
        )
    if beside > UNEVEN / 10 * usual + GRID_TOLERANCE_MM:
        _log.warning("%s: slices lie up to %.3g mm beside an even grid.", source, beside)
    if usual > 1.5 * frames[0].between > 0:
        _log.warning(
            "%s: slices are %.4g mm apart and SpacingBetweenSlices says %.4g mm; are some missing?",
            source,
            usual,
            frames[0].between,
        )
    return np.asarray(step)

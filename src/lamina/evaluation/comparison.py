"""Two masks of one structure, and what several metrics need of them, computed once."""

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
EmptyCase = Literal["", "prediction empty", "reference empty", "both empty"]
"""Which masks of a comparison were empty; ``""`` when neither was."""
Part = TypeVar("Part")

MM3_PER_ML = 1000.0


class Comparison:
    """A predicted and a reference mask on one grid.

    The masks may be cropped to any box that holds both: what lies outside is background.

    Args:
        prediction: Mask ``(*S)`` of two or three axes.
        reference: Mask of the same shape.
        spacing: Voxel size along each axis, in mm or pixels.
        voxel_volume: Volume of a voxel, or area of a pixel; the product of the spacing by default,
            as where axes are at right angles.
        num_voxels: Voxels that count on the whole grid; those of the masks by default.
        diagonal: The whole grid's diagonal, in mm or pixels; that of the masks by default.
        probability: The structure's probability ``(*S)``, from 0 to 1, NaN in voxels that do not
            count; for metrics of calibration.
    """

    def __init__(
        self,
        prediction: Mask,
        reference: Mask,
        spacing: Sequence[float],
        *,
        voxel_volume: float | None = None,
        num_voxels: int | None = None,
        diagonal: float | None = None,
        probability: NDArray[np.floating[Any]] | None = None,
    ) -> None:
        self.prediction = prediction
        self.reference = reference
        self.spacing = tuple(float(size) for size in spacing)
        self.voxel_volume = math.prod(self.spacing) if voxel_volume is None else voxel_volume
        self.num_voxels = reference.size if num_voxels is None else num_voxels
        self.diagonal = diagonal_of(reference.shape, spacing) if diagonal is None else diagonal
        self.probability = probability
        self._parts: dict[Callable[[Comparison], Any], Any] = {}

    def part(self, make: Callable[["Comparison"], Part]) -> Part:
        """Return ``make(self)``, computed once however many metrics ask for it."""
        if make not in self._parts:
            self._parts[make] = make(self)
        found: Part = self._parts[make]
        return found

    @cached_property
    def predicted(self) -> int:
        """Voxels of the prediction."""
        return int(np.count_nonzero(self.prediction))

    @cached_property
    def referenced(self) -> int:
        """Voxels of the reference."""
        return int(np.count_nonzero(self.reference))

    @cached_property
    def tp(self) -> int:
        """Voxels of both masks."""
        return int(np.count_nonzero(self.prediction & self.reference))

    @property
    def fp(self) -> int:
        """Voxels of the prediction alone."""
        return self.predicted - self.tp

    @property
    def fn(self) -> int:
        """Voxels of the reference alone."""
        return self.referenced - self.tp

    @property
    def tn(self) -> int:
        """Voxels of the whole grid that are in neither mask."""
        return self.num_voxels - self.predicted - self.fn

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in ml; a pixel of an image counts as 1 mm thick."""
        return self.voxel_volume / MM3_PER_ML

    @property
    def empty(self) -> EmptyCase:
        """Which of the masks are empty."""
        if self.predicted:
            return "" if self.referenced else "reference empty"
        return "prediction empty" if self.referenced else "both empty"


def diagonal_of(shape: Sequence[int], spacing: Sequence[float]) -> float:
    """Return the length of a grid's diagonal: no two of its voxels are further apart."""
    return math.hypot(*(n * size for n, size in zip(shape, spacing, strict=True)))

"""From a scan as it lies in its file to the array a network sees, and exactly back."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lamina.data.decision import Drawing, decided, largest, to_probabilities
from lamina.data.intensity import finite
from lamina.data.plan import Plan
from lamina.data.resampling import (
    Weights,
    axis_weights,
    blocks,
    same_blocks,
    same_rows,
    slab_rows,
    weighted,
)
from lamina.errors import GeometryError
from lamina.geometry import Affine, Reorientation, reorientation, resampled_grid, spacing_of
from lamina.labels import IGNORE_INDEX
from lamina.volume import Volume

_OTHER_UNIT = {
    "mm": "Tell the side of its pixels: --pixel-size, the field on the page, or pixel_size_mm in a "
    "list of cases.",
    "px": "Give it without the size of its pixels, or prepare pictures that all have one.",
}
"""What to do where the plan is in this unit and a scan in the other."""
_MAX_RATIO = 32
"""Voxel sizes further apart than this are a wrong unit, not another scanner."""
LOOK_AT_SPACING = "Look at the spacing in the header, or that was told, and at its unit."


def misfit(spacing: Sequence[float], plan: Plan) -> str:
    """Return why voxels of a size cannot be resampled to the plan's; nothing where they can."""
    pairs = zip(plan.spacing_for(spacing), spacing, strict=True)
    if all(max(aim / own, own / aim) <= _MAX_RATIO for aim, own in pairs):
        return ""
    return (
        f"voxels of {_told(spacing)} {plan.unit} are over {_MAX_RATIO} times larger or smaller "
        f"than the plan's {_told(plan.target_spacing)}."
    )


def _told(spacing: Sequence[float]) -> str:
    return " x ".join(f"{step:.3g}" for step in spacing)


class Logits(Protocol):
    """Logits ``(K, *S)``: an array, or what makes them up as they are read."""

    def __getitem__(self, box: tuple[slice, ...], /) -> NDArray[np.floating[Any]]:
        """Return a box of them."""


@dataclass(frozen=True)
class Alignment:
    """The way from a scan's own grid to the prepared grid and back.

    The scan is cropped to ``box``; ``oriented`` are the box's voxels in the plan's axis order,
    ``prepared`` is the same box at the target spacing. The last two share their middle, so the map
    between them is ``oriented index = step * prepared index + offset`` along each axis.
    """

    source_shape: tuple[int, ...]
    box: tuple[slice, ...]
    """What is kept of the scan, in its own axes; outside of it is background."""
    reorientation: Reorientation
    oriented_shape: tuple[int, ...]
    prepared_shape: tuple[int, ...]
    prepared_affine: Affine
    step: tuple[float, ...]
    """Oriented voxels per prepared voxel, along each axis."""
    source: str
    """The scan's file, for messages."""

    @classmethod
    def of(cls, volume: Volume, plan: Plan, label: NDArray[np.uint8] | None = None) -> "Alignment":
        """Work out the alignment of a scan.

        Args:
            volume: The scan, whose voxels decide what is cropped.
            plan: Axis order and spacing to bring it to.
            label: Class indices ``(1, *S)`` on the scan's grid; what they mark is not cropped.

        Raises:
            GeometryError: The scan has another number of axes than the plan, or absurd spacing.
        """
        if volume.spatial_dims != plan.spatial_dims:
            raise GeometryError(
                f"{volume.source}: has {volume.spatial_dims} spatial axes, the plan is for "
                f"{plan.spatial_dims}.",
                remedy="Use a model that was trained on such images.",
            )
        if volume.unit != plan.unit:
            raise GeometryError(
                f"{volume.source}: is measured in {volume.unit}, the plan in {plan.unit}.",
                remedy=_OTHER_UNIT[plan.unit],
            )
        turn = reorientation(volume.affine, plan.orientation)
        box = foreground_box(volume.array, label)
        size = [part.stop - part.start for part in box]
        oriented_affine = turn.affine(_cropped(volume.affine, box), size)
        oriented_shape = tuple(size[axis] for axis in turn.axes)
        dims = plan.spatial_dims
        stored = spacing_of(oriented_affine, dims)
        spacing = plan.spacing_for(stored)
        if why := misfit(stored, plan):
            raise GeometryError(f"{volume.source}: {why}", remedy=LOOK_AT_SPACING)
        affine, shape = resampled_grid(oriented_affine, oriented_shape, spacing)
        lengths = np.linalg.norm(affine[:3, :dims], axis=0)
        step = lengths / np.linalg.norm(oriented_affine[:3, :dims], axis=0)
        ratios = tuple(float(ratio) for ratio in step)
        return cls(
            volume.spatial_shape, box, turn, oriented_shape, shape, affine, ratios, volume.source
        )

    def prepare_image(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Bring an image ``(C, *S)`` onto the prepared grid by cubic interpolation.

        NaN and infinite voxels are replaced first, for a spline would spread them over the scan.

        Raises:
            DatasetError: A channel has no finite voxel.
        """
        oriented = self._oriented(array)
        prepared = np.empty((len(oriented), *self.prepared_shape), np.float32)
        for raw, out in zip(oriented, prepared, strict=True):
            channel = raw
            if raw.dtype.kind == "f":
                channel = finite(raw.astype(np.float32, copy=False), self.source)
            if self._is_identity:
                out[:] = channel
                continue
            for target, source, weights in blocks(self._to_prepared(order=3)):
                out[target] = weighted(channel[source].astype(np.float32), weights)
        return prepared

    def prepare_label(self, indices: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring class indices ``(1, *S)`` onto the prepared grid; the largest share wins."""
        oriented = self._oriented(indices)[0]
        if self._is_identity:
            return np.ascontiguousarray(oriented[None])
        prepared = np.empty((1, *self.prepared_shape), np.uint8)
        for target, source, weights in blocks(self._to_prepared(order=1)):
            part = oriented[source]
            classes = np.unique(part)
            marks = ((part == index).astype(np.float32) for index in classes)
            prepared[0][target] = largest(classes, (weighted(m, weights) for m in marks))
        return prepared

    def restore(
        self,
        logits: Logits,
        drawing: Drawing | None = None,
        *,
        stream_axis: int = 0,
        probabilities: NDArray[np.floating[Any]] | None = None,
    ) -> NDArray[np.uint8]:
        """Turn logits ``(K, *prepared)`` into class indices ``(1, *source)``.

        What was cropped becomes background.

        Logits are resampled and decided upon block by block, so that they never exist at full size.

        Args:
            logits: Of classes, of which the largest wins, or of regions; read in boxes of up to
                :meth:`rows` rows that go forward along ``stream_axis``.
            drawing: Where the channels are regions, how classes follow from them.
            stream_axis: Prepared axis.
            probabilities: Array ``(K, *source)``, such as a mapped file, that is filled with those
                of each class or region.
        """
        whole = np.zeros((1, *self.source_shape), np.uint8)
        indices = self._oriented(whole)[0]  # a view, as is the next
        likely = None
        if probabilities is not None:
            self._clear(probabilities, exclusive=drawing is None)
            likely = self._oriented(probabilities)
        for target, source, weights in self._to_oriented(stream_axis):
            part = logits[(slice(None), *source)]
            if likely is None:
                indices[target] = decided(part, weights, drawing)
                continue
            full = weighted(np.array(part), weights)
            indices[target] = decided(full, (), drawing)
            likely[(slice(None), *target)] = to_probabilities(full, exclusive=drawing is None)
        return whole

    def restore_maps(
        self,
        maps: Logits,
        out: NDArray[Any],
        *,
        stream_axis: int = 0,
        finish: Callable[[NDArray[Any]], NDArray[Any]] = lambda block: block,
    ) -> None:
        """Bring maps ``(M, *prepared)`` of any numbers back to the scan's grid, block by block.

        Args:
            maps: Read as logits are.
            out: Array ``(N, *source)`` to fill; what was cropped stays as it is.
            stream_axis: Prepared axis.
            finish: Makes the ``N`` maps of a block out of the ``M``, interpolated linearly.
        """
        oriented = self._oriented(out)
        for target, source, weights in self._to_oriented(stream_axis):
            part = maps[(slice(None), *source)]
            full = np.stack([weighted(channel, weights) for channel in part])
            oriented[(slice(None), *target)] = finish(full)

    def rows(self, axis: int) -> int:
        """Return the most rows of logits that are read at a time along a prepared axis."""
        if self._is_identity:
            return same_rows(self.prepared_shape[axis])
        return slab_rows(self._axis_back(axis))

    def _clear(self, probabilities: NDArray[np.floating[Any]], exclusive: bool) -> None:
        """Say of what was cropped that it is background."""
        kept = [part.stop - part.start for part in self.box]
        if kept != [*self.source_shape]:
            probabilities[:] = 0
            if exclusive:
                probabilities[0] = 1

    @property
    def _is_identity(self) -> bool:
        return self.oriented_shape == self.prepared_shape and all(r == 1.0 for r in self.step)

    def _oriented(self, array: NDArray[Any]) -> NDArray[Any]:
        return self.reorientation.apply(array[(slice(None), *self.box)])

    def _to_prepared(self, order: int) -> Weights:
        axes = zip(self.oriented_shape, self.step, self.prepared_shape, strict=True)
        return [axis_weights(size, step, count, order) for size, step, count in axes]

    def _to_oriented(
        self, stream_axis: int
    ) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...], Weights]]:
        if self._is_identity:
            return same_blocks(self.oriented_shape, stream_axis)
        axes = range(len(self.step))
        return blocks([self._axis_back(axis) for axis in axes], stream_axis)

    def _axis_back(self, axis: int) -> NDArray[np.float32]:
        count = self.oriented_shape[axis]
        return axis_weights(self.prepared_shape[axis], 1 / self.step[axis], count, 1)


def foreground_box(
    image: NDArray[Any], label: NDArray[np.uint8] | None = None
) -> tuple[slice, ...]:
    """Return the smallest box outside of which a scan is background, and nothing is labelled.

    A channel's background is the value that the scan's corner voxels share, be it NaN. Where they
    differ in any channel, background is unknown, and the box is the whole scan; so it is where a
    scan holds nothing else.

    Args:
        image: ``(C, *S)``.
        label: Class indices ``(1, *S)``; 0 and the ignored are not labelled.
    """
    shape = image.shape[1:]
    whole = tuple(slice(0, size) for size in shape)
    ends = tuple(slice(None, None, max(1, size - 1)) for size in shape)
    corners = image[(slice(None), *ends)].reshape(len(image), -1)
    if not all(_same(row, row[0]).all() for row in corners):
        return whole
    occupied = [np.zeros(size, np.bool_) for size in shape]
    empty = True
    for place in range(shape[0]):  # nothing of the scan's size is made
        marked = np.zeros(shape[1:], np.bool_)
        for channel, background in zip(image, corners[:, 0], strict=True):
            marked |= ~_same(channel[place], background)
        empty = empty and not marked.any()
        if label is not None:
            marked |= (label[0, place] > 0) & (label[0, place] != IGNORE_INDEX)
        occupied[0][place] = marked.any()
        for axis in range(marked.ndim):
            others = tuple(other for other in range(marked.ndim) if other != axis)
            occupied[1 + axis] |= marked.any(axis=others)
    if empty:
        return whole
    ends_of = [np.flatnonzero(along)[[0, -1]] for along in occupied]
    return tuple(slice(int(first), int(last) + 1) for first, last in ends_of)


def _same(values: NDArray[Any], value: Any) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = values == value if value == value else np.isnan(values)
    return same


def _cropped(affine: Affine, box: Sequence[slice]) -> Affine:
    moved = affine.copy()
    moved[:3, 3] += affine[:3, : len(box)] @ [part.start for part in box]
    return moved

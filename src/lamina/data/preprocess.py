"""From a scan as it lies in its file to the array a network sees, and exactly back."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lamina.data.plan import Normalisation, Plan
from lamina.data.resampling import Weights, axis_weights, blocks, same_blocks, weighted
from lamina.errors import DatasetError, GeometryError
from lamina.geometry import Affine, Reorientation, reorientation, resampled_grid, spacing_of
from lamina.labels import IGNORE_INDEX
from lamina.volume import Volume

log = logging.getLogger(__name__)

_MAX_RATIO = 32
"""Voxel sizes further apart than this are a wrong unit, not another scanner."""


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
                remedy="Use a model for such scans; a list of cases can tell the size of pixels."
                if plan.unit == "mm"
                else "Save the picture without its size, or prepare pictures that all have one.",
            )
        turn = reorientation(volume.affine, plan.orientation)
        box = foreground_box(volume.array, label)
        size = [part.stop - part.start for part in box]
        oriented_affine = turn.affine(_cropped(volume.affine, box), size)
        oriented_shape = tuple(size[axis] for axis in turn.axes)
        dims = plan.spatial_dims
        spacing = plan.spacing_for(spacing_of(oriented_affine, dims))
        affine, shape = resampled_grid(oriented_affine, oriented_shape, spacing)
        lengths = np.linalg.norm(affine[:3, :dims], axis=0)
        step = lengths / np.linalg.norm(oriented_affine[:3, :dims], axis=0)
        ratios = tuple(float(ratio) for ratio in step)
        _check_ratios(ratios, volume, plan)
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
            prepared[0][target] = _largest(classes, (weighted(m, weights) for m in marks))
        return prepared

    def restore(
        self,
        logits: NDArray[np.floating[Any]],
        drawing: Sequence[tuple[int, int]] | None = None,
    ) -> NDArray[np.uint8]:
        """Turn logits ``(K, *prepared)`` into class indices ``(1, *source)``.

        What was cropped becomes background.

        Logits are resampled and decided upon block by block, so that they never exist at full size.

        Args:
            logits: Of classes, of which the largest wins, or of regions.
            drawing: Where the channels are regions: pairs (channel, class index to draw where its
                logit is above 0), in order.
        """
        indices = np.zeros(self.oriented_shape, np.uint8)
        for target, source, weights in self._to_oriented():
            part = logits[(slice(None), *source)]
            if drawing is None:
                likely = _that_may_win(part)
                full = (self._sampled(part[index], weights) for index in likely)
                indices[target] = _largest(likely, full)
                continue
            for channel, index in drawing:
                indices[target][self._sampled(part[channel], weights) > 0] = index
        whole = np.zeros((1, *self.source_shape), np.uint8)
        whole[(slice(None), *self.box)] = self.reorientation.undo(indices[None])
        return whole

    @property
    def _is_identity(self) -> bool:
        return self.oriented_shape == self.prepared_shape and all(r == 1.0 for r in self.step)

    def _oriented(self, array: NDArray[Any]) -> NDArray[Any]:
        return self.reorientation.apply(array[(slice(None), *self.box)])

    def _to_prepared(self, order: int) -> Weights:
        axes = zip(self.oriented_shape, self.step, self.prepared_shape, strict=True)
        return [axis_weights(size, step, count, order) for size, step, count in axes]

    def _to_oriented(self) -> Iterator[tuple[tuple[slice, ...], tuple[slice, ...], Weights]]:
        if self._is_identity:
            return same_blocks(self.oriented_shape)
        axes = zip(self.prepared_shape, self.step, self.oriented_shape, strict=True)
        return blocks([axis_weights(size, 1 / step, count, 1) for size, step, count in axes])

    def _sampled(self, array: NDArray[Any], weights: Weights) -> NDArray[Any]:
        return array if self._is_identity else weighted(array, weights)


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
    occupied = np.zeros(shape, np.bool_)
    for channel, background in zip(image, corners[:, 0], strict=True):
        occupied |= ~_same(channel, background)
    if not occupied.any():
        return whole
    if label is not None:
        occupied |= (label[0] > 0) & (label[0] != IGNORE_INDEX)
    return tuple(ndimage.find_objects(occupied.view(np.uint8))[0])


def normalise(
    image: NDArray[np.float32], normalisation: Sequence[Normalisation], source: str
) -> NDArray[np.float32]:
    """Bring each channel of ``(C, *S)`` to a common scale.

    NaN and -inf become the channel's smallest finite value, +inf its largest, with a warning.

    Raises:
        DatasetError: A channel has no finite voxel, or there is not one normalisation per channel.
    """
    if len(normalisation) != image.shape[0]:
        raise DatasetError(
            f"{source}: {image.shape[0]} channels, the model takes {len(normalisation)}.",
            remedy="Give the channels the model was trained on, in the same order.",
        )
    return np.stack(
        [
            _normalise_channel(finite(channel, source), how)
            for channel, how in zip(image, normalisation, strict=True)
        ]
    )


def finite(channel: NDArray[np.float32], source: str) -> NDArray[np.float32]:
    """Return the channel with NaN and infinite voxels replaced by its extreme finite values.

    Raises:
        DatasetError: No voxel is finite.
    """
    good = np.isfinite(channel)
    if good.all():
        return channel
    if not good.any():
        raise DatasetError(f"{source}: no voxel holds a finite number.")
    low, high = channel[good].min(), channel[good].max()
    log.warning("%s: %d voxels are NaN or infinite; replaced.", source, int((~good).sum()))
    return np.nan_to_num(channel, nan=low, neginf=low, posinf=high)


def _same(values: NDArray[Any], value: Any) -> NDArray[np.bool_]:
    same: NDArray[np.bool_] = values == value if value == value else np.isnan(values)
    return same


def _cropped(affine: Affine, box: Sequence[slice]) -> Affine:
    moved = affine.copy()
    moved[:3, 3] += affine[:3, : len(box)] @ [part.start for part in box]
    return moved


def _check_ratios(ratios: Sequence[float], volume: Volume, plan: Plan) -> None:
    if max(*ratios, *(1 / ratio for ratio in ratios)) > _MAX_RATIO:
        raise GeometryError(
            f"{volume.source}: voxels of {volume.spacing} mm are over {_MAX_RATIO} times "
            f"larger or smaller than the plan's {plan.target_spacing} mm.",
            remedy="Look at the spacing in the header, and at its unit.",
        )


def _normalise_channel(channel: NDArray[np.float32], how: Normalisation) -> NDArray[np.float32]:
    if how.scheme == "ct":
        clipped = np.clip(channel, how.low, how.high)
        return ((clipped - how.mean) / max(how.std, 1e-8)).astype(np.float32)
    if how.scheme == "zscore_nonzero":
        tissue = channel[channel != 0]
        scale = 1 / tissue.std() if tissue.size and tissue.std() > 0 else 0.0
        mean = tissue.mean() if tissue.size else 0.0
        return np.where(channel != 0, (channel - mean) * scale, 0).astype(np.float32)
    own = channel.astype(np.float64)
    low, high = np.percentile(own, (0.5, 99.5))
    if low < high:  # a structure below 0.5 % of an even background must not be clipped away
        own = own.clip(low, high)
    # A constant image carries nothing to scale: it becomes zero rather than rounding noise.
    scale = 1 / own.std() if own.std() > 1e-6 * np.abs(own).max() else 0.0
    return np.asarray((own - own.mean()) * scale, np.float32)


def _that_may_win(logits: NDArray[Any]) -> NDArray[np.intp]:
    """Return the channels that can be largest somewhere between the voxels of ``(K, *S)``."""
    axes = tuple(range(1, logits.ndim))
    return np.flatnonzero(~(logits.max(axes) < logits.min(axes).max()))


def _largest(names: NDArray[Any], channels: Iterable[NDArray[Any]]) -> NDArray[Any]:
    """Return, voxel by voxel, the name of the largest of as many channels as there are names."""
    if len(names) == 1:
        return names
    best: NDArray[Any] | None = None
    for index, channel in enumerate(channels):
        if best is None:
            best, winner = np.array(channel), np.zeros(channel.shape, np.intp)
        else:
            larger = channel > best
            winner[larger] = index
            best[larger] = channel[larger]
    return np.asarray(names[winner])

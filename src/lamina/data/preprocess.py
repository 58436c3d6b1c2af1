"""From a scan as it lies in its file to the array a network sees, and exactly back."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lamina.data.plan import Normalisation, Plan
from lamina.errors import DatasetError, GeometryError
from lamina.geometry import Affine, Reorientation, reorientation, resampled_grid
from lamina.volume import Volume

log = logging.getLogger(__name__)

_MAX_RATIO = 32
"""Voxel sizes further apart than this are a wrong unit, not another scanner."""


@dataclass(frozen=True)
class Alignment:
    """The way from a scan's own grid to the prepared grid and back; both cover the same box.

    ``source`` is the scan's grid, ``oriented`` the same voxels in the plan's axis order,
    ``prepared`` the oriented box at the target spacing. Neighbouring grids share their middle, so
    a map between the last two is ``source index = step * target index + offset`` along each axis.
    """

    reorientation: Reorientation
    oriented_shape: tuple[int, ...]
    prepared_shape: tuple[int, ...]
    prepared_affine: Affine
    step: tuple[float, ...]
    """Oriented voxels per prepared voxel, along each axis."""
    source: str
    """The scan's file, for messages."""

    @classmethod
    def of(cls, volume: Volume, plan: Plan) -> "Alignment":
        """Work out the alignment of a scan.

        Raises:
            GeometryError: The scan has another number of axes than the plan, or absurd spacing.
        """
        if volume.spatial_dims != plan.spatial_dims:
            raise GeometryError(
                f"{volume.source}: has {volume.spatial_dims} spatial axes, the plan is for "
                f"{plan.spatial_dims}.",
                remedy="Use a model that was trained on such images.",
            )
        turn = reorientation(volume.affine, plan.orientation)
        oriented_affine = turn.affine(volume.affine, volume.spatial_shape)
        oriented_shape = tuple(volume.spatial_shape[axis] for axis in turn.axes)
        affine, shape = resampled_grid(oriented_affine, oriented_shape, plan.target_spacing)
        dims = plan.spatial_dims
        lengths = np.linalg.norm(affine[:3, :dims], axis=0)
        step = lengths / np.linalg.norm(oriented_affine[:3, :dims], axis=0)
        ratios = tuple(float(ratio) for ratio in step)
        if max(*ratios, *(1 / ratio for ratio in ratios)) > _MAX_RATIO:
            raise GeometryError(
                f"{volume.source}: voxels of {volume.spacing} mm are over {_MAX_RATIO} times "
                f"larger or smaller than the plan's {plan.target_spacing} mm.",
                remedy="Look at the spacing in the header, and at its unit.",
            )
        return cls(turn, oriented_shape, shape, affine, ratios, volume.source)

    def prepare_image(self, array: NDArray[Any]) -> NDArray[np.float32]:
        """Bring an image ``(C, *S)`` onto the prepared grid by cubic interpolation.

        NaN and infinite voxels are replaced first, for a spline would spread them over the scan.

        Raises:
            DatasetError: A channel has no finite voxel.
        """
        oriented = self.reorientation.apply(array).astype(np.float32)
        channels = [finite(channel, self.source) for channel in oriented]
        if not self._is_identity:
            channels = [self._to_prepared(channel, order=3) for channel in channels]
        return np.stack(channels)

    def prepare_label(self, indices: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Bring class indices ``(1, *S)`` onto the prepared grid; the largest share wins."""
        oriented = self.reorientation.apply(indices)[0]
        if self._is_identity:
            return np.ascontiguousarray(oriented[None])
        classes = np.unique(oriented)
        shares = (self._to_prepared((oriented == c).astype(np.float32), order=1) for c in classes)
        return classes[_running_argmax(shares)][None]

    def restore(
        self,
        logits: NDArray[np.floating[Any]],
        drawing: Sequence[tuple[int, int]] | None = None,
    ) -> NDArray[np.uint8]:
        """Turn logits ``(K, *prepared)`` into class indices ``(1, *source)``.

        Channels are resampled one by one and used as they come, so that the full-size logits of
        all of them never exist at once.

        Args:
            logits: Of classes, of which the largest wins, or of regions.
            drawing: Where the channels are regions: pairs (channel, class index to draw where its
                logit is above 0), in order.
        """
        if drawing is None:
            indices = _running_argmax(map(self._to_oriented, logits))
        else:
            indices = np.zeros(self.oriented_shape, np.uint8)
            for channel, index in drawing:
                indices[self._to_oriented(logits[channel]) > 0] = index
        return np.ascontiguousarray(self.reorientation.undo(indices[None]))

    @property
    def _is_identity(self) -> bool:
        return self.oriented_shape == self.prepared_shape and all(r == 1.0 for r in self.step)

    def _to_prepared(self, array: NDArray[Any], order: int) -> NDArray[np.float32]:
        return _resample(array, self.step, self.prepared_shape, order)

    def _to_oriented(self, array: NDArray[Any]) -> NDArray[Any]:
        if self._is_identity:
            return array
        return _resample(array, [1 / ratio for ratio in self.step], self.oriented_shape, order=1)


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


def _resample(
    array: NDArray[Any], step: Sequence[float], shape: tuple[int, ...], order: int
) -> NDArray[np.float32]:
    """Sample ``array`` every ``step`` voxels, middles aligned, continued at its edges."""
    size = np.array(array.shape)
    offset = (size - 1) / 2 - np.asarray(step) * (np.array(shape) - 1) / 2
    # Without smoothing, every other voxel of a finer scan would be skipped and its noise kept.
    sigma = [max(0.0, (ratio - 1) / 2) for ratio in step]
    smooth = ndimage.gaussian_filter(array, sigma, mode="nearest") if max(sigma) > 0 else array
    return np.asarray(
        ndimage.affine_transform(
            smooth, np.asarray(step), offset, shape, np.float32, order=order, mode="nearest"
        )
    )


def _running_argmax(channels: Any) -> NDArray[np.uint8]:
    """Return the index of the largest of equally shaped arrays that come one at a time."""
    best: NDArray[Any] | None = None
    for index, channel in enumerate(channels):
        if best is None:
            best, winner = np.array(channel), np.zeros(channel.shape, np.uint8)
        else:
            larger = channel > best
            winner[larger] = index
            best[larger] = channel[larger]
    return winner

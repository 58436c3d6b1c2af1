"""A network and its plan, together able to segment a scan as it lies in its file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.data.cache import append_maps
from lamina.data.decision import decided
from lamina.data.intensity import normalise
from lamina.data.plan import Plan
from lamina.data.preprocess import Alignment
from lamina.data.resampling import same_blocks, same_rows
from lamina.data.straighten import way_upright
from lamina.errors import BundleError, GeometryError
from lamina.inference.memory import Memory, held, taken_by
from lamina.inference.mirroring import mirrored
from lamina.inference.postprocess import STEP_BYTES, Step, postprocess
from lamina.inference.sliding_window import Network, SlidingWindow
from lamina.inference.windows import Tiling
from lamina.volume import Volume

OnWindow = Callable[[int, int], None]
"""Called with windows done and windows in all."""

_BATCH_VOXELS = 2**18
"""Voxels in a batch of windows beyond which a CPU gains nothing by more of them."""
_MOST_WINDOWS = 4


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Segments volumes of any orientation, spacing and size; it touches no files."""

    network: Network
    """``(B, C, *S) -> (B, K, *S)`` logits of arrays, such as a
    :class:`~lamina.inference.backend.TorchNetwork`."""
    plan: Plan
    resample_oblique: bool = False
    """Whether scans whose axes are not at right angles are resampled, rather than refused."""
    maps: Callable[[NDArray[np.float32]], NDArray[np.uint8]] | None = None
    """Draws the attention maps ``(h, *S)`` of a prepared image ``(C, *S)``, for a network that
    reads them too."""
    postprocessing: tuple[Step, ...] = ()
    """Changes to the segmentation on the scan's own grid, in this order."""
    tta: bool = False
    """Whether the network sees each window in the mirror images that the plan allows, too."""
    sw_batch_size: int | None = None
    """Windows per call of the network; ``None``: as many as a CPU gains by."""
    ram_bytes: float | None = None
    """The most memory that the process may hold; fewer windows are then taken at a time."""
    threads: int = 1
    """That put windows together; how many run the network is its own affair."""

    def __call__(
        self,
        image: Volume,
        progress: OnWindow | None = None,
        probabilities: NDArray[np.floating[Any]] | None = None,
    ) -> Volume:
        """Segment one scan.

        Args:
            image: ``(C, *S)`` with the plan's channels.
            progress: Called with windows done and windows in all.
            probabilities: Array ``(K, *S)``, such as a mapped file, that is filled with those of
                each class, or of each region, before postprocessing.

        Returns:
            Label map ``(1, *S)`` on the scan's own grid, with the values its training labels had.

        Raises:
            DatasetError: The scan has other channels than the model takes, or no finite voxel.
            GeometryError: It has another number of spatial axes, or its axes are not at right
                angles and it is not to be resampled, or probabilities are asked for.
            ResourceError: It takes more memory than is granted.
            BundleError: The network returns NaN, of which nothing follows.
        """
        found = self._on_own_grid(image, progress, probabilities)
        return postprocess(found, self.plan.labels, self.postprocessing)

    def predicted_memory(self, image: Volume) -> Memory:
        """Return what segmenting a scan will take, the program and the scan included.

        One window is run through the network, once for all scans, to see what that takes.

        Args:
            image: As for a prediction; at right angles.
        """
        return self._memory(image, Alignment.of(image, self.plan))

    def prepare(self, image: Volume, alignment: Alignment) -> NDArray[np.float32]:
        """Return what the network sees of a scan: ``(C, *prepared)``, with attention maps, if any.

        Args:
            image: At right angles.
            alignment: Of the image.
        """
        prepared = alignment.prepare_image(image.array)
        normalise(prepared, self.plan.normalisation, image.source, out=prepared)
        return prepared if self.maps is None else append_maps(prepared, self.maps(prepared))

    def _on_own_grid(
        self,
        image: Volume,
        progress: OnWindow | None,
        probabilities: NDArray[np.floating[Any]] | None,
    ) -> Volume:
        way = way_upright(image, self.resample_oblique)
        if way is None:
            return self._segment(image, progress, probabilities)
        if probabilities is not None:
            raise GeometryError(
                f"{image.source}: axes are not at right angles; there are no probabilities then.",
                remedy="Segment it without them.",
            )
        return way.undo(self._segment(way.apply_image(image), progress, None))

    def _segment(
        self,
        image: Volume,
        progress: OnWindow | None,
        probabilities: NDArray[np.floating[Any]] | None,
    ) -> Volume:
        alignment = Alignment.of(image, self.plan)
        batch = self._most_windows
        if self.ram_bytes is not None:
            memory = self._memory(image, alignment).within(self.ram_bytes, image.source)
            batch = memory.sw_batch_size
        prepared = self.prepare(image, alignment)
        logits = logits_of(
            self._applied,
            prepared,
            self.plan,
            alignment.rows,
            batch,
            progress,
            threads=self.threads,
        )
        indices = alignment.restore(
            logits,
            self.plan.drawing,
            stream_axis=logits.tiling.stream_axis,
            probabilities=probabilities,
        )
        if logits.has_nan:
            raise BundleError(
                f"{image.source}: the model finds values for it that are no numbers (NaN).",
                remedy="Try --precision fp32 and --backend torch; or the model itself is broken.",
            )
        del prepared, logits
        return replace(image, array=self.plan.labels.decode(indices))

    @property
    def _applied(self) -> Network:
        return mirrored(self.network, self.plan) if self.tta else self.network

    @property
    def _most_windows(self) -> int:
        return self.sw_batch_size or windows_together(self.plan.roi_size)

    def _memory(self, image: Volume, alignment: Alignment) -> Memory:
        plan, shape = self.plan, alignment.prepared_shape
        tiling = Tiling.thinnest(
            shape, plan.roi_size, plan.overlap, alignment.rows, self._most_windows
        )
        num_maps, tile_bytes = self._rehearsed
        scan, voxels, channels = prod(image.spatial_shape), prod(shape), len(plan.channels)
        # Broken voxels are mended in a copy of a channel, with masks; so is the scale found.
        mending = 0 if image.array.dtype.kind != "f" else 12 * scan
        # Of resampling, one axis after the other.
        weights = 8 * sum(
            old * new for old, new in zip(alignment.oriented_shape, shape, strict=True)
        )
        drawing = (4 * channels + 9 * num_maps) * voxels if num_maps else 0
        one_value = 4 * plan.num_outputs * prod(plan.roi_size)
        output = scan * plan.labels.decode(np.zeros(1, np.uint8)).itemsize
        return Memory(
            program_bytes=held(),
            prepared_bytes=4 * (channels + num_maps) * voxels,
            preparing_bytes=max(9 * voxels, mending, drawing) + weights,
            slab_bytes=4 * (plan.num_outputs + 1) * prod(tiling.slab_shape) + one_value,
            tile_bytes=tile_bytes,
            indices_bytes=scan,
            output_bytes=output,
            finishing_bytes=output + STEP_BYTES * scan if self.postprocessing else 0,
            sw_batch_size=self._most_windows,
        )

    @cached_property
    def _rehearsed(self) -> tuple[int, int]:
        """Attention maps that are drawn, and bytes that one window takes in the network."""
        plan = self.plan
        shape = len(plan.channels), *plan.roi_size
        window = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        num_maps = 0
        if self.maps is not None:
            drawn = self.maps(window)
            num_maps, window = len(drawn), append_maps(window, drawn)
        seen = window if plan.slice_axis is None else window.squeeze(1 + plan.slice_axis)
        batch = seen[None]
        return num_maps, batch.nbytes + taken_by(lambda: self._applied(batch))


def logits_of(
    network: Network,
    image: NDArray[np.float32],
    plan: Plan,
    rows: Callable[[int], int],
    sw_batch_size: int,
    progress: OnWindow | None = None,
    *,
    threads: int = 1,
) -> SlidingWindow:
    """Return the logits of a prepared image ``(C, *S)``, made up as they are read.

    Args:
        network: What makes them.
        image: Normalised, on the prepared grid.
        plan: Window, overlap, blending.
        rows: Returns how many rows are read at a time along an axis.
        sw_batch_size: Windows per call of the network.
        progress: Called with windows done and windows in all.
        threads: That put windows together.
    """
    tiling = Tiling.thinnest(image.shape[1:], plan.roi_size, plan.overlap, rows, sw_batch_size)
    return SlidingWindow(
        network,
        image,
        tiling,
        blending=plan.blending,
        slice_axis=plan.slice_axis,
        progress=progress,
        threads=threads,
    )


def segment_prepared(network: Network, image: NDArray[np.float32], plan: Plan) -> NDArray[np.uint8]:
    """Return class indices ``(*S)`` of a prepared image ``(C, *S)``, on its own grid."""
    shape = image.shape[1:]
    logits = logits_of(
        network,
        image,
        plan,
        lambda axis: same_rows(shape[axis]),
        windows_together(plan.roi_size),
    )
    indices = np.empty(shape, np.uint8)
    for target, _, _ in same_blocks(shape, logits.tiling.stream_axis):
        indices[target] = decided(logits[(slice(None), *target)], drawing=plan.drawing)
    return indices


def windows_together(roi_size: Sequence[int]) -> int:
    """Return how many windows a CPU gains by taking together: one of a volume, several images."""
    return max(1, min(_MOST_WINDOWS, _BATCH_VOXELS // prod(roi_size)))

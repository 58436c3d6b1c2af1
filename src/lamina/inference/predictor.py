"""A network and its plan, together able to segment a scan as it lies in its file."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from lamina.data.cache import append_maps
from lamina.data.plan import Plan
from lamina.data.preprocess import Alignment, normalise
from lamina.data.straighten import Straightening, require_orthogonal
from lamina.geometry import is_sheared
from lamina.inference.postprocess import Step, postprocess
from lamina.inference.sliding_window import Network, sliding_window
from lamina.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Segments volumes of any orientation, spacing and size; it touches no files."""

    network: Network
    """``(B, C, *S) -> (B, K, *S)`` logits; a torch module in eval mode, on ``device``."""
    plan: Plan
    device: str = "cpu"
    resample_oblique: bool = False
    """Whether scans whose axes are not at right angles are resampled, rather than refused."""
    maps: Callable[[NDArray[np.float32]], NDArray[np.uint8]] | None = None
    """Draws the attention maps ``(h, *S)`` of a prepared image ``(C, *S)``, for a network that
    reads them too."""
    postprocessing: tuple[Step, ...] = ()
    """Changes to the segmentation on the scan's own grid, in this order."""

    def __call__(self, image: Volume, progress: Callable[[int, int], None] | None = None) -> Volume:
        """Segment one scan.

        Args:
            image: ``(C, *S)`` with the plan's channels.
            progress: Called with windows done and windows in all.

        Returns:
            Label map ``(1, *S)`` on the scan's own grid, with the values its training labels had.

        Raises:
            DatasetError: The scan has other channels than the model takes, or no finite voxel.
            GeometryError: It has another number of spatial axes, or its axes are not at right
                angles and it is not to be resampled.
        """
        found = self._on_own_grid(image, progress)
        return postprocess(found, self.plan.labels, self.postprocessing)

    def _on_own_grid(self, image: Volume, progress: Callable[[int, int], None] | None) -> Volume:
        if not is_sheared(image.affine):
            return self._segment(image, progress)
        if not self.resample_oblique:
            require_orthogonal(image)
        way = Straightening.of(image)
        return way.undo(self._segment(way.apply_image(image), progress))

    def _segment(self, image: Volume, progress: Callable[[int, int], None] | None) -> Volume:
        alignment = Alignment.of(image, self.plan)
        prepared = normalise(
            alignment.prepare_image(image.array), self.plan.normalisation, image.source
        )
        if self.maps is not None:
            prepared = append_maps(prepared, self.maps(prepared))
        logits = sliding_window(
            self.network,
            torch.from_numpy(prepared).to(self.device),
            self.plan.roi_size,
            overlap=self.plan.overlap,
            blending=self.plan.blending,
            slice_axis=self.plan.slice_axis,
            progress=progress,
        )
        labels = self.plan.labels
        drawing = labels.region_drawing if self.plan.region_based else None
        indices = alignment.restore(logits.cpu().numpy(), drawing)
        return replace(image, array=labels.decode(indices))

"""Maps of a whole scan: window by window on the prepared grid, then on the scan's own."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.data.preprocess import Alignment
from lamina.data.straighten import Straightening, way_upright
from lamina.inference.predictor import OnWindow, Predictor, logits_of
from lamina.inference.sliding_window import Network
from lamina.inference.windows import Tiling, cut
from lamina.volume import Volume


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scan as a network sees it, and the way back to the grid of its file."""

    predictor: Predictor
    alignment: Alignment
    array: NDArray[np.float32]
    """``(C, *S)``, attention maps that the network reads behind the channels."""
    straightening: Straightening | None = None
    """Where the scan's axes are not at right angles: the way to such a grid, and back."""

    @classmethod
    def of(cls, image: Volume, predictor: Predictor) -> "Prepared":
        """Prepare a scan as the predictor does.

        Raises:
            DatasetError: It has other channels than the model takes, or no finite voxel.
            GeometryError: It has another number of axes, or these are not at right angles and it
                is not to be resampled.
        """
        way = way_upright(image, predictor.resample_oblique)
        if way:
            image = way.apply_image(image)
        alignment = Alignment.of(image, predictor.plan)
        return cls(predictor, alignment, predictor.prepare(image, alignment), way)

    def on_scan(self, maps: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Bring maps back from the upright grid to a slanted scan's own, as segmentations are.

        Args:
            maps: ``(N, *upright)``.
            out: ``(N, *S)`` of the scan's file, which is filled.
        """
        way = self.straightening
        assert way is not None
        for upright, own in zip(maps, out, strict=True):
            own[...] = way.undo(Volume(upright[None], way.upright_affine)).array[0]

    def windows(self) -> Iterator[NDArray[np.float32]]:
        """Yield all windows as the network takes them, ``(C, *roi_size)``."""
        plan = self.predictor.plan
        tiling = Tiling.thinnest(
            self.array.shape[1:], plan.roi_size, plan.overlap, self.alignment.rows, 1
        )
        for start in chain.from_iterable(tiling.groups()):
            window = cut(self.array, start, plan.roi_size)
            yield window if plan.slice_axis is None else window.squeeze(1 + plan.slice_axis)

    def apply(
        self,
        network: Network,
        out: NDArray[np.float32],
        *,
        finish: Callable[[NDArray[Any]], NDArray[Any]] = lambda block: block,
        progress: OnWindow | None = None,
    ) -> None:
        """Fill ``out``, ``(N, *S)``, with maps of the scan; what was cropped stays as it is.

        Args:
            network: ``(B, C, *roi_size) -> (B, M, *roi_size)``, blended where windows overlap.
            out: On the scan's own grid, or on the upright one of a slanted scan.
            finish: Makes ``N`` maps out of ``M`` there.
            progress: Called with windows done and windows in all.
        """
        found = logits_of(
            network, self.array, self.predictor.plan, self.alignment.rows, 1, progress
        )
        self.alignment.restore_maps(found, out, stream_axis=found.tiling.stream_axis, finish=finish)

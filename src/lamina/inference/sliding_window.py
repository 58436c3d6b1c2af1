"""A network applied window by window to an image larger than it was trained on."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor]
"""``(B, C, *S) -> (B, K, *S)`` logits: a torch module, an exported graph, a test double."""


def sliding_window(
    network: Network,
    image: Tensor,
    roi_size: Sequence[int],
    *,
    overlap: float = 0.5,
    blending: Literal["gaussian", "constant"] = "gaussian",
    sw_batch_size: int = 4,
    slice_axis: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return logits for a whole image, window by window.

    An image smaller than the window is continued at its edges and the result cut back.

    Args:
        network: Applied to ``(sw_batch_size, C, *roi_size)``.
        image: ``(C, *S)``, on the device the network runs on.
        roi_size: Window in voxels.
        overlap: Share by which neighbouring windows overlap, 0 to below 1.
        blending: Weights of a window's voxels where windows overlap: falling towards its edges, or
            equal.
        sw_batch_size: Windows per call of the network.
        slice_axis: Spatial axis along which the window is 1 voxel and which the network does not
            see.
        progress: Called after each call of the network with windows done and windows in all.

    Returns:
        Logits ``(K, *S)``, float32.
    """
    from monai.inferers.inferer import SlidingWindowInferer

    total = _num_windows(image.shape[1:], roi_size, overlap)
    done = 0

    def window(batch: Tensor) -> Tensor:
        nonlocal done
        if batch.ndim == 5 and slice_axis is None:
            batch = batch.contiguous(memory_format=torch.channels_last_3d)
        seen = batch if slice_axis is None else batch.squeeze(2 + slice_axis)
        logits = network(seen).to(torch.float32, copy=True)  # it is about to be weighted in place
        if slice_axis is not None:
            logits = logits.unsqueeze(2 + slice_axis)
        done += batch.shape[0]
        if progress is not None:
            progress(done, total)
        return logits

    inferer = SlidingWindowInferer(
        roi_size=tuple(roi_size),
        sw_batch_size=sw_batch_size,
        overlap=overlap,
        mode=blending,
        padding_mode="replicate",
    )
    with torch.inference_mode():
        logits: Tensor = inferer(image[None], window)
    return logits[0]


def _num_windows(shape: Sequence[int], roi_size: Sequence[int], overlap: float) -> int:
    count = 1
    for size, window in zip(shape, roi_size, strict=True):
        stride = max(1, int(window * (1 - overlap)))
        count *= 1 + max(0, -((size - window) // -stride))
    return count

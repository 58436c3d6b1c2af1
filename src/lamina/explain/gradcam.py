"""Grad-CAM: where the features lie that speak for a structure.

Selvaraju et al.: *Grad-CAM: Visual Explanations from Deep Networks via Gradient-based
Localization*, ICCV 2017, Eq. 1-2; for segmentation after Vinogradova et al.: *Towards Interpretable
Semantic Segmentation via Gradient-weighted Class Activation Mapping*, AAAI 2020: what is explained
is the sum of a class's logits over the voxels that it wins.

A scan is larger than a window. Gradients are therefore averaged over the windows of the whole scan
first, and features are weighted by that one mean: maps are on one scale everywhere.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.explain.layers import Layer
from lamina.models.layers.size import crop_to

_LINEAR = {2: "bilinear", 3: "trilinear"}


class GradCAM:
    """A network of arrays that returns the map of each class in place of its logits.

    Args:
        network: ``(B, C, *S) -> (B, K, *S)`` logits; in evaluation mode. Its weights stop requiring
            gradients.
        layer: Whose output is looked at.
        classes: Channels of the logits to explain.
        exclusive: Whether the largest logit wins a voxel, or each channel does where it is above 0.
    """

    def __init__(
        self, network: nn.Module, layer: Layer, classes: Sequence[int], *, exclusive: bool
    ) -> None:
        self.network = network.requires_grad_(False)
        self.layer = layer
        self.classes = list(classes)
        self.exclusive = exclusive
        self._device = next(network.parameters()).device
        self._weights = torch.zeros(len(self.classes), layer.channels, device=self._device)

    def weigh(self, windows: Iterable[NDArray[np.float32]]) -> list[bool]:
        """Find out, window by window ``(C, *S)``, what each channel of the layer speaks for.

        Returns:
            Whether each class wins a voxel in any of them.
        """
        found = [False] * len(self.classes)
        for window in windows:
            kept: list[Tensor] = []
            with torch.enable_grad():
                logits = self._run(window[None], kept)
                won = _won(logits.detach(), self.exclusive)
                for place, index in enumerate(self.classes):
                    where = won[:, index]
                    if where.any():
                        found[place] = True
                        score = (logits[:, index] * where).sum()
                        (gradient,) = torch.autograd.grad(score, kept[0], retain_graph=True)
                        self._weights[place] += gradient.flatten(2).sum(dim=(0, 2))
        return found

    def __call__(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the maps ``(B, len(classes), *S)`` of a batch ``(B, C, *S)``, none below 0."""
        kept: list[Tensor] = []
        with torch.no_grad():
            self._run(batch, kept)
            maps = torch.einsum("mc,bc...->bm...", self._weights, kept[0]).relu()
            size = [n * step for n, step in zip(maps.shape[2:], self.layer.stride, strict=True)]
            fine = F.interpolate(maps, size=size, mode=_LINEAR[maps.dim() - 2])
            whole: NDArray[np.float32] = crop_to(fine, torch.Size(batch.shape[2:])).cpu().numpy()
        return whole

    def _run(self, batch: NDArray[np.float32], kept: list[Tensor]) -> Tensor:
        """Return the logits, and keep what the layer puts out, from where gradients are known."""

        def keep(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
            kept.append(output.detach().requires_grad_(torch.is_grad_enabled()))
            return kept[0].clone()  # what comes next may write over it

        hook = self.network.get_submodule(self.layer.name).register_forward_hook(keep)
        try:
            logits: Tensor = self.network(torch.from_numpy(batch.copy()).to(self._device))
        finally:
            hook.remove()
        return logits


def _won(logits: Tensor, exclusive: bool) -> Tensor:
    """Tell which voxels each channel wins: ``(B, K, *S)``."""
    if not exclusive:
        return logits > 0
    return F.one_hot(logits.argmax(dim=1), logits.shape[1]).movedim(-1, 1).bool()

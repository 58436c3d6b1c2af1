"""Dice, cross-entropy and a boundary term, all weighted against the frequency of classes."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from lamina.errors import ConfigError
from lamina.losses import LOSSES
from lamina.losses.terms import (
    at_least_float32,
    is_known,
    one_hot,
    over_processes,
    soft_dice,
    spatial_axes,
)


@LOSSES.register("boundary_dice_ce")
@dataclass(frozen=True, kw_only=True)
class BoundaryDiceCE:
    """LightMedSeg's objective (section 3.7, Eq. 22), whose classes exclude each other.

    With logits o, p their softmax, one-hot truth y, sums over the batch and all voxels that are not
    ignored, n_c voxels of class c, e = ``smooth``, W_c = 1 / n_c of the classes that are present, 0
    of the others, and w_c = W_c / sum W_c::

        dice     = sum_c w_c [1 - (2 sum p_c y_c + e) / (sum p_c + sum y_c + e)]
        ce       = - sum_c w_c sum y_c log p_c / sum_c w_c n_c
        band_c   = dilate(y_c) - erode(y_c), by a box 3 voxels wide
        boundary = sum_c w_c [sum over band_c of BCE(sigmoid(o_c), y_c) / (|band_c| + e)]
        total    = dice_weight * dice + ce_weight * ce + boundary_weight * boundary

    The paper's text leaves open the terms' weights, the box and what absent classes weigh: without
    its 0 an absent class would outweigh all others.

    Raises:
        ConfigError: A class weight is negative, or all are 0.
    """

    class_weights: tuple[float, ...] | None = None
    """W_c, up to a common factor, such as 1 / voxels in the training set; by default those of each
    batch. An absent class still weighs 0."""
    smooth: float = 1e-5
    """Keeps quotients finite where a class or its band is empty."""
    dice_weight: float = 1.0
    """Weight of the Dice term."""
    ce_weight: float = 1.0
    """Weight of the cross-entropy term."""
    boundary_weight: float = 0.5
    """Weight of the boundary term."""

    def __post_init__(self) -> None:
        weights = self.class_weights
        if weights is not None and (min(weights, default=0) < 0 or not any(weights)):
            raise ConfigError(
                f"class_weights = {weights} must be at least 0, and one of them more than 0."
            )

    def __call__(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss, computed in float32 at least; 0 when every voxel is ignored.

        Args:
            logits: ``(B, K, *S)``, K >= 2, two or three spatial axes, any floating dtype.
            target: Class indices ``(B, *S)``, any integer dtype; 255 is ignored.

        Raises:
            ConfigError: There are more or fewer ``class_weights`` than classes.
        """
        if self.class_weights is not None and len(self.class_weights) != logits.shape[1]:
            raise ConfigError(
                f"class_weights = {self.class_weights} must be {logits.shape[1]} numbers, one for "
                "each class, the background included."
            )
        with torch.autocast(logits.device.type, enabled=False):
            logits = at_least_float32(logits)
            log_p = logits.log_softmax(dim=1)
            known = is_known(target).unsqueeze(1)
            truth = one_hot(target, logits.shape[1])
            axes = (0, *spatial_axes(truth))
            sums = truth.sum(axes).to(log_p), -(log_p * truth).sum(axes)
            voxels, surprise = over_processes(*sums)  # (K,)
            weights = self._weights(voxels)
            dice = soft_dice(log_p.exp() * known, truth, smooth=self.smooth)
            cross_entropy = _quotient((weights * surprise).sum(), (weights * voxels).sum())
            return (
                self.dice_weight * (weights * dice).sum()
                + self.ce_weight * cross_entropy
                + self.boundary_weight * (weights * self._boundary(logits, truth, known)).sum()
            )

    def _weights(self, voxels: Tensor) -> Tensor:
        """Return the weight of each class, of sum 1, or all 0 where no class that weighs is."""
        if self.class_weights is None:
            weights = 1 / voxels.clamp(min=1)
        else:
            weights = voxels.new_tensor(self.class_weights)
        weights = weights * (voxels > 0)
        return _quotient(weights, weights.sum())

    def _boundary(self, logits: Tensor, truth: Tensor, known: Tensor) -> Tensor:
        """Return ``(K,)``: the mean binary cross-entropy in the band around each class's border."""
        # A voxel is in dilation minus erosion if its box holds voxels both of the class and of
        # others; ignored voxels are neither.
        band = _dilate(truth, logits) * _dilate(known & ~truth, logits) * known
        losses = F.binary_cross_entropy_with_logits(logits, truth.to(logits), reduction="none")
        axes = (0, *spatial_axes(band))
        total, voxels = over_processes((losses * band).sum(axes), band.sum(axes))
        return total / (voxels + self.smooth)


def _dilate(masks: Tensor, like: Tensor) -> Tensor:
    """Grow masks ``(B, K, *S)`` by one voxel, diagonally too; the dtype becomes ``like``'s."""
    pool = F.max_pool2d if masks.dim() == 4 else F.max_pool3d
    grown: Tensor = pool(masks.to(like.dtype), kernel_size=3, stride=1, padding=1)
    return grown


def _quotient(part: Tensor, whole: Tensor) -> Tensor:
    """Return part / whole, and 0 where both are 0."""
    return part / (whole + (whole == 0))

"""Terms that several losses share."""

from typing import Any

import torch
from torch import Tensor, distributed

from lamina.labels import IGNORE_INDEX


def at_least_float32(logits: Tensor) -> Tensor:
    """Return logits precise enough for sums over millions of voxels; float64 stays what it is."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def one_hot(target: Tensor, num_classes: int) -> Tensor:
    """Class indices ``(B, *S)`` -> masks ``(B, K, *S)``, bool; ignored voxels are in none."""
    classes = torch.arange(num_classes, device=target.device)
    return target.unsqueeze(1) == classes.reshape(-1, *[1] * (target.dim() - 1))


def is_known(target: Tensor) -> Tensor:
    """Tell which entries of a target count, as bool of its shape."""
    return target != IGNORE_INDEX


def spatial_axes(x: Tensor) -> tuple[int, ...]:
    """Return the spatial axes of ``(B, K, *S)``."""
    return tuple(range(2, x.dim()))


def over_processes(*sums: Tensor) -> tuple[Tensor, ...]:
    """Add up sums over a batch that several processes share; of one process, return them.

    All processes must go on to compute the same from the results, and average their gradients, as
    ``DistributedDataParallel`` does: the average is then the gradient of the whole batch.

    Args:
        sums: Tensors of one shape.
    """
    together = distributed.is_available() and distributed.is_initialized()
    if not together or distributed.get_world_size() == 1:
        return sums
    totals: Tensor = _Total.apply(torch.stack(sums))  # type: ignore[no-untyped-call]
    return totals.unbind()


class _Total(torch.autograd.Function):
    """A sum over processes: what one of them adds moves the losses of all by the same."""

    @staticmethod
    def forward(ctx: Any, sums: Tensor) -> Tensor:
        totals = sums.clone()
        distributed.all_reduce(totals)
        return totals

    @staticmethod
    def backward(ctx: Any, gradients: Tensor) -> Tensor:
        return gradients * distributed.get_world_size()


def soft_dice(
    p: Tensor,
    truth: Tensor,
    *,
    smooth: float | tuple[float, float],
    squared: bool = False,
    batch: bool = True,
) -> Tensor:
    """Return one minus the soft Dice of each class.

    With sums over voxels, n and d being ``smooth``, and q = 2 if ``squared``, else 1::

        1 - (2 sum p y + n) / (sum p^q + sum y + d)

    A class that is neither in the truth nor, to the last digit, in the prediction costs 0. Where n
    exceeds d, the loss of a class that is hardly predicted and not there has no lower bound.

    Args:
        p: Probabilities ``(B, K, *S)``, 0 at ignored voxels.
        truth: Masks of the same shape, bool, false at ignored voxels.
        smooth: n and d; one number is both.
        squared: Whether probabilities are squared in the denominator.
        batch: Whether sums run over the batch too, that of all processes.

    Returns:
        ``(K,)``, or ``(B, K)`` if not ``batch``.
    """
    axes = (0, *spatial_axes(p)) if batch else spatial_axes(p)
    n, d = smooth if isinstance(smooth, tuple) else (smooth, smooth)
    overlap = (p * truth).sum(axes)
    total = (p.square() if squared else p).sum(axes) + truth.sum(axes)
    if batch:
        overlap, total = over_processes(overlap, total)
    nothing = total == 0
    loss = 1 - (2 * overlap + n) / (total + d + nothing)
    return loss.masked_fill(nothing, 0.0)


def mean_of_known(losses: Tensor, known: Tensor) -> Tensor:
    """Return the mean over images and classes with a voxel that counts; 0 where there is none.

    Args:
        losses: ``(B, K)``, of each image.
        known: Which voxels count, ``(B, K, *S)``, or ``(B, 1, *S)`` of all classes alike.
    """
    counts = known.flatten(2).any(dim=2).expand_as(losses)
    total, count = over_processes((losses * counts).sum(), counts.sum())
    return total / count.clamp(min=1)

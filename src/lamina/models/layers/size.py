"""Making sizes fit: resize a map to another grid; pad an input and crop the output back."""

import torch
from torch import Tensor
from torch.nn import functional as F

_LINEAR = {4: "bilinear", 5: "trilinear"}


def resize(x: Tensor, size: torch.Size) -> Tensor:
    """Interpolate ``(B, C, *S)`` linearly to spatial ``size``; the grids share their edges."""
    if x.shape[2:] == size:
        return x
    return F.interpolate(x, size=size, mode=_LINEAR[x.dim()], align_corners=False)


def pad_to_multiple(x: Tensor, divisor: int) -> Tensor:
    """Repeat the last voxels of ``(B, C, *S)`` until every size is a multiple of ``divisor``."""
    missing = [-size % divisor for size in x.shape[2:]]
    if not any(missing):
        return x
    # F.pad counts axes from the last and wants the pad before and after each.
    pad = [amount for axis in reversed(missing) for amount in (0, axis)]
    return F.pad(x, pad, mode="replicate")


def pad_to_two(x: Tensor, divisor: int) -> Tensor:
    """Do the same, and make the last axis two multiples long where every side would be one.

    Where the deepest map is a single voxel, there is no space left to normalise over.
    """
    padded = pad_to_multiple(x, divisor)
    if max(padded.shape[2:]) > divisor:
        return padded
    return F.pad(padded, (0, divisor, *(0, 0) * (x.dim() - 3)), mode="replicate")


def pad_to_train(x: Tensor, divisor: int, training: bool) -> Tensor:
    """Pad for batch normalisation: to two multiples where a lone image trains, else to one."""
    return (pad_to_two if training and len(x) == 1 else pad_to_multiple)(x, divisor)


def crop_to(x: Tensor, size: torch.Size) -> Tensor:
    """Undo any padding: keep the first ``size`` voxels of every spatial axis."""
    for axis, length in enumerate(size, start=2):
        x = x.narrow(axis, 0, length)
    return x

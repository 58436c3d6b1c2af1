"""Training patches as torch reads them."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from lamina.data.augment import Augmentation, augment
from lamina.data.cache import PreparedCase
from lamina.data.sampling import PatchSampler, random_for


@dataclass(frozen=True, kw_only=True)
class PatchDataset(Dataset[tuple[Tensor, Tensor]]):
    """Patches numbered ``step * batch_size + slot``; each number always means the same patch."""

    sampler: PatchSampler
    augmentation: Augmentation
    mirror_axes: tuple[int, ...]

    @property
    def spatial_dims(self) -> int:
        """Number of spatial axes of a patch."""
        return len(self.sampler.patch_size)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return image ``(C, *patch)`` float32 and class indices ``(*patch)`` uint8."""
        step, slot = divmod(number, self.sampler.batch_size)
        rng = random_for(self.sampler.seed, step, slot)
        case = self.sampler.case_for(step, slot)
        image, label = cut(case, self.sampler.start_for(case, rng), self.sampler.patch_size)
        moved, classes = augment(
            torch.from_numpy(image),
            torch.from_numpy(label),
            self.augmentation,
            case.spacing,
            self.mirror_axes,
            rng,
        )
        return moved, classes[0]


class StepSampler(Sampler[list[int]]):
    """Batches from one step of a run to another, as lists of patch numbers.

    Args:
        first_step: Steps done already.
        last_step: Where the run ends.
        batch_size: Patches per batch.
    """

    def __init__(self, first_step: int, last_step: int, batch_size: int) -> None:
        self.steps = range(first_step, last_step)
        self.batch_size = batch_size

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            first = step * self.batch_size
            yield list(range(first, first + self.batch_size))


def ignore_ctrl_c(worker: int) -> None:
    """Make a loader process deaf to Ctrl-C, which a terminal sends to all processes of a run.

    The main process answers it, and needs patches until it has finished its step.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def cut(
    case: PreparedCase, start: tuple[int, ...], patch_size: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut image ``(C, *patch)`` and label ``(1, *patch)``, continuing the case at its edges."""
    image, label = case.image, case.label
    size = label.shape[1:]
    ends = [low + length for low, length in zip(start, patch_size, strict=True)]
    inside = tuple(
        slice(max(0, low), min(end, length))
        for low, end, length in zip(start, ends, size, strict=True)
    )
    missing = [(0, 0)] + [
        (max(0, -low), max(0, end - length))
        for low, end, length in zip(start, ends, size, strict=True)
    ]
    image, label = image[(slice(None), *inside)], label[(slice(None), *inside)]
    return np.pad(image, missing, mode="edge"), np.pad(label, missing, mode="edge")

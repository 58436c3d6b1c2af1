"""Training patches as torch reads them.

A patch that is turned, zoomed or bent is sampled from its case at once: what comes into view at its
edges is the case's own anatomy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset, Sampler

from lamina.data.augment import Augmentation, change_intensities
from lamina.data.cache import PreparedCase
from lamina.data.motion import Motion, draw_motion
from lamina.data.sampling import PatchSampler, random_for
from lamina.data.workers import startable
from lamina.signals import ignore_terminal


@dataclass(frozen=True, kw_only=True)
class PatchDataset(Dataset[tuple[Tensor, Tensor]]):
    """Patches numbered ``step * batch_size + slot``; each number always means the same patch."""

    sampler: PatchSampler
    augmentation: Augmentation
    mirror_axes: tuple[int, ...]
    """Axes along which mirrored anatomy is plausible; ``augmentation.mirror_axes`` overrules it."""
    side_axis: int | None = None
    """The axis that runs between left and right."""
    side_pairs: tuple[tuple[int, int], ...] = ()
    """Classes that take each other's place in a patch mirrored along ``side_axis``."""
    slice_axis: int | None = None
    """Axis of the case whose slices are the patches; all other axes are counted without it."""
    untouched_channels: int = 0
    """Channels at the end that move with the image and keep their values: attention maps."""

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return image ``(C, *patch)`` float32 and class indices ``(*patch)`` uint8."""
        step, slot = divmod(number, self.sampler.batch_size)
        rng = random_for(self.sampler.seed, step, slot)
        whole, start = self.sampler.place_for(step, slot, rng)
        size = self.sampler.patch_size
        case: PreparedCase | CaseSlice = whole
        if self.slice_axis is not None:
            case = CaseSlice(whole, self.slice_axis, start[self.slice_axis])
            start, size = (without(sides, self.slice_axis) for sides in (start, size))
        chosen = self.augmentation.mirror_axes
        axes = self.mirror_axes if chosen is None else chosen
        motion = draw_motion(self.augmentation, size, case.spacing, axes, rng)
        image, label = cut_moved(case, start, size, motion)
        if self.side_axis in motion.flips:
            label = exchange(label, self.side_pairs)
        image = change_intensities(image, self.augmentation, rng, self.untouched_channels)
        return image, label[0]


@dataclass(frozen=True)
class CaseSlice:
    """One slice of a prepared case, as an image."""

    case: PreparedCase
    axis: int
    """Spatial axis across the slices."""
    index: int

    def read(self, box: Sequence[slice | int]) -> NDArray[np.float32]:
        """Return what a network sees of a box: image, then any maps."""
        return self.case.read((*box[: self.axis], self.index, *box[self.axis :]))

    @property
    def label(self) -> NDArray[np.uint8]:
        """Class indices ``(1, *S)``."""
        label: NDArray[np.uint8] = self.case.label[_at_index(self.axis, self.index)]
        return label

    @property
    def spacing(self) -> tuple[float, ...]:
        """Pixel size in mm."""
        return without(self.case.spacing, self.axis)


Entry = TypeVar("Entry")


def without(entries: tuple[Entry, ...], axis: int) -> tuple[Entry, ...]:
    """Return one entry per axis of a slice, given one per axis of its case."""
    return entries[:axis] + entries[axis + 1 :]


class StepSampler(Sampler[list[int]]):
    """Batches from one step of a run to another, as lists of patch numbers.

    Args:
        first_step: Steps done already.
        last_step: Where the run ends.
        batch_size: Patches per batch.
        rank: Which of the processes asks, that share each batch.
        count: How many they are; divides ``batch_size``.
    """

    def __init__(
        self, first_step: int, last_step: int, batch_size: int, *, rank: int = 0, count: int = 1
    ) -> None:
        self.steps = range(first_step, last_step)
        self.batch_size = batch_size
        share = batch_size // count
        self.slots = range(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps:
            yield [step * self.batch_size + slot for slot in self.slots]


def _at_index(axis: int, index: int) -> tuple[slice | int, ...]:
    """Return what picks one slice of ``(C, *S)`` without reading the others."""
    return (*[slice(None)] * (1 + axis), index)


def _leave_terminal(worker: int) -> None:
    """Let the main process answer the terminal: it needs patches until its step is finished."""
    ignore_terminal()


def loading(workers: int, device: str) -> dict[str, Any]:
    """Return how torch's loader is to bring samples to the device, with so many processes.

    Where processes cannot be started, it does so in this one.
    """
    workers = startable(workers)
    return {
        "num_workers": workers,
        "pin_memory": device != "cpu",
        "persistent_workers": workers > 0,
        "multiprocessing_context": "spawn" if workers else None,
        "worker_init_fn": _leave_terminal,
    }


def cut(
    case: PreparedCase | CaseSlice, start: tuple[int, ...], patch_size: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """Cut image ``(C, *patch)`` and label ``(1, *patch)``, continuing the case at its edges."""
    label = case.label
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
    image, label = case.read(inside), label[(slice(None), *inside)]
    return np.pad(image, missing, mode="edge"), np.pad(label, missing, mode="edge")


def cut_moved(
    case: PreparedCase | CaseSlice,
    start: tuple[int, ...],
    patch_size: tuple[int, ...],
    motion: Motion,
) -> tuple[Tensor, Tensor]:
    """Cut image ``(C, *patch)`` and label ``(1, *patch)`` as they lie under ``motion``.

    The image is interpolated linearly, the label takes the nearest voxel; beyond its edges the case
    is continued.
    """
    if motion.matrix is None:
        image, label = map(torch.from_numpy, cut(case, start, patch_size))
    else:
        image, label = _sampled(case, start, patch_size, motion)
    if motion.flips:
        flips = [1 + axis for axis in motion.flips]
        image, label = image.flip(flips), label.flip(flips)
    if motion.turn:
        times, first, second = motion.turn
        plane = (1 + first, 1 + second)
        image, label = image.rot90(times, plane), label.rot90(times, plane)
    return image, label


def exchange(label: Tensor, pairs: Sequence[tuple[int, int]]) -> Tensor:
    """Return a label map, uint8, in which the classes of each pair have changed places."""
    table = np.arange(256, dtype=np.uint8)
    for low, high in pairs:
        table[[low, high]] = high, low
    return torch.from_numpy(table[label.numpy()])


def _sampled(
    case: PreparedCase | CaseSlice,
    start: tuple[int, ...],
    patch_size: tuple[int, ...],
    motion: Motion,
) -> tuple[Tensor, Tensor]:
    """Sample the patch's voxels from the part of the case that they reach."""
    assert motion.matrix is not None
    classes, spacing = case.label, np.array(case.spacing)
    matrix = motion.matrix * spacing / spacing[:, None]  # from mm to voxels on both sides
    offsets = _offsets(patch_size, spacing, motion)
    reach = np.abs(matrix) @ [float(offset.abs().max()) for offset in offsets]
    box, grid = [], torch.empty(*patch_size, len(patch_size))
    for axis, length in enumerate(classes.shape[1:]):
        centre = start[axis] + (patch_size[axis] - 1) / 2
        low = min(max(0, floor(centre - reach[axis])), length - 1)
        high = max(min(length, ceil(centre + reach[axis]) + 1), low + 1)
        box.append(slice(low, high))
        # grid_sample counts from -1 to 1 between the outer edges of a box, last axis first.
        scale = 2 / (high - low)
        place = (2 * (centre - low) + 1) / (high - low) - 1
        moved = [float(scale * x) * offset for x, offset in zip(matrix[axis], offsets, strict=True)]
        grid[..., -1 - axis] = sum(moved[1:], moved[0] + place)
    image = torch.from_numpy(case.read(box))
    label = torch.from_numpy(classes[(slice(None), *box)].astype(np.float32))
    return _at(image, grid, "bilinear"), _at(label, grid, "nearest").to(torch.uint8)


def _at(values: Tensor, grid: Tensor, mode: str) -> Tensor:
    return functional.grid_sample(
        values[None], grid[None], mode=mode, padding_mode="border", align_corners=False
    )[0]


def _offsets(
    patch_size: tuple[int, ...], spacing: NDArray[np.float64], motion: Motion
) -> list[Tensor]:
    """Return how far from the patch's centre each voxel lies along each axis, in voxels, bent.

    Shapes broadcast to the patch.
    """
    dims = len(patch_size)
    lines = [torch.arange(size) - (size - 1) / 2 for size in patch_size]
    offsets = [
        line.reshape([-1 if other == axis else 1 for other in range(dims)])
        for axis, line in enumerate(lines)
    ]
    if motion.shifts is None:
        return offsets
    field = motion.shifts
    for size, step in zip(patch_size, spacing, strict=True):
        weights = _spline_weights(size, float(step) / motion.grid_mm, field.shape[1])
        # Not by matrix product: its rounding may depend on the number of threads.
        field = np.einsum("dg...,xg->d...x", field, weights)
    return [
        offset + torch.from_numpy(bend / float(step))
        for offset, bend, step in zip(offsets, field, spacing, strict=True)
    ]


def _spline_weights(size: int, step: float, count: int) -> NDArray[np.float32]:
    """Return the cubic B-spline weight of each control point at each voxel, ``(size, count)``.

    Args:
        size: Voxels along the axis.
        step: Voxel size as a share of the distance of control points.
        count: Control points, of which the second lies on the first voxel.
    """
    away = np.abs(np.arange(size)[:, None] * step + 1 - np.arange(count))
    near, far = 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6
    weights: NDArray[np.float32] = np.where(away < 1, near, far).astype(np.float32)
    return weights

"""From fingerprint to plan: each choice with its reason in one sentence."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from lamina.data.fingerprint import Fingerprint
from lamina.data.plan import Normalisation, Plan
from lamina.errors import ConfigError
from lamina.labels import LabelSet

_ANISOTROPIC = 3.0
_MAX_BATCH = 16
_NUM_FOLDS = 5
_BACKWARD = 3
"""Forward and backward pass take about this many times as long as the forward pass alone."""
_SIDE = re.compile(
    r"(?i:left|right|sinist|dext|(?<![a-z0-9])[lr][ht]?(?![a-z0-9]))|(?<=[a-z])[LR]$|^[LR](?=[A-Z][a-z])"
)
_NAMELESS = re.compile(r"label_-?\d+")


@dataclass(frozen=True, kw_only=True)
class NetworkCost:
    """What one training step of a network takes, measured on a small patch and linear in voxels."""

    size_divisor: int
    """Patch sides must be multiples of this many voxels."""
    bytes_per_voxel: float
    """Memory kept for the backward pass, per voxel of the patch and item of the batch."""
    seconds_per_voxel: float
    """Time of forward and backward pass on this machine, likewise."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the user grants; the plan stays within it."""

    memory_bytes: float
    """For one training step: main memory on a CPU, device memory on a GPU."""
    device: str = "memory"
    """What that memory is called in reasons: ``"memory"`` or ``"GPU memory"``."""
    time_s: float | None = None
    """For a whole training run; ``None`` leaves the schedule at its default length."""


def make_plan(
    fingerprint: Fingerprint, labels: LabelSet, network: str, cost: NetworkCost, budget: Budget
) -> Plan:
    """Decide how to prepare the scans and train on them.

    Raises:
        ConfigError: Not even the smallest patch fits into the budget.
    """
    reasons: dict[str, str] = {}
    spacing = _target_spacing(fingerprint, reasons)
    shape = fingerprint.median_shape(spacing)
    patch = _patch_size(shape, spacing, cost, budget, reasons)
    batch = _batch_size(patch, cost, budget, reasons)
    steps = _steps_per_epoch(len(fingerprint.cases), shape, patch, batch, reasons)
    step_s = cost.seconds_per_voxel * batch * prod(patch)
    epochs = _epochs(steps, step_s, budget, reasons)
    reasons["orientation"] = (
        f"Volumes are brought to {fingerprint.orientation} axis order so that anatomy always "
        "points the same way."
        if fingerprint.spatial_dims == 3
        else f"Most images run {fingerprint.orientation}; the others are turned to match."
    )
    reasons["region_based"] = "Structures exclude each other, so the network chooses one a voxel."
    reasons["roi_size"] = (
        "Prediction slides a window of the training patch's size, half overlapping."
    )
    return Plan(
        spatial_dims=fingerprint.spatial_dims,
        channels=fingerprint.channels,
        labels=labels,
        orientation=fingerprint.orientation,
        target_spacing=spacing,
        normalisation=_normalisation(fingerprint, reasons),
        network=network,
        patch_size=patch,
        roi_size=patch,
        batch_size=batch,
        mirror_axes=_mirror_axes(labels, fingerprint.orientation, reasons),
        epochs=epochs,
        steps_per_epoch=steps,
        estimates={
            "training_memory_gb": round(_step_bytes(patch, batch, cost) / 2**30, 3),
            "step_s": round(step_s, 3),
            "training_s": round(step_s * steps * epochs),
        },
        reasons=reasons,
    )


def _target_spacing(fingerprint: Fingerprint, reasons: dict[str, str]) -> tuple[float, ...]:
    spacing = list(fingerprint.median_spacing)
    fine, *_, coarsest = sorted(spacing)
    coarse = spacing.index(coarsest)
    if len({_rounded(case.spacing) for case in fingerprint.cases}) == 1:
        reasons["target_spacing"] = "All scans share this spacing; nothing is resampled."
    elif coarsest / fine > _ANISOTROPIC:
        # Never finer than the other axes: there is no such detail to keep.
        others = spacing[:coarse] + spacing[coarse + 1 :]
        spacing[coarse] = max(*others, fingerprint.spacing_percentile(coarse, 10))
        reasons["target_spacing"] = (
            f"Median spacing; axis {coarse} is over {_ANISOTROPIC:g} times coarser, so its finest "
            "tenth is taken to keep detail."
        )
    else:
        reasons["target_spacing"] = "The median spacing needs the least resampling."
    return _rounded(spacing)


def _rounded(spacing: Sequence[float]) -> tuple[float, ...]:
    """Keep six digits: a file's own rounding errors go, and grids still count as the same."""
    return tuple(float(f"{x:.6g}") for x in spacing)


def _normalisation(fingerprint: Fingerprint, reasons: dict[str, str]) -> tuple[Normalisation, ...]:
    chosen, why = [], []
    for channel, stats in zip(fingerprint.channels, fingerprint.foreground_intensity, strict=True):
        if channel.upper() == "CT":
            chosen.append(
                Normalisation(
                    scheme="ct",
                    low=stats["p00_5"],
                    high=stats["p99_5"],
                    mean=stats["mean"],
                    std=stats["std"],
                )
            )
            why.append(
                f"{channel}: Hounsfield units mean the same everywhere, one scale serves all."
            )
        else:
            chosen.append(Normalisation(scheme="zscore"))
            why.append(f"{channel}: units differ between scans, each is scaled by itself.")
    reasons["normalisation"] = " ".join(why)
    return tuple(chosen)


def _patch_size(
    shape: Sequence[int],
    spacing: Sequence[float],
    cost: NetworkCost,
    budget: Budget,
    reasons: dict[str, str],
) -> tuple[int, ...]:
    """Start from the whole scan and shorten the physically longest side until two patches fit."""
    divisor = cost.size_divisor
    patch = [max(divisor, divisor * round(size / divisor)) for size in shape]
    whole = tuple(patch)
    while _step_bytes(patch, 2, cost) > budget.memory_bytes:
        longest = max(
            (axis for axis in range(len(patch)) if patch[axis] > divisor),
            key=lambda axis: patch[axis] * spacing[axis],
            default=None,
        )
        if longest is None:
            raise ConfigError(
                f"memory budget {budget.memory_bytes / 2**30:.2f} GB: the smallest patch "
                f"{tuple(patch)} needs {_step_bytes(patch, 2, cost) / 2**30:.2f} GB for two.",
                remedy="Grant more memory or choose a smaller network.",
            )
        patch[longest] -= divisor
    size = " x ".join(str(n) for n in shape)
    reasons["patch_size"] = (
        f"The median scan is {size} voxels; this is the nearest multiple of {divisor}."
        if tuple(patch) == whole
        else f"The median scan is {size} voxels; this is what fits twice into "
        f"{budget.memory_bytes / 2**30:.1f} GB of {budget.device}."
    )
    return tuple(patch)


def _batch_size(
    patch: Sequence[int], cost: NetworkCost, budget: Budget, reasons: dict[str, str]
) -> int:
    """Aim at about 100,000 voxels a step: at equal cost, more steps beat larger ones."""
    wanted = max(2, min(_MAX_BATCH, round(100_000 / prod(patch))))
    fits = int(budget.memory_bytes // _step_bytes(patch, 1, cost))
    batch = max(2, min(wanted, fits))
    reasons["batch_size"] = (
        f"{batch} patches a step predict to {_step_bytes(patch, batch, cost) / 2**30:.2f} GB of "
        f"{budget.device}; many quick steps learn faster than few large ones."
    )
    return batch


def _steps_per_epoch(
    num_cases: int, shape: Sequence[int], patch: Sequence[int], batch: int, reasons: dict[str, str]
) -> int:
    """Let validation of a fifth of the scans, window by window, take about a tenth of the time."""
    windows = prod(
        1 + max(0, ceil((size - side) / (side / 2)))
        for size, side in zip(shape, patch, strict=True)
    )
    as_steps = num_cases / _NUM_FOLDS * windows / (_BACKWARD * batch)
    steps = min(500, max(50, ceil(10 * as_steps)))
    reasons["steps_per_epoch"] = (
        f"{steps * batch} patches of {num_cases} scans between validations, which then take about "
        "a tenth of the time."
    )
    return steps


def _epochs(steps: int, step_s: float, budget: Budget, reasons: dict[str, str]) -> int:
    default = ceil(15_000 / steps)
    if budget.time_s is None:
        reasons["epochs"] = f"{default * steps:,} steps; --epochs or --time-budget change it."
        return default
    affordable = max(1, int(0.9 * budget.time_s / (step_s * steps)))
    epochs = min(default, affordable)
    reasons["epochs"] = (
        f"{budget.time_s / 60:.0f} minutes allow about {affordable * steps:,} steps of "
        f"{step_s:.2f} s here, a tenth being kept for validation."
    )
    return epochs


def _mirror_axes(labels: LabelSet, orientation: str, reasons: dict[str, str]) -> tuple[int, ...]:
    """Mirror left and right at most: no patient stands on the head, or has the back in front."""
    sided = [name for name in labels.foreground if _SIDE.search(name)]
    if sided:
        reasons["mirror_axes"] = f"Never mirrored: {sided[0]!r} names a side of the body."
        return ()
    if len(labels.foreground) > 1 and any(map(_NAMELESS.fullmatch, labels.foreground)):
        reasons["mirror_axes"] = "Never mirrored: structures without a name may be left and right."
        return ()
    reasons["mirror_axes"] = (
        "Left and right only: no label names a side, and other mirror images do not occur."
    )
    return tuple(axis for axis, code in enumerate(orientation) if code in "LR")


def _step_bytes(patch: Sequence[int], batch: int, cost: NetworkCost) -> float:
    return cost.bytes_per_voxel * batch * prod(patch)

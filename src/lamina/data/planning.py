"""From fingerprint to plan: each choice with its reason in one sentence."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

from lamina.data.fingerprint import Fingerprint
from lamina.data.plan import Normalisation, Plan
from lamina.errors import ConfigError
from lamina.labels import LabelSet

_ANISOTROPIC = 3.0
_MAX_BATCH = 16
_SIDE_WORDS = ("left", "right")


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
    steps = _steps_per_epoch(len(fingerprint.cases), batch, reasons)
    step_s = cost.seconds_per_voxel * batch * prod(patch)
    epochs = _epochs(steps, step_s, budget, reasons)
    reasons["orientation"] = (
        f"Volumes are brought to {fingerprint.orientation} axis order so that anatomy always "
        "points the same way."
        if fingerprint.spatial_dims == 3
        else f"Most images run {fingerprint.orientation}; the others are turned to match."
    )
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
        mirror_axes=_mirror_axes(labels, fingerprint.spatial_dims, reasons),
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
    median = list(fingerprint.median_spacing)
    coarse = median.index(max(median))
    if max(median) / min(median) > _ANISOTROPIC:
        median[coarse] = fingerprint.spacing_percentile(coarse, 10)
        reasons["target_spacing"] = (
            f"Median spacing; axis {coarse} is over {_ANISOTROPIC:g} times coarser, so its finest "
            "tenth is taken to keep detail."
        )
    elif len({case.spacing for case in fingerprint.cases}) == 1:
        reasons["target_spacing"] = "All scans share this spacing; nothing is resampled."
    else:
        reasons["target_spacing"] = "The median spacing needs the least resampling."
    return tuple(round(x, 4) for x in median)


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
    """Aim at about 200,000 voxels a step, within memory: steady gradients, quick steps."""
    wanted = max(2, min(_MAX_BATCH, round(200_000 / prod(patch))))
    fits = int(budget.memory_bytes // _step_bytes(patch, 1, cost))
    batch = max(2, min(wanted, fits))
    reasons["batch_size"] = (
        f"{batch} patches a step predict to {_step_bytes(patch, batch, cost) / 2**30:.2f} GB of "
        f"{budget.device}; many quick steps learn faster than few large ones."
    )
    return batch


def _steps_per_epoch(num_cases: int, batch: int, reasons: dict[str, str]) -> int:
    steps = min(250, max(25, ceil(num_cases / batch)))
    reasons["steps_per_epoch"] = (
        f"About one patch from each of {num_cases} scans between validations."
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


def _mirror_axes(labels: LabelSet, dims: int, reasons: dict[str, str]) -> tuple[int, ...]:
    sided = [n for n in labels.foreground if any(word in n.lower() for word in _SIDE_WORDS)]
    if sided:
        reasons["mirror_axes"] = f"Never mirrored: {sided[0]!r} names a side of the body."
        return ()
    reasons["mirror_axes"] = "No label names a side, so mirrored anatomy is as good as new anatomy."
    return tuple(range(dims))


def _step_bytes(patch: Sequence[int], batch: int, cost: NetworkCost) -> float:
    return cost.bytes_per_voxel * batch * prod(patch)

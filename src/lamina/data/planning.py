"""From fingerprint to plan: each choice with its reason in one sentence."""

import re
from collections.abc import Iterable, Sequence

from lamina.data.budget import Budget, NetworkCost, Scans
from lamina.data.fingerprint import CaseFacts, Fingerprint
from lamina.data.fitting import choose
from lamina.data.plan import ASKED, Normalisation, Plan
from lamina.data.preprocess import LOOK_AT_SPACING, misfit
from lamina.data.sides import lone_sides, side_pairs
from lamina.errors import ConfigError
from lamina.labels import LabelSet

_ANISOTROPIC = 3.0
_NAMELESS = re.compile(r"label_-?\d+")


def make_plan(
    fingerprint: Fingerprint,
    labels: LabelSet,
    candidates: Iterable[NetworkCost],
    budget: Budget,
    asked_spacing: Sequence[float] | None = None,
) -> Plan:
    """Decide how to prepare the scans and train on them.

    Args:
        fingerprint: What the scans are.
        labels: The structures.
        candidates: Networks to choose from, strongest first; as many as needed are looked at.
        budget: What training may take.
        asked_spacing: Voxel size in mm that was asked for; one number per axis.

    Raises:
        ConfigError: Not even the smallest patch fits into the budget, or the spacing asked for has
            another number of axes than the scans.
    """
    reasons: dict[str, str] = {}
    spacing = _target_spacing(fingerprint, asked_spacing, reasons)
    scans = Scans(
        median_shape=fingerprint.median_shape(spacing),
        spacing=spacing,
        shapes=fingerprint.shapes(spacing),
    )
    fit = choose(candidates, scans, budget)
    reasons["orientation"] = _why_orientation(fingerprint)
    scored = "; the regions are made of what it chooses" if labels.regions else ""
    reasons["region_based"] = (
        f"Structures exclude each other, so the network chooses one a voxel{scored}."
    )
    reasons["precision"] = "Not rehearsed; bf16 is taken where its steps prove clearly faster."
    reasons["channels_last"] = "Taken for images on a CPU, where a rehearsal finds it faster."
    reasons["roi_size"] = (
        "Prediction slides a window of the training patch's size, half overlapping."
    )
    return Plan(
        spatial_dims=fingerprint.spatial_dims,
        channels=fingerprint.channels,
        labels=labels,
        orientation=fingerprint.orientation,
        target_spacing=spacing,
        unit=fingerprint.unit,
        normalisation=_normalisation(fingerprint, reasons),
        network=fit.cost.network,
        network_options=fit.cost.network_options,
        slice_axis=fit.slice_axis,
        patch_size=fit.patch_size,
        roi_size=fit.patch_size,
        batch_size=fit.batch_size,
        mirror_axes=_mirror_axes(labels, fingerprint.orientation, reasons),
        epochs=fit.epochs,
        steps_per_epoch=fit.steps_per_epoch,
        estimates={
            "training_memory_gb": round((budget.program_bytes + fit.step_bytes) / 2**30, 3),
            "step_s": round(fit.step_s, 4),
            "epoch_s": round(fit.epoch_s, 2),
            "training_s": round(fit.epoch_s * fit.epochs),
        },
        given_up=fit.given_up,
        reasons=reasons | fit.reasons,
    )


def misfits(cases: Iterable[CaseFacts], plan: Plan) -> dict[str, str]:
    """Return the cases whose voxels are too unlike the plan's to be resampled, and why, by id."""
    found = {case.case_id: misfit(case.spacing, plan) for case in cases}
    return {case: f"{why} {LOOK_AT_SPACING}" for case, why in found.items() if why}


def _target_spacing(
    fingerprint: Fingerprint, asked: Sequence[float] | None, reasons: dict[str, str]
) -> tuple[float, ...]:
    if asked is not None:
        numbers = not isinstance(asked, str)
        if not numbers or len(asked) != fingerprint.spatial_dims or min(asked) <= 0:
            raise ConfigError(
                f"spacing = {asked!r}: {fingerprint.spatial_dims} sizes above 0 are needed, one "
                f"for each axis of {fingerprint.orientation}."
            )
        reasons["target_spacing"] = ASKED
        return _rounded(asked)
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


def _why_orientation(found: Fingerprint) -> str:
    if found.spatial_dims == 3:
        return (
            f"Volumes are brought to {found.orientation} axis order so that anatomy always points "
            "the same way."
        )
    if found.unit == "px":
        return "Pictures are taken as they are seen."
    return f"Most images run {found.orientation}; the others are turned to match."


def _mirror_axes(labels: LabelSet, orientation: str, reasons: dict[str, str]) -> tuple[int, ...]:
    """Mirror left and right at most: no patient stands on the head, or has the back in front."""
    if alone := lone_sides(labels):
        reasons["mirror_axes"] = (
            f"Never mirrored: {alone[0]!r} names a side of the body and has no mirror image."
        )
        return ()
    if len(labels.foreground) > 1 and any(map(_NAMELESS.fullmatch, labels.foreground)):
        reasons["mirror_axes"] = "Never mirrored: structures without a name may be left and right."
        return ()
    reasons["mirror_axes"] = (
        "Left and right only: labels of the two sides change places."
        if side_pairs(labels)
        else "Left and right only: no label names a side, and other mirror images do not occur."
    )
    return tuple(axis for axis, code in enumerate(orientation) if code in "LR")

"""How long a run is: the steps between two validations, and the epochs."""

from collections.abc import Sequence
from dataclasses import replace
from math import ceil, prod

from lamina.data.budget import Budget, Fit, NetworkCost, Scans

FULL_STEPS = 15_000
"""Of a run that nobody has set a time for."""
_NUM_FOLDS = 5
_LEAST_VALIDATIONS = 10
"""Validations of a full run that the best epoch is chosen from, at least."""
_LEAST_STEPS_PER_EPOCH = 50
"""Steps between two validations, at least."""


def num_windows(scans: Scans, patch: Sequence[int]) -> int:
    """Count the half overlapping windows of a fifth of the scans."""
    steps = [max(1, side // 2) for side in patch]
    windows = sum(
        prod(
            1 + max(0, ceil((size - side) / step))
            for size, side, step in zip(shape, patch, steps, strict=True)
        )
        for shape in scans.shapes
    )
    return ceil(windows / _NUM_FOLDS)


def steps_per_epoch(windows: int, batch: int, cost: NetworkCost) -> int:
    """Let validation of a fifth of the scans, window by window, take about a tenth of the time.

    More where a tenth would leave too few validations to choose the best epoch from.
    """
    as_steps = windows * cost.predict_seconds_per_voxel / (batch * cost.seconds_per_voxel)
    return min(FULL_STEPS // _LEAST_VALIDATIONS, max(_LEAST_STEPS_PER_EPOCH, ceil(10 * as_steps)))


def within(fit: Fit, budget: Budget, given_up: list[str]) -> Fit:
    """Give a run as many epochs as its time allows, and these as many steps as fill it."""
    if budget.time_s is None:
        steps = fit.epochs * fit.steps_per_epoch
        return _because(fit, f"{steps:,} steps; --epochs or --time-budget change it.")
    epochs = min(fit.epochs, max(1, int(budget.time_s / fit.epoch_s)))
    filling = int((budget.time_s / epochs - fit.validation_s) / fit.step_s)
    if epochs < fit.epochs and filling >= _LEAST_STEPS_PER_EPOCH:
        fit = replace(fit, steps_per_epoch=min(filling, FULL_STEPS // epochs))
    if fit.epoch_s > budget.time_s:
        why = (
            f"One epoch takes {spoken(fit.epoch_s)}, longer than the {spoken(budget.time_s)} "
            "granted; train with --time-budget to stop within one."
        )
    else:
        steps = epochs * fit.steps_per_epoch
        why = f"{spoken(budget.time_s)} allow about {steps:,} steps of {fit.step_s:.2f} s here."
    if (steps := epochs * fit.steps_per_epoch) < FULL_STEPS:
        given_up.append(f"The full length of {FULL_STEPS:,} steps: time allows {steps:,}.")
    return _because(replace(fit, epochs=epochs), why)


def _because(fit: Fit, why: str) -> Fit:
    """Add the reasons of the length to those of a fit."""
    patches, share = fit.steps_per_epoch * fit.batch_size, fit.validation_s / fit.epoch_s
    between = (
        f"{patches:,} patches between validations, which then take about "
        f"{max(1, round(100 * share))} % of the time."
    )
    return replace(fit, reasons={**fit.reasons, "steps_per_epoch": between, "epochs": why})


def spoken(seconds: float) -> str:
    """Return a duration in the unit that suits it."""
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    if seconds < 100 * 60:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"

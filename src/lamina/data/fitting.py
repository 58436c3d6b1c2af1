"""What a budget of memory and time allows: network, patch, batch, and how long to train."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import ceil, prod

from lamina.data.budget import Budget, Fit, NetworkCost, Scans
from lamina.data.length import FULL_STEPS, num_windows, spoken, steps_per_epoch, within
from lamina.errors import ConfigError

_MAX_BATCH = 16
_LEAST_STEPS = 3_000
"""Fewer leave a network far from what it can reach: the thin ones are then within a point of Dice
of their plateau on small scans."""
_LEAST_SIDE = {2: 128, 3: 64}
"""Voxels per side below which a patch is not shortened to save time: too little is left to see."""
_UNSEEN = {2: 0.1, 3: 0.49}
"""Share of the network's divisor by which the median scan, of so many axes, may be larger than a
patch of it all. Structures may fill a picture (HC18: half a point of Dice); around those of
volumes, and of their slices, there is room."""
_MOST_VOXELS = {2: 512**2, 3: 128**3}
"""Voxels above which a patch hardly shows more, and every step takes longer."""
_NIGHT_S = 12 * 3600
"""A run that nobody has set a time for is to end by the morning, if its patch can help it."""
_TRAINING = 0.9
"""Share of a run that is not validation."""


def choose(candidates: Iterable[NetworkCost], scans: Scans, budget: Budget) -> Fit:
    """Return the first of the candidates, strongest first, that the budget lets learn enough.

    Where time is too short for all, it is the last one that fits into the memory.

    Raises:
        ConfigError: Not even the smallest patch of any of them fits into the memory.
    """
    passed: list[str] = []
    chosen: Fit | None = None
    for cost in candidates:
        try:
            fit = fit_network(cost, scans, budget)
        except ConfigError as error:
            refusal = error
            passed.append(f"{cost.title}: its smallest patch does not fit into the memory.")
            continue
        chosen = fit
        if budget.time_s is None or _LEAST_STEPS * fit.step_s <= _TRAINING * budget.time_s:
            why = "The strongest network that the budget lets learn enough."
            break
        passed.append(
            f"{cost.title}: {_LEAST_STEPS:,} steps, the least that is of use, take "
            f"{spoken(_LEAST_STEPS * fit.step_s)}."
        )
        why = "The quickest network; time is too short even for this one to learn all it could."
    if chosen is None:
        raise refusal
    if not passed and budget.time_s is None:
        why = "The default for such scans; a --time-budget may allow a stronger one."
    reasons = {"network": why, **chosen.reasons}
    return replace(chosen, reasons=reasons, given_up=(*passed, *chosen.given_up))


def fit_network(cost: NetworkCost, scans: Scans, budget: Budget) -> Fit:
    """Choose patch, batch and length of training for one network.

    Raises:
        ConfigError: The smallest patch does not fit into the memory.
    """
    reasons: dict[str, str] = {}
    given_up: list[str] = []
    slice_axis = _slice_axis(cost, scans, reasons)
    patch = _patch_size(cost, scans, slice_axis, budget, reasons, given_up)
    batch = _batch_size(patch, cost, budget, reasons)
    windows = num_windows(scans, patch)
    steps = steps_per_epoch(windows, batch, cost)
    fit = Fit(
        cost=cost,
        slice_axis=slice_axis,
        patch_size=patch,
        batch_size=batch,
        steps_per_epoch=steps,
        epochs=ceil(FULL_STEPS / steps),
        windows=windows,
        reasons=reasons,
        given_up=(),
    )
    fit = within(fit, budget, given_up)
    return replace(fit, given_up=tuple(given_up))


def _slice_axis(cost: NetworkCost, scans: Scans, reasons: dict[str, str]) -> int | None:
    if cost.spatial_dims == len(scans.spacing):
        reasons["slice_axis"] = "The network sees as many axes as the scans have."
        return None
    reasons["slice_axis"] = (
        f"The network sees slices, cut across axis {scans.slice_axis}, along which neighbours are "
        f"{scans.spacing[scans.slice_axis]:.3g} mm apart."
    )
    return scans.slice_axis


def _patch_size(
    cost: NetworkCost,
    scans: Scans,
    slice_axis: int | None,
    budget: Budget,
    reasons: dict[str, str],
    given_up: list[str],
) -> tuple[int, ...]:
    """Start from the whole scan and shorten the physically longest side until it fits."""
    divisor, least = cost.size_divisor, _LEAST_SIDE[cost.spatial_dims]
    unseen = _UNSEEN[len(scans.spacing)]
    whole = tuple(
        1 if axis == slice_axis else divisor * max(1, ceil(size / divisor - unseen))
        for axis, size in enumerate(scans.median_shape)
    )

    def is_small(patch: Sequence[int]) -> bool:
        fits = prod(patch) <= _MOST_VOXELS[cost.spatial_dims]
        return fits and cost.step_bytes(patch, 2) <= budget.step_bytes

    def is_quick(patch: Sequence[int]) -> bool:
        return _in_time(cost.step_s(patch, 2), budget)

    fitting = _shortened(whole, scans, divisor, divisor, is_small)
    if not is_small(fitting):
        raise ConfigError(
            f"memory budget {budget.step_bytes / 2**30:.2f} GB: the smallest patch "
            f"{fitting} needs {cost.step_bytes(fitting, 2) / 2**30:.2f} GB for two.",
            remedy="Grant more memory or choose a smaller network.",
        )
    patch = _shortened(fitting, scans, divisor, least, is_quick)
    size = " x ".join(str(n) for n in scans.median_shape)
    if patch == whole:
        sides = zip(patch, scans.median_shape, strict=True)
        holds = all(axis == slice_axis or n >= side for axis, (n, side) in enumerate(sides))
        this = "what holds it" if holds else "the nearest"
        reasons["patch_size"] = (
            f"The median scan is {size} voxels; this is {this} in multiples of {divisor}."
        )
        return patch
    because = f"what {budget.step_bytes / 2**30:.1f} GB of {budget.device} hold twice"
    if not is_quick(patch):
        because = f"{least} voxels a side, below which too little is seen, though time is short"
    elif patch != fitting:
        granted = "the time granted" if budget.time_s else "a night"
        because = f"what {granted} allows {_fewest_steps(budget):,} steps of, two patches each"
    elif cost.step_bytes(whole, 2) <= budget.step_bytes:
        because = "as large as is of use: more hardly shows more, and slows every step"
    reasons["patch_size"] = f"The median scan is {size} voxels; this is {because}."
    seen = 100 * prod(patch) / prod(whole)
    why = "more does not fit" if patch == fitting else "more takes too long"
    given_up.append(f"Patches of whole scans: each sees {seen:.0f} % of one; {why}.")
    return patch


def _in_time(step_s: float, budget: Budget) -> bool:
    return _fewest_steps(budget) * step_s <= _TRAINING * (budget.time_s or _NIGHT_S)


def _fewest_steps(budget: Budget) -> int:
    """Return how many steps patches and batches must leave time for."""
    return _LEAST_STEPS if budget.time_s else FULL_STEPS


def _shortened(
    patch: tuple[int, ...],
    scans: Scans,
    divisor: int,
    least: int,
    fits: Callable[[Sequence[int]], bool],
) -> tuple[int, ...]:
    """Shorten the physically longest side, never below ``least``, until ``fits(patch)``."""
    sides = list(patch)
    while not fits(sides):
        longest = max(
            (axis for axis in range(len(sides)) if sides[axis] - divisor >= least),
            key=lambda axis: sides[axis] * scans.spacing[axis],
            default=None,
        )
        if longest is None:
            break
        sides[longest] -= divisor
    return tuple(sides)


def _batch_size(
    patch: Sequence[int], cost: NetworkCost, budget: Budget, reasons: dict[str, str]
) -> int:
    """Aim at about 100,000 voxels a step: at equal cost, more steps beat larger ones."""
    wanted = max(2, min(_MAX_BATCH, round(100_000 / prod(patch))))
    fits = int(budget.step_bytes // cost.step_bytes(patch, 1))
    batch = most = max(2, min(wanted, fits))
    while batch > 2 and not _in_time(cost.step_s(patch, batch), budget):
        batch -= 1
    total = (budget.program_bytes + cost.step_bytes(patch, batch)) / 2**30
    why = "many quick steps learn faster than few large ones"
    if batch < most:
        why = "more take too long"
    reasons["batch_size"] = (
        f"{batch} patches a step predict to {total:.2f} GB of {budget.device} in all; {why}."
    )
    return batch

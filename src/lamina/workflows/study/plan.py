"""What a study trains: the settings of its runs, which can be trained here, and for how long."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

from lamina.config import flat, layered
from lamina.data.plan import Plan
from lamina.errors import ConfigError, LaminaError, UnknownNameError
from lamina.files import read_json
from lamina.folders.run import read_history
from lamina.folders.transformer import transformer_for
from lamina.folders.work import WorkFolder
from lamina.models import NETWORKS
from lamina.models.complexity import complexity
from lamina.study.schema import Row, Study
from lamina.training.config import TrainConfig
from lamina.training.processes import require_one_process
from lamina.workflows import recipes
from lamina.workflows.steps.assembly import network_and_loss, network_of
from lamina.workflows.steps.settings import completed, run_settings
from lamina.workflows.study.runs import StudyRun, side_of

_SHORTEST_S = 1.0


def plan_runs(
    study: Study,
    out: Path,
    recipe: str,
    given: Mapping[str, Any],
    rows: Sequence[str] | None,
    seeds: Sequence[int],
    folds: Sequence[int],
) -> list[StudyRun]:
    """Return a run of every row, seed and fold.

    Raises:
        UnknownNameError: There is no such row.
        ConfigError: A row cannot be trained, a seed or fold comes twice, or ``given`` has a seed.
    """
    chosen = study.runnable
    for key in rows or ():
        if key not in study.rows:
            known = ", ".join(chosen)
            raise UnknownNameError(f"{study.name}: no row {key!r}.", remedy=f"It has {known}.")
        if key not in chosen:
            raise ConfigError(f"{study.name}: {key} cannot be trained: {study.rows[key].missing}")
    if "seed" in given:
        raise ConfigError("seed: a study takes its seeds from the list of seeds.")
    if len({*seeds}) < len(seeds) or len({*folds}) < len(folds):
        raise ConfigError("seeds, folds: one comes twice.")
    base = recipes.recipe(recipe) if recipe else {}
    return [
        StudyRun(
            row=key,
            seed=seed,
            fold=fold,
            settings=layered(settings_of(study, row, base, given), {"seed": seed}),
            out=out,
        )
        for key, row in chosen.items()
        if rows is None or key in rows
        for seed in seeds
        for fold in folds
    ]


def settings_of(
    study: Study, row: Row, recipe: Mapping[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """Lay a row's settings over the recipe's, and those that were given over both.

    Options of the recipe's network go with networks of its family alone.
    """
    base = dict(recipe)
    counts = study.in_channels, study.num_classes
    families = {type(NETWORKS.get(m)(*counts)) for m in (row.model, base.get("model")) if m}
    if len(families) > 1:
        base.pop("model_options", None)
    own = {"model": row.model, "model_options": dict(row.model_options)}
    return layered(base, own, study.settings, row.settings, given)


def refusal(folder: WorkFolder, run: StudyRun) -> str:
    """Return why a run cannot be trained on prepared scans; nothing where it can."""
    try:
        config, plan = run_settings(folder, run.fold, run.settings), folder.plan()
        require_one_process(config, "study")
        network, _ = network_and_loss(config, plan)
        transformer_for(folder, network, run.fold)
    except LaminaError as error:
        return str(error)
    return ""


def shared_out(
    runs: Sequence[StudyRun], time_budget_s: float | None, epochs: int | None
) -> tuple[StudyRun, ...]:
    """Return the runs with their length, those that are finished as they are.

    Raises:
        ConfigError: Finished runs have taken the whole budget.
    """
    left = [run for run in runs if run.state != "finished"]
    length: dict[str, Any] = {}
    if time_budget_s is not None:
        # What they took may be more: to count that would make the others shorter after a kill.
        spent = sum(run.granted_s for run in runs if run.state == "finished")
        share = (time_budget_s - spent) / max(1, len(left))
        if left and share < _SHORTEST_S:
            raise ConfigError(
                f"--time-budget: {spent:.0f} of {time_budget_s:.0f} s are spent, "
                f"{len(left)} runs are left.",
                remedy="Give more; it is for all runs together, those that are finished as well.",
            )
        length = {"epochs": None, "time_budget_s": round(share, 1)}
    elif epochs is not None:
        length = {"epochs": epochs, "time_budget_s": None}
    longer = {run.name: replace(run, settings=layered(run.settings, length)) for run in left}
    return tuple(longer.get(run.name, run) for run in runs)


def length_of(folder: WorkFolder, run: StudyRun) -> dict[str, Any]:
    """Return how long a run is: ``seconds``, or ``epochs``, ``steps`` and an estimate of seconds.

    The estimate is the planned network's time per step, by the operations of both.
    """
    config, plan = run_settings(folder, run.fold, run.settings), folder.plan()
    if config.time_budget_s is not None:
        return {"seconds": config.time_budget_s}
    assert config.epochs is not None
    assert config.steps_per_epoch is not None
    steps = config.epochs * config.steps_per_epoch
    told = {"epochs": config.epochs, "steps": steps}
    step_s = plan.estimates.get("step_s")
    if step_s is None:
        return told
    times = _operations(config, plan) / _operations(completed(TrainConfig(), plan), plan)
    return told | {"estimated_seconds": round(steps * step_s * times)}


def _operations(config: TrainConfig, plan: Plan) -> float:
    """Return the multiply-accumulates of one step's prediction."""
    assert config.patch_size is not None
    assert config.batch_size is not None
    network = network_of(config, plan)
    sides = [side for side in config.patch_size if side > 1] if plan.slice_axis is not None else []
    size = tuple(sides or config.patch_size)[-network.spatial_dims :]
    fits = tuple(-(-n // network.size_divisor) * network.size_divisor for n in size)
    return config.batch_size * complexity(network, fits).macs * prod(size) / prod(fits)


def remarks(
    study: Study,
    folder: WorkFolder,
    runs: Sequence[StudyRun],
    recipe: str,
    given: Mapping[str, Any],
    unseen: Path | None,
) -> list[str]:
    """Return how what was done differs from what the paper did, as far as it can be told."""
    told = [*_of_scans(study, folder, unseen)]
    fold = runs[0].fold
    if not unseen and side_of(study, folder, fold) == "val":
        told.append("Scored on the validation scans, which also decided which epoch is best.")
    done = [each.run for each in runs if each.state == "finished"]
    if done:
        outcomes = [run.manifest()["outcome"] for run in done]
        epochs = _range({outcome["epochs"] for outcome in outcomes})
        steps = _range({line["step"] for run in done for line in read_history(run)[-1:]})
        seconds = _range({round(outcome["seconds"]) for outcome in outcomes})
        plural = "s" * (epochs != "1")
        told.append(f"Trained for {epochs} epoch{plural}, {steps} steps, {seconds} s a run.")
    if recipe != study.recipe:
        told.append(f"Settings of the recipe {recipe}, not of {study.recipe or 'the paper'}.")
    elif recipe:
        told.append(f"The recipe departs from the paper: lamina recipes {recipe}.")
    if changed := flat(given):
        told.append(f"Settings changed by hand: {', '.join(changed)}.")
    return told


def _range(numbers: set[int]) -> str:
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _of_scans(study: Study, folder: WorkFolder, unseen: Path | None) -> list[str]:
    cohort, file = folder.cohort(), folder.protocol_file
    followed = (read_json(file) if file.is_file() else None) or {}
    told = []
    if followed.get("dataset") != study.dataset:
        told.append(f"Trained on {cohort.name}; the paper has {study.dataset}.")
    elif followed.get("paper") != study.paper:
        told.append(f"Scans are not divided as in the paper: prepare --protocol {study.paper}.")
    else:
        told += [note for note in (*followed["departures"], followed["note"]) if note]
    if unseen:
        other = WorkFolder(unseen).cohort().name
        theirs = f"; the paper: {study.unseen}" if study.unseen else ""
        told.append(f"Scored on {other}, which was not trained on{theirs}.")
    return told

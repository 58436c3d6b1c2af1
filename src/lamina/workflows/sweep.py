"""Sweep: train on one prepared dataset with many settings, seeds and folds, and compare."""

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from lamina.config import layered, nested
from lamina.data.plan import Plan
from lamina.errors import ConfigError, LaminaError
from lamina.files import write_json
from lamina.folders.run import RunFolder
from lamina.folders.work import WorkFolder
from lamina.training.processes import require_one_process
from lamina.workflows import Progress, no_progress
from lamina.workflows.steps.assembly import network_and_loss
from lamina.workflows.steps.fan_out import run_jobs
from lamina.workflows.steps.run_record import plain
from lamina.workflows.steps.run_set import made_from, read_earlier
from lamina.workflows.steps.settings import completed, configured
from lamina.workflows.train import Training, finish_run

RECORD = "sweep.json"


@dataclass(frozen=True, kw_only=True)
class SweepRun:
    """One run of a sweep."""

    name: str
    """Of its folder."""
    settings: Mapping[str, Any]
    """Those of the grid, by dotted name."""
    seed: int
    fold: int
    best_dice: float | None = None
    """Mean foreground Dice of the best epoch; ``None`` when the run failed."""
    best_epoch: int | None = None
    epochs: int | None = None
    seconds: float | None = None
    error: str = ""
    """Why it failed."""


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """One combination of settings, over its seeds and folds."""

    settings: Mapping[str, Any]
    runs: int
    finished: int
    mean_dice: float | None
    """Mean over the seeds whose folds are all finished, of the mean over the folds."""
    sd_dice: float | None
    """Standard deviation over the same seeds, where there are two or more."""
    best_dice: float | None
    """Of a single run."""


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a sweep reached."""

    out: Path
    runs: tuple[SweepRun, ...]
    rows: tuple[SweepRow, ...]
    """Highest mean Dice first."""

    @property
    def failures(self) -> dict[str, str]:
        """Names of the runs that failed, each with the reason."""
        return {run.name: run.error for run in self.runs if run.error}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.out),
            "failures": self.failures,
            "rows": [asdict(row) for row in self.rows],
            "runs": [asdict(run) for run in self.runs],
        }


def sweep(
    work: str | Path,
    out: str | Path,
    settings: Mapping[str, Any] | None = None,
    *,
    grid: Mapping[str, Sequence[Any]] | None = None,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int] | None = (0,),
    cluster: str | None = None,
    cpus: float = 1,
    gpus: float | None = None,
    progress: Progress = no_progress,
) -> Sweep:
    """Train every combination into a run folder of its own in ``out``, and write ``sweep.json``.

    Called again, it leaves alone what is finished, goes on with runs that were killed, and tries
    again those that failed; more values, seeds and folds may be asked for.

    Args:
        work: Folder that ``prepare`` wrote.
        out: Folder for the runs; on a cluster, one that all machines see under this path.
        settings: What all runs have in common, as for :func:`~lamina.train`.
        grid: Values to try of each setting, by dotted name; every combination is trained.
        seeds: Each combination is trained with each.
        folds: Likewise; ``None``: all that the work folder has.
        cluster: Where to train, as for :func:`~lamina.workflows.steps.fan_out.run_jobs`.
        cpus: Cores of a run on a cluster.
        gpus: GPUs of a run on a cluster; ``None``: one where there are any.
        progress: Called when a run is done.

    Raises:
        ConfigError: Settings of any combination are wrong, or ``out`` holds a sweep of others.
        DatasetError, FileError: ``work`` is not prepared or lacks a fold; ``out`` is a file, or
            holds others.
        ClusterError: The cluster cannot be started or reached.
    """
    folder, out, base = WorkFolder(Path(work).resolve()), Path(out), dict(settings or {})
    folds = folder.fold_numbers(folds)
    planned = _planned(base, grid or {}, seeds, folds)
    _check(planned, base, folder.plan(), elsewhere=cluster is not None)
    record = _Record(out.resolve(), made_from(folder, base))
    open_runs = [run for run in planned if not record.has(run)]

    def on_done(number: int, outcome: Training | LaminaError) -> None:
        run = open_runs[number]
        record.note(run, outcome)
        done = len(planned) - len(open_runs) + len(record.told)
        progress(done, len(planned), run.name)

    progress(len(planned) - len(open_runs), len(planned), "Training")
    jobs = [
        partial(finish_run, folder.root, record.out / run.name, _settings_of(run, base), run.fold)
        for run in open_runs
    ]
    if jobs:
        run_jobs(jobs, cluster, cpus=cpus, gpus=gpus, on_done=on_done)
    runs = tuple(record.of(run) for run in planned)
    result = Sweep(out=out, runs=runs, rows=_rows(runs))
    record.close(result)
    return result


class _Record:
    """What is known of the runs in a sweep's folder, on disk at any time."""

    def __init__(self, out: Path, made_from: dict[str, Any]) -> None:
        self.out = out
        self.made_from = made_from
        self.told: dict[str, SweepRun] = {}
        earlier = read_earlier(out / RECORD, made_from, "sweep")
        self.finished: dict[str, dict[str, Any]] = earlier.get("finished", {})
        self._write({})

    def has(self, run: SweepRun) -> bool:
        """Tell whether a run was finished earlier and its model is there."""
        return run.name in self.finished and RunFolder(self.out / run.name).bundle_file.is_file()

    def note(self, run: SweepRun, outcome: Training | LaminaError) -> None:
        """Keep what became of a run."""
        if isinstance(outcome, LaminaError):
            reached: dict[str, Any] = {"error": str(outcome)}
        else:
            names = ("best_dice", "best_epoch", "epochs", "seconds")
            reached = {name: getattr(outcome, name) for name in names}
            self.finished[run.name] = reached
        self.told[run.name] = SweepRun(**asdict(run) | reached)
        self._write({})

    def of(self, run: SweepRun) -> SweepRun:
        """Return a run with what became of it, now or earlier."""
        return self.told.get(run.name) or SweepRun(**asdict(run) | self.finished[run.name])

    def close(self, result: Sweep) -> None:
        """Keep the table."""
        self._write({"rows": result.as_dict()["rows"], "failures": result.failures})

    def _write(self, more: dict[str, Any]) -> None:
        content = {"made_from": self.made_from, "finished": self.finished} | more
        write_json(self.out / RECORD, content)


def _planned(
    base: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    folds: Sequence[int],
) -> list[SweepRun]:
    """Return every combination, sure that its name is its own."""
    if "seed" in grid or "seed" in base:
        raise ConfigError("seed: a sweep takes its seeds from the list of seeds.")
    planned: dict[str, SweepRun] = {}
    for values in itertools.product(*grid.values()):
        chosen = dict(zip(grid, values, strict=True))
        for seed, fold in itertools.product(seeds, folds):
            named = chosen | {"seed": seed, "fold": fold}
            name = "_".join(f"{key}={_printable(value)}" for key, value in named.items())
            if name in planned:
                raise ConfigError(f"{name}: comes twice in the grid, the seeds or the folds.")
            planned[name] = SweepRun(name=name, settings=chosen, seed=seed, fold=fold)
    return list(planned.values())


def _check(
    planned: Sequence[SweepRun], base: Mapping[str, Any], plan: Plan, *, elsewhere: bool
) -> None:
    """Refuse settings that are wrong, or the same as another run's in other words.

    Args:
        planned: The runs.
        base: What they have in common.
        plan: Of the work folder.
        elsewhere: Whether they are trained on machines that may have other devices.
    """
    names: dict[str, str] = {}
    for run in planned:
        config = configured(_settings_of(run, base), plan)
        same = names.setdefault(json.dumps([plain(config), run.fold]), run.name)
        if same != run.name:
            raise ConfigError(f"{run.name}: comes twice: {same} has the same settings.")
    for run in {json.dumps(each.settings): each for each in planned}.values():
        config = configured(_settings_of(run, base), plan)
        require_one_process(config, "sweep")
        here = replace(config, device="cpu", precision="auto") if elsewhere else config
        network_and_loss(completed(here, plan), plan)


def _printable(value: Any) -> str:
    """Return a value as part of a folder's name, such as ``16-16-16`` for a list."""
    return re.sub(r"[^\w.+-]+", "-", str(value)).strip("-")


def _settings_of(run: SweepRun, base: Mapping[str, Any]) -> dict[str, Any]:
    own = [nested(name, value) for name, value in run.settings.items()]
    return layered(base, *own, {"seed": run.seed})


def _rows(runs: Sequence[SweepRun]) -> tuple[SweepRow, ...]:
    by_settings: dict[str, list[SweepRun]] = {}
    for run in runs:
        by_settings.setdefault(json.dumps(run.settings), []).append(run)
    rows = [_row(members) for members in by_settings.values()]
    return tuple(sorted(rows, key=lambda row: 1 if row.mean_dice is None else -row.mean_dice))


def _row(runs: Sequence[SweepRun]) -> SweepRow:
    by_seed: dict[int, list[Any]] = {}
    for run in runs:
        by_seed.setdefault(run.seed, []).append(run.best_dice)
    whole = [fmean(dice) for dice in by_seed.values() if None not in dice]
    found = [run.best_dice for run in runs if run.best_dice is not None]
    return SweepRow(
        settings=runs[0].settings,
        runs=len(runs),
        finished=len(found),
        mean_dice=fmean(whole) if whole else None,
        sd_dice=stdev(whole) if len(whole) > 1 else None,
        best_dice=max(found, default=None),
    )

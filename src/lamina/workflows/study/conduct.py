"""Conduct a study: train what is missing, score it, and write the table after every run."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from lamina.data.datasets import load_description
from lamina.errors import ConfigError, LaminaError
from lamina.files import write_json
from lamina.folders.work import WorkFolder
from lamina.study.complexity import counted
from lamina.study.filling import Filled, fill
from lamina.study.schema import Study, read_study
from lamina.study.scored import Scored
from lamina.workflows import Progress, no_progress
from lamina.workflows.steps.fan_out import run_jobs
from lamina.workflows.steps.run_record import MAY_CHANGE
from lamina.workflows.steps.run_set import made_from, read_earlier
from lamina.workflows.study.plan import length_of, plan_runs, refusal, remarks, shared_out
from lamina.workflows.study.runs import StudyRun, read_scored, train_and_score
from lamina.workflows.study.table import write
from lamina.workflows.study.unseen import check_unseen

RECORD = "study.json"


@dataclass(frozen=True, kw_only=True)
class Studied:
    """What became of a study."""

    filled: Filled
    out: Path | None = None
    runs: tuple[StudyRun, ...] = ()
    """All that were asked for and can be trained."""
    lengths: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Run -> ``seconds``, or ``epochs``, ``steps`` and perhaps ``estimated_seconds``; of a dry run
    alone."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Run -> why it failed."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        runs = [
            {"name": run.name, "state": run.state} | dict(self.lengths.get(run.name, {}))
            for run in self.runs
        ]
        out = str(self.out) if self.out else None
        return self.filled.as_dict() | {"out": out, "runs": runs, "failures": dict(self.failures)}


@dataclass(frozen=True, kw_only=True)
class _Work:
    """A study on certain scans."""

    study: Study
    folder: WorkFolder
    out: Path
    recipe: str
    given: Mapping[str, Any]
    unseen: Path | None
    counts: Mapping[str, Mapping[str, float]]
    runs: tuple[StudyRun, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    """Row -> why it cannot be trained on these scans."""
    failures: dict[str, str] = field(default_factory=dict)

    def filled(self) -> Filled:
        """Fill the table with all that is scored by now."""
        scored: dict[str, list[Scored]] = {}
        numbers = self._numbers()
        for run in self.runs:
            if run.is_scored:
                scored.setdefault(run.row, []).append(read_scored(run, numbers))
        whys = dict(self.refused)
        for run in self.runs:
            if run.name in self.failures:
                whys[run.row] = self.failures[run.name]
            elif run.row not in scored:
                whys.setdefault(run.row, "not trained yet.")
        about = (self.study, self.folder, self.runs, self.recipe, self.given, self.unseen)
        told = remarks(*about)
        if failed := sum(each.failed for found in scored.values() for each in found):
            told.append(f"Scans that could not be scored, and are left out: {failed}.")
        return fill(self.study, scored, self.counts, whys, told)

    def _numbers(self) -> dict[str, str]:
        """Return the paper's name of each case that has another, for tables of cases."""
        if not (self.study.cases and self.study.dataset):
            return {}
        names = load_description(self.study.dataset).names
        found = {
            case.case_id: names.number(case.case_id) if names else None
            for case in self.folder.cohort().cases
        }
        return {case: str(number) for case, number in found.items() if number is not None}


def study(
    name: str,
    work: str | Path | None = None,
    out: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
    *,
    recipe: str | None = None,
    rows: Sequence[str] | None = None,
    seeds: Sequence[int] = (0,),
    folds: Sequence[int] | None = (0,),
    time_budget_s: float | None = None,
    epochs: int | None = None,
    unseen: str | Path | None = None,
    cluster: str | None = None,
    cpus: float = 1,
    gpus: float | None = None,
    dry_run: bool = False,
    progress: Progress = no_progress,
) -> Studied:
    """Train what is missing of a study, score it, and write the table after each run.

    Called again, it leaves alone what is finished, goes on with runs that were killed, and tries
    again those that failed; more rows, seeds and folds may be asked for. What finished runs were
    given is taken off the budget and the rest shared out evenly: a kill changes no run's length.

    Args:
        name: Of the study, such as ``"glims/table4"``.
        work: Folder that ``prepare`` wrote, of any dataset; without it, only networks are counted.
        out: Folder for runs, scores and the table; on a cluster, one that all machines see.
        settings: Laid over those of the recipe and of each row, as for :func:`~lamina.train`.
        recipe: In place of the study's own; ``"auto"``: each network by the plan.
        rows: Only these; all that can be trained by default.
        seeds: Each row is trained with each.
        folds: Likewise; ``None``: all that the work folder has.
        time_budget_s: Seconds of training, of all runs together.
        epochs: Length of each run instead; without both, the recipe's.
        unseen: Another prepared dataset, whose scans, all of other patients, are scored instead of
            the run's own.
        cluster: Where to train, as for :func:`~lamina.workflows.steps.fan_out.run_jobs`.
        cpus: Cores of a run on a cluster.
        gpus: GPUs of a run on a cluster; ``None``: one where there are any.
        dry_run: Train and write nothing; tell what would be trained, and for how long.
        progress: Called as runs are trained, and when one is done.

    Raises:
        UnknownNameError: There is no such study or row.
        ConfigError: No row can be trained on these scans; the budget is spent; or ``out`` holds a
            study of something else.
        DatasetError: ``work`` is not prepared or lacks a fold; ``unseen`` has other structures, or
            scans or patients of ``work``; ``out`` holds other files.
        ClusterError: The cluster cannot be started or reached.
    """
    work, out, unseen = (Path(place) if place else None for place in (work, out, unseen))
    chosen = read_study(name)
    counts = {key: counted(chosen, row) for key, row in chosen.runnable.items()}
    if work is None or not any(column.is_scored for column in chosen.columns):
        return _printed(chosen, counts, None if dry_run else out)
    _check(chosen, out, unseen)
    assert out is not None
    task = _Work(
        study=chosen,
        folder=WorkFolder(work.resolve()),
        out=out.resolve(),
        recipe=chosen.recipe if recipe is None else recipe,
        given=dict(settings or {}),
        unseen=unseen.resolve() if unseen else None,
        counts=counts,
    )
    task = _planned(task, rows, seeds, task.folder.fold_numbers(folds))
    origin = _origin(task)
    read_earlier(task.out / RECORD, origin, "study")
    task = replace(task, runs=shared_out(task.runs, time_budget_s, epochs))
    if unseen is not None and not all(run.is_scored for run in task.runs):
        check_unseen(work, unseen)  # before anything is trained in vain
    if dry_run:
        lengths = {run.name: length_of(task.folder, run) for run in task.runs}
        return Studied(filled=task.filled(), out=out, runs=task.runs, lengths=lengths)
    write_json(task.out / RECORD, {"made_from": origin})
    _finish(task, cluster, cpus, gpus, progress)
    filled = task.filled()
    write(task.out, filled)
    return Studied(filled=filled, out=out, runs=task.runs, failures=task.failures)


def _printed(study: Study, counts: Mapping[str, Any], out: Path | None) -> Studied:
    """Return what is printed and counted, with nothing that takes scans."""
    filled = fill(study, {}, counts, {})
    if out is not None:
        write(out, filled)
    return Studied(filled=filled, out=out)


def _check(study: Study, out: Path | None, unseen: Path | None) -> None:
    if out is None:
        raise ConfigError("out: a folder for runs, scores and the table is needed.")
    if study.unseen and unseen is None:
        raise ConfigError(
            f"{study.name}: its networks are scored on another dataset, {study.unseen}.",
            remedy="Prepare that too, and give its folder with --unseen.",
        )


def _planned(
    task: _Work, rows: Sequence[str] | None, seeds: Sequence[int], folds: Sequence[int]
) -> _Work:
    """Return the task with its runs, those of rows that cannot be trained on these scans aside."""
    runs = plan_runs(task.study, task.out, task.recipe, task.given, rows, seeds, folds)
    refused = {run.row: why for run in runs if (why := refusal(task.folder, run))}
    possible = tuple(run for run in runs if run.row not in refused)
    if not possible:
        raise ConfigError(
            f"{task.study.name}: no row can be trained on these scans: "
            f"{next(iter(refused.values()))}",
            remedy="Try --recipe auto, which trains every network as these scans are planned.",
        )
    return replace(task, runs=possible, refused=refused)


def _origin(task: _Work) -> dict[str, Any]:
    """Return what a folder's earlier work must have in common with this."""
    told = json.dumps(asdict(task.study), sort_keys=True)
    lasting = {name: value for name, value in task.given.items() if name not in MAY_CHANGE}
    return made_from(task.folder, lasting) | {
        "study": f"{task.study.name} {sha256(told.encode()).hexdigest()[:8]}",
        "recipe": task.recipe,
        "unseen": str(task.unseen or ""),
    }


def _finish(
    task: _Work, cluster: str | None, cpus: float, gpus: float | None, progress: Progress
) -> None:
    """Train and score what is missing; the table is written after each run."""
    left = [run for run in task.runs if not run.is_scored]
    done = len(task.runs) - len(left)

    def on_done(number: int, outcome: None | LaminaError) -> None:
        nonlocal done
        if isinstance(outcome, LaminaError):
            task.failures[left[number].name] = str(outcome)
        write(task.out, task.filled())
        done += 1
        progress(done, len(task.runs), left[number].name)

    def on_step(name: str, step: int, share: float, loss: float, to_go: float | None) -> None:
        progress(done + min(share, 0.99), len(task.runs), name)

    progress(done, len(task.runs), "Training")
    jobs = [partial(train_and_score, task.study, task.folder.root, r, task.unseen) for r in left]
    if cluster is None:
        named = zip(jobs, left, strict=True)
        jobs = [partial(job, on_step=partial(on_step, run.name)) for job, run in named]
    if jobs:
        run_jobs(jobs, cluster, cpus=cpus, gpus=gpus, on_done=on_done)

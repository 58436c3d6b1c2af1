"""Prepare: understand a dataset, decide how to train on it, and store it ready for training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import psutil

from lamina.data.cache import prepare_case
from lamina.data.case import Case, Cohort
from lamina.data.doctor import Finding
from lamina.data.fingerprint import Fingerprint, Survey, make_fingerprint, survey
from lamina.data.folds import (
    Fold,
    drop_cases,
    given_fold,
    given_folds,
    leaks,
    make_folds,
    write_folds,
)
from lamina.data.layouts import read_cohort
from lamina.data.plan import Plan
from lamina.data.planning import Budget, make_plan
from lamina.data.workers import run_over, workers_for
from lamina.errors import ConfigError, DatasetError, FileError, LaminaError
from lamina.files import remove_parts, write_json
from lamina.models import NETWORKS, configure
from lamina.workflows import Progress, no_progress
from lamina.workflows.work import WorkFolder

_NUM_FOLDS = 5
_PROCESS_BYTES = 0.7e9
"""What Python, torch and the loaded code take before any step."""


@dataclass(frozen=True)
class Preparation:
    """What ``prepare`` found, decided and left out."""

    work: Path
    cohort: Cohort
    fingerprint: Fingerprint
    plan: Plan
    folds: tuple[Fold, ...]
    excluded: dict[str, str]
    """Case id -> why it cannot be used."""
    test: tuple[Case, ...] = ()
    """Cases that are kept for the end; they were not looked at."""
    leaks: tuple[Finding, ...] = ()
    """Patients on both sides, where that was allowed."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "work": str(self.work),
            "name": self.cohort.name,
            "num_cases": len(self.cohort.cases),
            "num_folds": len(self.folds),
            "num_test_cases": len(self.test),
            "leaks": [leak.as_dict() for leak in self.leaks],
            "excluded": self.excluded,
            "oddities": {c.case_id: list(c.oddities) for c in self.fingerprint.cases if c.oddities},
            "plan": self.plan.as_dict(),
        }


def prepare(
    dataset: Path,
    out: Path,
    *,
    layout: str | None = None,
    model: str = "lightmedseg",
    ram_bytes: float | None = None,
    vram_bytes: float | None = None,
    time_s: float | None = None,
    num_folds: int | None = None,
    splits: Path | None = None,
    allow_leakage: bool = False,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Preparation:
    """Read a dataset, verify it, and leave fingerprint, plan, folds and prepared cases in ``out``.

    A case that cannot be used is listed with its reason and left out; the others go on. Run again
    after an interruption, it goes on where it stopped.

    Args:
        dataset: Folder of labelled scans.
        out: Work folder to write.
        layout: Registered layout; found by itself if not given.
        model: Network preset that the plan is made for.
        ram_bytes: Main memory that training may take; half of what is free if not given.
        vram_bytes: GPU memory that training may take; what the GPU has if not given.
        time_s: Seconds that a training run may take.
        num_folds: Number of splits into training and validation, by patient; 5, or as many as there
            are patients, if not given.
        splits: A ``splits.json`` to follow, of nnU-Net's form; cases that it does not train or
            validate on are not looked at. By default the dataset's own split, if it has one.
        allow_leakage: Accept a given split that divides patients.
        workers: Processes; 0 for none; as many as memory and cores allow if not given.
        progress: Called after each case of each of the two passes.

    Raises:
        DatasetError: The folder is not understood, or no case in it can be used.
        ConfigError: The budget is too small for any plan, or folds are both counted and given.
        UnknownNameError: The layout or the network is not registered.
        FileError: The work folder cannot be written, or the disk is full; run again, it goes on.
    """
    NETWORKS.get(model)  # a misspelt name is refused now, not after all scans have been read
    budget = _budget(ram_bytes, vram_bytes, time_s)
    work = WorkFolder(out)
    _check_room(work)
    whole = read_cohort(dataset, layout)
    given = _given(whole, splits, num_folds, allow_leakage)
    cohort, test = _learning(whole, given)
    surveys, excluded = _survey(cohort, workers, progress)
    cohort = _without(cohort, excluded)
    fingerprint = make_fingerprint(cohort, list(surveys.values()))
    plan = _plan(fingerprint, cohort, model, budget)
    folds = _folds(cohort, test, given, excluded, num_folds, fingerprint)
    write_json(work.fingerprint_file, fingerprint.as_dict())
    work.splits_file.unlink(missing_ok=True)  # whose presence says that all the rest is there
    largest = max(prod(facts.shape) for facts in fingerprint.cases) * len(cohort.channels)
    count = workers_for(20 * largest, len(cohort.cases)) if workers is None else workers
    if unfit := _store(cohort, plan, work.cache, count, progress):
        excluded |= unfit
        cohort = _without(cohort, unfit)
        folds = _folds(cohort, test, given, excluded, num_folds, fingerprint)
    write_json(work.cohort_file, replace(cohort, cases=(*cohort.cases, *test)).as_dict())
    write_json(work.plan_file, plan.as_dict())
    write_json(work.excluded_file, excluded)
    write_folds(work.splits_file, folds)
    divided = leaks(folds, whole.cases)
    return Preparation(out, cohort, fingerprint, plan, folds, excluded, test, divided)


def _check_room(work: WorkFolder) -> None:
    """Refuse a folder, such as the dataset's own, that holds what no preparation wrote."""
    if not work.root.is_dir() or work.fingerprint_file.is_file():
        return
    if any(not path.name.startswith(".") for path in work.root.iterdir()):
        raise DatasetError(
            f"{work.root}: holds files that no preparation wrote.",
            remedy="Choose another folder for --out.",
        )


def _without(cohort: Cohort, excluded: Mapping[str, str]) -> Cohort:
    return replace(cohort, cases=tuple(c for c in cohort.cases if c.case_id not in excluded))


def _given(
    cohort: Cohort, splits: Path | None, num_folds: int | None, allow_leakage: bool
) -> tuple[Fold, ...]:
    """Return the folds of the file, or of the dataset's own split; none where they are to be made.

    All cases are there yet: whether a split makes sense is known before any scan is read.
    """
    own = None if splits else given_fold(cohort.cases, allow_leakage=allow_leakage)
    given = given_folds(splits, cohort.cases, allow_leakage=allow_leakage) if splits else ()
    if num_folds is not None and (own or given):
        raise ConfigError(
            f"{num_folds} folds: {splits or 'the dataset'} has {len(given) or 'a split'} already.",
            remedy="Leave out --folds.",
        )
    return (own,) if own else given


def _learning(cohort: Cohort, given: tuple[Fold, ...]) -> tuple[Cohort, tuple[Case, ...]]:
    """Keep cases to test on, or in no given fold, out of everything that is learnt or planned.

    Returns:
        The cohort of the others, and the cases to test on.
    """
    listed = {case_id for fold in given for case_id in (*fold.train, *fold.val)}
    tested = {case_id for fold in given for case_id in fold.test} - listed
    test = tuple(c for c in cohort.cases if c.side == "test" or c.case_id in tested)
    aside = {case.case_id for case in test}
    learnt = (c for c in cohort.cases if c.case_id in listed or not (given or c.case_id in aside))
    return replace(cohort, cases=tuple(learnt)), test


def _folds(
    cohort: Cohort,
    test: tuple[Case, ...],
    given: tuple[Fold, ...],
    excluded: Mapping[str, str],
    num_folds: int | None,
    fingerprint: Fingerprint,
) -> tuple[Fold, ...]:
    """Return the given folds, or such with equally many and large structures."""
    if given:
        return drop_cases(given, excluded)
    volumes = {
        facts.case_id: {name: n * prod(facts.spacing) for name, n in facts.voxels.items()}
        for facts in fingerprint.cases
    }
    exact = num_folds is not None
    return make_folds((*cohort.cases, *test), num_folds or _NUM_FOLDS, strata=volumes, exact=exact)


def _survey(
    cohort: Cohort, workers: int | None, progress: Progress
) -> tuple[dict[str, Survey], dict[str, str]]:
    """Look at every case; return what was found and, by case id, why others cannot be used."""
    found: dict[str, Survey] = {}
    excluded: dict[str, str] = {}
    size = max(sum(p.stat().st_size for p in c.images if p.is_file()) for c in cohort.cases)
    count = workers_for(30 * size, len(cohort.cases)) if workers is None else workers
    task = partial(survey, channels=cohort.channels, labels=cohort.labels)
    for done, (case, outcome) in enumerate(run_over(task, cohort.cases, count), start=1):
        if isinstance(outcome, LaminaError):
            excluded[case.case_id] = str(outcome)
        else:
            found[case.case_id] = outcome
        progress(done, len(cohort.cases), "Reading")
    _agree_on_dimensions(found, excluded)
    if not found:
        first = "; ".join(f"{case}: {why}" for case, why in list(excluded.items())[:3])
        raise DatasetError(f"{cohort.name}: none of {len(excluded)} cases can be used. {first}")
    return found, excluded


def _store(
    cohort: Cohort, plan: Plan, cache: Path, workers: int, progress: Progress
) -> dict[str, str]:
    """Store every case as training reads it; return, by case id, why some cannot be."""
    remove_parts(cache)
    excluded: dict[str, str] = {}
    task = partial(prepare_case, plan=plan, cache=cache)
    for done, (case, outcome) in enumerate(run_over(task, cohort.cases, workers), start=1):
        if isinstance(outcome, FileError):  # the scan was read a moment ago: this is the disk
            raise outcome
        if isinstance(outcome, LaminaError):
            excluded[case.case_id] = str(outcome)
        progress(done, len(cohort.cases), "Preparing")
    return excluded


def _agree_on_dimensions(found: dict[str, Survey], excluded: dict[str, str]) -> None:
    """Leave out images among volumes, or volumes among images: one network takes one kind."""
    kinds = [survey.spatial_dims for survey in found.values()]
    usual = max(set(kinds), key=kinds.count, default=3)
    for case_id, odd in list(found.items()):
        if odd.spatial_dims != usual:
            excluded[case_id] = f"{odd.spatial_dims} spatial axes where most cases have {usual}."
            del found[case_id]


def _plan(
    fingerprint: Fingerprint,
    cohort: Cohort,
    model: str,
    budget: Budget,
) -> Plan:
    from lamina.training.cost import measure_cost

    config = configure(
        model,
        in_channels=len(cohort.channels),
        num_classes=cohort.labels.num_classes,
        spatial_dims=fingerprint.spatial_dims,
    )
    return make_plan(fingerprint, cohort.labels, model, measure_cost(config), budget)


def _budget(ram_bytes: float | None, vram_bytes: float | None, time_s: float | None) -> Budget:
    import torch

    if vram_bytes or (torch.cuda.is_available() and not ram_bytes):
        granted = vram_bytes or torch.cuda.get_device_properties(0).total_memory
        return Budget(memory_bytes=0.8 * granted, device="GPU memory", time_s=time_s)
    granted = ram_bytes or psutil.virtual_memory().available / 2
    if granted <= _PROCESS_BYTES:
        whose = "--ram" if ram_bytes else "half of the free memory"
        raise ConfigError(
            f"{whose}: {granted / 1e6:.0f} MB; the program alone takes {_PROCESS_BYTES / 1e6:.0f}.",
            remedy="Grant at least 1G with --ram.",
        )
    return Budget(memory_bytes=granted - _PROCESS_BYTES, time_s=time_s)

"""Prepare: understand a dataset, decide how to train on it, and store it ready for training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lamina.data.case import Case
from lamina.data.cohort import Cohort
from lamina.data.doctor import Finding
from lamina.data.fingerprint import Fingerprint, make_fingerprint
from lamina.data.folds import Fold, leaks
from lamina.data.layouts import read_cohort
from lamina.data.plan import Plan
from lamina.data.planning import misfits
from lamina.data.protocols import Assignment
from lamina.data.splits import assign, divide, given_split, set_aside
from lamina.errors import DatasetError, reasons
from lamina.files import check_folder, read_json
from lamina.folders.work import WorkFolder
from lamina.models import NETWORKS
from lamina.training.device import chosen_device
from lamina.workflows import Progress, no_progress
from lamina.workflows.steps.planner import AUTO, Planner, budget_of
from lamina.workflows.steps.preparing import store, survey_all


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
    protocol: Assignment | None = None
    """The paper's use of the dataset that was followed."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.work),
            "name": self.cohort.name,
            "num_cases": len(self.cohort.cases),
            "num_folds": len(self.folds),
            "num_test_cases": len(self.test),
            "leaks": [leak.as_dict() for leak in self.leaks],
            "failures": self.excluded,
            "protocol": self.protocol.as_dict() if self.protocol else None,
            "oddities": {c.case_id: list(c.oddities) for c in self.fingerprint.cases if c.oddities},
            "plan": self.plan.as_dict(),
        }


def prepare(
    dataset: str | Path,
    out: str | Path,
    *,
    layout: str | None = None,
    model: str = AUTO,
    spacing: Sequence[float] | None = None,
    ram_bytes: float | None = None,
    vram_bytes: float | None = None,
    time_budget_s: float | None = None,
    device: str | None = None,
    rehearse: bool = True,
    num_folds: int | None = None,
    splits: str | Path | None = None,
    protocol: str | None = None,
    public: str | None = None,
    allow_leakage: bool = False,
    resample_oblique: bool = False,
    workers: int | None = None,
    cluster: str | None = None,
    progress: Progress = no_progress,
) -> Preparation:
    """Read a dataset, verify it, and leave fingerprint, plan, folds and prepared cases in ``out``.

    A case that cannot be used is listed with its reason and left out; the others go on. Run again
    after an interruption, it goes on where it stopped.

    Args:
        dataset: Folder of labelled scans.
        out: Work folder to write.
        layout: Registered layout; found by itself if not given.
        model: Network preset that the plan is made for; ``"auto"`` takes what suits scans and
            budget.
        spacing: Voxel size in mm to work at, along the axes of ``plan.orientation``; what suits
            the scans if not given. Along the axis across slices each scan keeps its own.
        ram_bytes: Main memory that training may take; half of what is free if not given.
        vram_bytes: GPU memory that training may take; what the GPU has if not given.
        time_budget_s: Seconds that a training run may take.
        device: ``"cpu"`` or a GPU such as ``"cuda"``; a GPU if there is one by default.
        rehearse: Train a few steps to know time and memory rather than to estimate them.
        num_folds: Number of splits into training and validation, by patient; 5, or as many as there
            are patients, if not given.
        splits: A ``splits.json`` to follow, of nnU-Net's form; cases that it does not train or
            validate on are not looked at. By default the dataset's own split, if it has one.
        protocol: Paper whose cases, labels and split are taken, such as ``"lightmedseg"``. What
            differs from the paper, cases that are not there for one, is logged as a warning.
        public: Public dataset that this is, one of ``lamina datasets``; told by the names of its
            cases if not given.
        allow_leakage: Accept a given split that divides patients.
        resample_oblique: Whether scans whose axes are not at right angles are resampled, rather
            than left out.
        workers: Processes; 0 for none; as many as memory and cores allow if not given.
        cluster: Where to work on the cases, as for
            :func:`~lamina.workflows.steps.fan_out.run_jobs`; all machines see ``dataset`` and
            ``out`` under these paths.
        progress: Called after each case of each of the two passes.

    Raises:
        DatasetError: The folder is not understood, or no case in it can be used.
        ConfigError: The budget is too small for any plan, the spacing is of other axes, folds
            are fewer than two, or counted or given beside others that are given, or a public
            dataset is named without a protocol.
        UnknownNameError: The layout, network, protocol or public dataset is not known.
        FileError: The work folder cannot be written, or the disk is full; run again, it goes on.
        ClusterError: The cluster cannot be started or reached.
    """
    dataset, out = Path(dataset), Path(out)
    if cluster is not None:  # whose machines have working folders of their own
        dataset, out = dataset.absolute(), out.absolute()
    if model != AUTO:
        NETWORKS.get(model)  # a misspelt name is refused now, not after all scans have been read
    where = chosen_device("cuda" if vram_bytes and not device else device)
    budget = budget_of(ram_bytes, vram_bytes, time_budget_s, where)
    work = WorkFolder(out)
    _check_room(work, dataset)
    whole, assigned = assign(read_cohort(dataset, layout), protocol, public)
    _check_owner(work, whole)
    given = given_split(whole, assigned, Path(splits) if splits else None, num_folds, allow_leakage)
    cohort, test = set_aside(whole, given)
    surveys, excluded = survey_all(cohort, resample_oblique, workers, cluster, progress)
    cohort = _without(cohort, excluded)
    fingerprint = make_fingerprint(cohort, list(surveys.values()))
    planner = Planner(
        fingerprint=fingerprint,
        cohort=cohort,
        budget=budget,
        model=model,
        spacing=spacing,
        device=where,
        regions_because=_regions_because(whole, assigned, model),
    )
    plan = planner.decide()
    excluded |= misfits(fingerprint.cases, plan)
    cohort = _without(cohort, excluded)
    folds = divide(cohort, test, given, excluded, num_folds, fingerprint)
    work.begin(fingerprint)
    if unfit := store(cohort, fingerprint, plan, work.cache, workers, progress, cluster):
        excluded |= unfit
        cohort = _without(cohort, excluded)
        folds = divide(cohort, test, given, excluded, num_folds, fingerprint)
    if rehearse:
        plan = planner.rehearsed(plan, work.cache, folds[0].train)
    work.write(replace(cohort, cases=(*cohort.cases, *test)), plan, excluded, assigned, folds)
    divided = leaks(folds, whole.cases)
    return Preparation(out, cohort, fingerprint, plan, folds, excluded, test, divided, assigned)


def _check_room(work: WorkFolder, dataset: Path) -> None:
    """Refuse a folder within the dataset, one that holds what no preparation wrote, and a file."""
    check_folder(work.root)
    if work.root.resolve().is_relative_to(dataset.resolve()):
        raise DatasetError(
            f"{work.root}: lies in the dataset, which is never written to.",
            remedy="Choose a folder elsewhere for --out.",
        )
    if not work.root.is_dir() or work.fingerprint_file.is_file():
        return
    if any(not path.name.startswith(".") for path in work.root.iterdir()):
        raise DatasetError(
            f"{work.root}: holds files that no preparation wrote.",
            remedy="Choose another folder for --out.",
        )


def _check_owner(work: WorkFolder, cohort: Cohort) -> None:
    """Refuse a folder that another dataset was prepared in."""
    if not work.cohort_file.is_file():
        return
    before = Cohort.from_dict(read_json(work.cohort_file))
    if before.name != cohort.name and not {c.case_id for c in before.cases} & {
        c.case_id for c in cohort.cases
    }:
        raise DatasetError(
            f"{work.root}: holds another dataset, {before.name!r}.",
            remedy="Choose another folder for --out.",
        )


def _without(cohort: Cohort, excluded: dict[str, str]) -> Cohort:
    """Return the cohort without some cases; a ``DatasetError`` with the reasons if none is left."""
    kept = tuple(c for c in cohort.cases if c.case_id not in excluded)
    if not kept:
        raise DatasetError(
            f"{cohort.name}: none of {len(excluded)} cases can be used. {reasons(excluded)}",
            remedy="lamina doctor says of each scan what is wrong with it.",
        )
    return replace(cohort, cases=kept)


def _regions_because(cohort: Cohort, assigned: Assignment | None, model: str) -> str:
    """Say why the network answers for regions, where that of the paper or the description does.

    A network asked for by name whose classes exclude each other keeps to the structures.
    """
    if assigned is None:
        size = len(cohort.channels), cohort.labels.num_classes
        exclusive = model != AUTO and NETWORKS.get(model)(*size).exclusive_classes
        asks = cohort.region_based and not exclusive
        asked = "the dataset's description asks for it" if asks else ""
    else:
        asked = f"{assigned.paper} has it" if assigned.protocol.region_based else ""
    return f"Yes or no to each region, as {asked}; regions may overlap." if asked else ""

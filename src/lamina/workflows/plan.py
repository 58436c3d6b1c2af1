"""Plan: show what was decided for a prepared dataset, or decide again for another budget."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.config import resolve
from lamina.data.cache import preparation_of
from lamina.data.fingerprint import Fingerprint
from lamina.data.folds import read_fold
from lamina.data.plan import Plan
from lamina.data.planning import misfits
from lamina.errors import DatasetError, reasons
from lamina.files import check_folder, read_json, write_json, write_text
from lamina.folders.work import WorkFolder
from lamina.models import NETWORKS
from lamina.training.device import chosen_device
from lamina.workflows import Progress, no_progress
from lamina.workflows.steps.planner import AUTO, Planner, budget_of
from lamina.workflows.steps.preparing import store


@dataclass(frozen=True, kw_only=True)
class Replanning:
    """A plan, and what it was before."""

    work: Path
    plan: Plan
    changed: Mapping[str, tuple[Any, Any]]
    """Field -> what it was and what it is; empty where nothing was decided anew."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.work),
            "changed": {name: list(values) for name, values in self.changed.items()},
            "plan": self.plan.as_dict(),
        }


def read_plan(work: str | Path) -> Replanning:
    """Read the plan of a prepared dataset.

    Raises:
        DatasetError: ``work`` is not prepared.
    """
    work = Path(work)
    return Replanning(work=work, plan=WorkFolder(work).plan(), changed={})


def replan(
    work: str | Path,
    *,
    model: str | None = None,
    spacing: Sequence[float] | None = None,
    ram_bytes: float | None = None,
    vram_bytes: float | None = None,
    time_budget_s: float | None = None,
    device: str | None = None,
    rehearse: bool = True,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> Replanning:
    """Decide again how to train on prepared scans; folds stay, and so do runs that have begun.

    A network or a spacing that was asked for before stays until another is asked for.

    Where the new plan needs the scans prepared otherwise, they are prepared again; until all are,
    nothing trains on them, and run again after an interruption, it goes on where it stopped.

    Args:
        work: Folder that ``prepare`` wrote.
        model: Network preset; ``"auto"`` takes what suits scans and budget, and lets go of a
            spacing too.
        spacing: Voxel size in mm to work at.
        ram_bytes: Main memory that training may take; half of what is free if not given.
        vram_bytes: GPU memory that training may take; what the GPU has if not given.
        time_budget_s: Seconds that a training run may take.
        device: ``"cpu"`` or a GPU such as ``"cuda"``; a GPU if there is one by default.
        rehearse: Train a few steps to know time and memory rather than to estimate them.
        workers: As for :func:`~lamina.workflows.prepare.prepare`.
        progress: Called after each case that is prepared again.

    Raises:
        DatasetError: ``work`` is not prepared, or cases do not fit the new plan.
        ConfigError: The budget is too small for any plan, or ``spacing`` is not of the scans' axes.
        UnknownNameError: The network is not registered.
        FileError: The work folder cannot be written, or the disk is full.
    """
    work = Path(work)
    if model not in (None, AUTO):
        NETWORKS.get(model)
    folder = WorkFolder(work)
    before, cohort = folder.plan(), folder.training_cohort()
    check_folder(work)
    if spacing is None and model != AUTO and before.was_asked("target_spacing"):
        spacing = before.target_spacing
    if model is None:
        model = before.network if before.was_asked("network") else AUTO
    where = chosen_device("cuda" if vram_bytes and not device else device)
    planner = Planner(
        fingerprint=resolve(Fingerprint, read_json(folder.fingerprint_file)),
        cohort=cohort,
        budget=budget_of(ram_bytes, vram_bytes, time_budget_s, where),
        model=model,
        spacing=spacing,
        device=where,
        regions_because=before.reasons["region_based"] if before.region_based else "",
    )
    plan = planner.decide()
    _check_fit(work, planner, plan)
    if preparation_of(plan) != preparation_of(before) or folder.changing_file.is_file():
        write_text(folder.changing_file, "")
        _prepare_again(folder, planner, plan, workers, progress)
    if rehearse:
        plan = planner.rehearsed(plan, folder.cache, read_fold(folder.splits_file, 0).train)
    write_json(folder.plan_file, plan.as_dict())
    folder.changing_file.unlink(missing_ok=True)
    return Replanning(work=work, plan=plan, changed=_changed(before, plan))


def _check_fit(work: Path, planner: Planner, plan: Plan) -> None:
    """Refuse a plan that cases do not fit before any is prepared for it; the old plan stays."""
    prepared = {case.case_id for case in planner.cohort.cases}
    facts = (case for case in planner.fingerprint.cases if case.case_id in prepared)
    if unfit := misfits(facts, plan):
        raise DatasetError(
            f"{work}: {len(unfit)} cases do not fit the new plan. {reasons(unfit)}",
            remedy="Or run lamina prepare so into another folder, which leaves them out.",
        )


def _prepare_again(
    folder: WorkFolder, planner: Planner, plan: Plan, workers: int | None, progress: Progress
) -> None:
    cohort, fingerprint = planner.cohort, planner.fingerprint
    if failed := store(cohort, fingerprint, plan, folder.cache, workers, progress):
        raise DatasetError(
            f"{folder.root}: {len(failed)} cases cannot be prepared again. {reasons(failed)}",
            remedy="Mend that, and run the same command again; it goes on where it stopped.",
        )


def _changed(before: Plan, after: Plan) -> dict[str, tuple[Any, Any]]:
    old, new = before.as_dict(), after.as_dict()
    names = new.keys() - {"reasons", "estimates", "given_up"}
    return {
        name: (old[name], new[name]) for name in new if name in names and old[name] != new[name]
    }

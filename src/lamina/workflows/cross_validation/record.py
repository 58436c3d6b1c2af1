"""Trainings of all folds: how they begin, and how they go on."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.config import layered
from lamina.data.folds import Fold
from lamina.data.splits import kept_by_all
from lamina.errors import TrainingError
from lamina.files import sha256, write_json
from lamina.folders.all_folds import AllFolds
from lamina.folders.run import ALL, RunFolder
from lamina.folders.work import WorkFolder
from lamina.workflows.steps.assembly import net_of, network_and_loss
from lamina.workflows.steps.provenance import origin_of
from lamina.workflows.steps.run_record import check_new, check_same_start
from lamina.workflows.steps.settings import completed, configured, resumed


def begin(
    work: WorkFolder,
    out: Path,
    folds: tuple[Fold, ...],
    settings: Mapping[str, Any],
    start: Path | None,
) -> AllFolds:
    """Record new work.

    Raises:
        TrainingError, FileError: ``out`` holds something, or is a file; ``start`` is missing.
        ConfigError, BundleError: Settings or ``start`` are wrong, as they would be in every fold.
    """
    whole = RunFolder(out)
    check_new(whole)
    plan = work.plan()
    config = completed(configured(settings, plan), plan)
    network, _ = network_and_loss(config, plan)
    net_of(network, config, start)
    kept = kept_by_all(folds)
    record = {
        **origin_of(work),
        "fold": ALL,
        "num_folds": len(folds),
        "test_cases": [case.as_dict() for case in work.cohort().cases if case.case_id in kept],
        "settings": json.loads(json.dumps(settings)),
        "start": _identified(start) if start else None,
        "trained": {},
    }
    write_json(whole.manifest_file, record)
    return AllFolds(work, whole, folds, record)


def resume(
    work: WorkFolder,
    out: Path,
    folds: tuple[Fold, ...],
    settings: Mapping[str, Any],
    start: Path | None,
) -> AllFolds:
    """Read the record of work to go on with; where it is to be longer, no fold is trained yet.

    Raises:
        TrainingError: ``out`` holds no such work, or it is of something else than is asked for.
        ConfigError: Settings are wrong, or cannot change any more.
    """
    whole = RunFolder(out)
    record = whole.manifest()
    whole.check_kind("all_folds")
    if record["hashes"] != work.hashes():
        raise TrainingError(
            f"{work.root}: was prepared or planned anew since {out} was begun.",
            remedy="Start again, into another --out.",
        )
    if start is not None:
        given, then = _identified(start), record["start"] or {}
        check_same_start(whole, given["sha256"], then.get("sha256"))
        record["start"] = given
    before = record["settings"]
    record["settings"] = layered(before, json.loads(json.dumps(settings)))
    resumed(whole, before, settings, work.plan())
    if record["settings"] != before:
        record["trained"] = {}
    write_json(whole.manifest_file, record)
    return AllFolds(work, whole, folds, record)


def _identified(start: Path) -> dict[str, str]:
    """Return where weights lie, and what they are."""
    return {"file": str(start.resolve()), "sha256": sha256(start)}

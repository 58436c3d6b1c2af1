"""All folds of a prepared dataset: the folder with a run of each, and the record of them."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.config import layered
from lamina.data.folds import Fold, read_folds
from lamina.errors import DatasetError, TrainingError
from lamina.files import sha256, write_json
from lamina.workflows.assembly import completed, configured, loss_of, network_of
from lamina.workflows.beginning import check_new, check_same_start, check_unchanged, origin_of
from lamina.workflows.run import ALL, RunFolder
from lamina.workflows.train import LENGTH
from lamina.workflows.work import WorkFolder


@dataclass(frozen=True)
class AllFolds:
    """The folds of one cross-validation; its record is the manifest of its folder."""

    work: WorkFolder
    whole: RunFolder
    """Holds the run of each fold, and all that is made of them."""
    folds: tuple[Fold, ...]
    record: dict[str, Any]

    def run(self, fold: int) -> RunFolder:
        """Return the run of a fold."""
        return RunFolder(self.whole.root / f"fold_{fold}")

    @property
    def start(self) -> Path | None:
        """The weights that each fold begins from, if any.

        Raises:
            TrainingError: They are others than when the first fold began.
            FileError: They are gone.
        """
        start = self.record["start"]
        if start is None:
            return None
        if sha256(Path(start["file"])) != start["sha256"]:
            raise TrainingError(
                f"{start['file']}: holds other weights than those that {self.whole.root} began "
                "from.",
                remedy="Give a copy of these to --from, with --resume, or start again.",
            )
        return Path(start["file"])

    @property
    def best_dice(self) -> dict[int, float]:
        """The best Dice of each fold that is trained, in the order of the folds."""
        return dict(sorted((int(fold), dice) for fold, dice in self.record["trained"].items()))

    @property
    def runs(self) -> list[RunFolder]:
        """Those of the folds that are trained."""
        return [self.run(fold) for fold in self.best_dice]

    def note(self, fold: int, best_dice: float) -> None:
        """Record that a fold is trained."""
        self.record["trained"][str(fold)] = best_dice
        write_json(self.whole.manifest_file, self.record)

    @property
    def seen_beforehand(self) -> str:
        """What to add to out-of-fold scores where attention maps know more than their fold may."""
        told = self.runs[0].manifest()["network"].get("attention", {}).get("origin", {})
        if told.get("splits") != self.record["hashes"]["splits.json"]:
            return ""
        return (
            "; the transformer that drew their attention maps was trained, without labels, on the "
            f"training scans of fold {told['fold']}, which other folds are validated on"
        )


def folds_of(work: WorkFolder) -> tuple[Fold, ...]:
    """Read the folds.

    Raises:
        DatasetError: ``work`` is not prepared, has one fold only, or validates a case twice.
    """
    work.plan()  # says what is missing where nothing was prepared
    folds = read_folds(work.splits_file)
    times = Counter(case for fold in folds for case in fold.val)
    twice = sorted(case for case, count in times.items() if count > 1)
    if len(folds) < 2 or twice:
        fault = f"{twice[0]} is validated in several" if twice else "there is only one"
        raise DatasetError(
            f"--fold all: {work.splits_file}: {fault}.",
            remedy="Train with --fold 0 and so on, or prepare with other splits.",
        )
    return folds


def kept_by_all(folds: tuple[Fold, ...]) -> set[str]:
    """Return the cases that every fold keeps for the end."""
    seen = {case for fold in folds for case in (*fold.train, *fold.val)}
    return set.intersection(*(set(fold.test) for fold in folds)) - seen


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
        ConfigError: Settings are wrong, as they would be in every fold.
    """
    whole = RunFolder(out)
    check_new(whole)
    plan = work.plan()
    config = completed(configured(settings, plan), plan)
    for make in (network_of, loss_of):
        make(config, plan)
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
    """
    whole = RunFolder(out)
    record = whole.manifest()
    if record["fold"] != ALL:
        raise TrainingError(f"{out}: is a run of fold {record['fold']}, not of all.")
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
    check_unchanged(whole, before, record["settings"], LENGTH)
    if record["settings"] != before:
        record["trained"] = {}
    write_json(whole.manifest_file, record)
    return AllFolds(work, whole, folds, record)


def _identified(start: Path) -> dict[str, str]:
    """Return where weights lie, and what they are."""
    return {"file": str(start.resolve()), "sha256": sha256(start)}

"""Scans of a prepared dataset that a model was trained on, and those that it has never seen."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from lamina.bundle import Bundle
from lamina.data.case import Case
from lamina.data.folds import Fold
from lamina.data.splits import kept_by_all
from lamina.errors import DatasetError
from lamina.files import sha256
from lamina.folders.work import WorkFolder


def training_scans(work: Path, bundle: Bundle) -> Sequence[Case]:
    """Return scans that a model, or the first of several that it is made of, was trained on.

    Raises:
        DatasetError: The folder is not prepared, or not as it was for this model.
    """
    folder = WorkFolder(work)
    return _cases(folder, _folds(folder, bundle)[0].train)


def unseen_scans(work: Path, bundle: Bundle) -> Sequence[Case]:
    """Return a model's validation scans; of one made of several, what all of them kept for the end.

    Raises:
        DatasetError: As above; or the members of an ensemble have seen every scan.
    """
    folder = WorkFolder(work)
    folds = _folds(folder, bundle)
    if len(folds) == 1:
        return _cases(folder, folds[0].val)
    kept = kept_by_all(folds)
    if not kept:
        raise DatasetError(
            f"{work}: every scan was seen by a member of the ensemble.",
            remedy="Export the model of one fold, or prepare the dataset with a test side; without "
            "--int8, --check also takes a folder of other scans.",
        )
    return _cases(folder, (case for case in folds[0].test if case in kept))


def _folds(folder: WorkFolder, bundle: Bundle) -> tuple[Fold, ...]:
    """Return the fold that a model was trained on, or those of its members; the first by default.

    A model that was not trained by Lamina tells neither a fold nor which splits these were.
    """
    folder.plan()  # says what is missing where nothing was prepared
    members = bundle.training.get("members")
    told = list(members.values()) if isinstance(members, dict) else [bundle.training]
    numbers = [each["fold"] if isinstance(each.get("fold"), int) else 0 for each in told]
    recorded = (bundle.provenance.get("hashes") or {}).get(folder.splits_file.name)
    if recorded not in (None, sha256(folder.splits_file)):
        raise DatasetError(
            f"{folder.splits_file}: is not what {bundle.source} was trained with, which may have "
            "seen any of these scans.",
            remedy="Give the work folder that it was trained on; without --int8, --check also "
            "takes a folder of other scans.",
        )
    return tuple(map(folder.fold, numbers))


def _cases(folder: WorkFolder, ids: Iterable[str]) -> Sequence[Case]:
    cases = {case.case_id: case for case in folder.cohort().cases}
    found = [cases[case_id] for case_id in ids if case_id in cases]
    if not found:
        raise DatasetError(f"{folder.root}: has no scans for it.")
    return found

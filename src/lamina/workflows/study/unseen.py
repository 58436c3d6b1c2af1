"""Scans that a study scores in place of a run's own: those of another prepared dataset."""

from collections.abc import Sequence
from pathlib import Path

from lamina.data.case import Case
from lamina.errors import DatasetError
from lamina.files import sha256
from lamina.folders.work import WorkFolder


def unseen_cases(work: Path, unseen: Path) -> tuple[Case, ...]:
    """Return the scans of another prepared dataset.

    Raises:
        DatasetError: It has other structures.
    """
    cohort, labels = WorkFolder(unseen).cohort(), WorkFolder(work).plan().labels
    if dict(cohort.labels.values) != dict(labels.values):
        names = [
            ", ".join(f"{n} = {v}" for n, v in s.values.items()) for s in (labels, cohort.labels)
        ]
        raise DatasetError(
            f"{unseen}: its labels are {names[1]}; {work} has {names[0]}.",
            remedy="Give both the same labels in dataset.json.",
        )
    return cohort.cases


def check_unseen(work: Path, unseen: Path) -> None:
    """Refuse scans that networks are trained on, whatever they are called, or of such patients.

    Patients of one id are the same where the datasets have one name.

    Raises:
        DatasetError: There are such; or the dataset has other structures.
    """
    theirs = unseen_cases(work, unseen)
    ours = WorkFolder(work).training_cohort()
    copies = _copies(theirs, ours.cases)
    alike = ours.name == WorkFolder(unseen).cohort().name
    patients = {case.group for case in ours.cases if alike}
    seen = [case.case_id for case in theirs if case.case_id in copies or case.group in patients]
    named = f"{', '.join(seen[:5])}{', ...' if len(seen) > 5 else ''}"
    if copies:
        raise DatasetError(
            f"{unseen}: {work} has these scans, or their patients, to train on: {named}.",
            remedy="Give --unseen scans of other patients.",
        )
    if seen:
        raise DatasetError(
            f"{unseen}: both datasets are called {ours.name!r}, so that patients of one id count "
            f"as one, and {work} has those of these scans to train on: {named}.",
            remedy="Give --unseen scans of other patients; if these are of others, give "
            "their dataset another name in dataset.json and prepare it again.",
        )


def _copies(theirs: Sequence[Case], ours: Sequence[Case]) -> set[str]:
    """Return which cases have no image file but ours; only files of one size are read."""
    known = {file: size for case in ours for file, size in _sizes(case).items()}
    sizes = set(known.values())
    alike = {case.case_id: found for case in theirs if (found := _sizes(case))}
    alike = {case: found for case, found in alike.items() if sizes.issuperset(found.values())}
    asked = {size for found in alike.values() for size in found.values()}
    contents = {sha256(file) for file, size in known.items() if size in asked}
    return {case for case, found in alike.items() if all(sha256(f) in contents for f in found)}


def _sizes(case: Case) -> dict[Path, int]:
    """Return an image's files and their bytes; training needs those of prepared scans no more."""
    return {file: file.stat().st_size for file in case.image_files if file.is_file()}

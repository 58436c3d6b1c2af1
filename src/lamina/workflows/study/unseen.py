"""Scans that a study scores in place of a run's own: those of another prepared dataset."""

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

    Patients of one name are the same where the datasets have one name.

    Raises:
        DatasetError: There are such; or the dataset has other structures.
    """
    theirs = unseen_cases(work, unseen)
    ours = WorkFolder(work).training_cohort()
    contents = {digest for case in ours.cases for digest in _contents(case)}
    alike = ours.name == WorkFolder(unseen).cohort().name
    patients = {case.group for case in ours.cases if alike}
    seen = [
        case.case_id
        for case in theirs
        if case.group in patients or ((found := _contents(case)) and found <= contents)
    ]
    if seen:
        raise DatasetError(
            f"{unseen}: {work} has these scans, or their patients, to train on: "
            f"{', '.join(seen[:5])}{', ...' if len(seen) > 5 else ''}.",
            remedy="Give --unseen scans of other patients, and each dataset a name of its own.",
        )


def _contents(case: Case) -> set[str]:
    """Return the hashes of an image's files; training needs those of prepared scans no more."""
    return {sha256(file) for file in case.image_files if file.is_file()}

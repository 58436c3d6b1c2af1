"""Splits into training and validation, by patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lamina.data.case import Case
from lamina.errors import ConfigError, DatasetError
from lamina.files import read_json, write_json


@dataclass(frozen=True)
class Fold:
    """Case ids on both sides of one split."""

    train: tuple[str, ...]
    val: tuple[str, ...]


def make_folds(cases: Sequence[Case], num_folds: int = 5, seed: int = 0) -> tuple[Fold, ...]:
    """Share out the patients evenly; all cases of a patient stand on the same side.

    With fewer patients than folds there are as many folds as patients.

    Raises:
        ConfigError: ``num_folds`` is below 2.
        DatasetError: There is only one patient, so nothing can be kept out.
    """
    if num_folds < 2:
        raise ConfigError(f"{num_folds} folds: at least 2 are needed to train and to validate.")
    groups = sorted({case.group for case in cases})
    if len(groups) < 2:
        raise DatasetError(
            f"{len(cases)} usable scans of {len(groups)} patient; validation needs two patients.",
            remedy="Add scans of other patients; what a file name has before _visit, _ses, _scan, "
            "_frame, _phase or _tp is taken for the patient.",
        )
    order = np.random.default_rng(seed).permutation(len(groups))
    count = min(num_folds, len(groups))
    side = {groups[index]: position % count for position, index in enumerate(order)}
    return tuple(
        Fold(
            train=tuple(case.case_id for case in cases if side[case.group] != fold),
            val=tuple(case.case_id for case in cases if side[case.group] == fold),
        )
        for fold in range(count)
    )


def given_fold(cases: Sequence[Case]) -> Fold | None:
    """Return the dataset's own split into training and validation, if it has one.

    Raises:
        DatasetError: Some cases are on no side, a side is empty, or a patient is on both.
    """
    sides = {case.side for case in cases}
    if "val" not in sides:
        return None
    if aside := [case.case_id for case in cases if case.side not in ("train", "val")]:
        raise DatasetError(
            f"{len(aside)} cases are neither for training nor validation: {aside[:5]}.",
            remedy="Give every case a side in the column split, or none.",
        )
    fold = Fold(
        train=tuple(case.case_id for case in cases if case.side == "train"),
        val=tuple(case.case_id for case in cases if case.side == "val"),
    )
    groups = [{case.group for case in cases if case.side == side} for side in ("train", "val")]
    if both := sorted(groups[0] & groups[1]):
        raise DatasetError(
            f"patients are on both sides of the split: {both[:5]}.",
            remedy="Correct the column split or group, or take out split for folds by patient.",
        )
    if not fold.train:
        raise DatasetError(
            "the split has no case for training.", remedy="Correct the column split."
        )
    return fold


def write_folds(path: Path, folds: Sequence[Fold]) -> None:
    """Write ``splits.json``: a list of ``{"train": [...], "val": [...]}``, as nnU-Net has it."""
    write_json(path, [{"train": list(fold.train), "val": list(fold.val)} for fold in folds])


def read_fold(path: Path, fold: int) -> Fold:
    """Read one fold of ``splits.json``.

    Raises:
        DatasetError: There is no fold of that number, it has an empty side, or a case on both.
    """
    try:
        folds = [Fold(tuple(split["train"]), tuple(split["val"])) for split in read_json(path)]
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{path}: not a list of train and val: {error!r}.") from error
    if not 0 <= fold < len(folds):
        raise DatasetError(f"--fold {fold}: {path} has folds 0 to {len(folds) - 1}.")
    train, val = folds[fold].train, folds[fold].val
    if not train or not val:
        raise DatasetError(f"{path}: fold {fold} has an empty side.")
    if both := sorted({*train} & {*val}):
        raise DatasetError(f"{path}: fold {fold} has {both[:5]} on both sides.")
    return folds[fold]

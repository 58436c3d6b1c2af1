"""Splits into training and validation, by patient: made, given, and checked for leaks."""

from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lamina.data.case import Case
from lamina.data.dealing import Strata, deal, traits_of
from lamina.data.doctor import Finding
from lamina.errors import ConfigError, DatasetError, reasons, repeated
from lamina.files import read_json, write_json

SIDES = ("train", "val", "test")


@dataclass(frozen=True)
class Fold:
    """Case ids on the sides of one split; those in ``test`` are kept for the end."""

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...] = ()


def make_folds(
    cases: Sequence[Case],
    num_folds: int = 5,
    seed: int = 0,
    *,
    strata: Strata | None = None,
    exact: bool = False,
    excluded: Mapping[str, str] | None = None,
) -> tuple[Fold, ...]:
    """Share out the patients evenly; all cases of a patient stand on the same side.

    Args:
        cases: Scans of one cohort; those on its side ``test`` are in no fold's train or val.
        num_folds: With fewer patients there are as many folds as patients, unless ``exact``.
        seed: Decides which patients stand together.
        strata: What the folds shall have equally much of; without, they have equally many patients.
        exact: Refuse to make fewer folds.
        excluded: Case id -> why it is not among ``cases``, to be told where these are too few.

    Raises:
        ConfigError: ``num_folds`` is below 2.
        DatasetError: There are too few patients, or ``strata`` lacks a case.
    """
    if num_folds < 2:
        raise ConfigError(f"{num_folds} folds: at least 2 are needed to train and to validate.")
    test = tuple(case.case_id for case in cases if case.side == "test")
    cases = [case for case in cases if case.side != "test"]
    groups = sorted({case.group for case in cases})
    count = min(num_folds, len(groups))
    if count < 2:
        raise _too_few(len(cases), len(groups), excluded or {})
    if exact and count < num_folds:
        raise DatasetError(
            f"{num_folds} folds: there are {count} patients.", remedy=f"Make {count} folds at most."
        )
    side = dict(zip(groups, deal(traits_of(cases, groups, strata), count, seed), strict=True))
    return tuple(
        Fold(
            train=tuple(case.case_id for case in cases if side[case.group] != fold),
            val=tuple(case.case_id for case in cases if side[case.group] == fold),
            test=test,
        )
        for fold in range(count)
    )


def _too_few(num_cases: int, num_patients: int, excluded: Mapping[str, str]) -> DatasetError:
    refused = f" {len(excluded)} cannot be used: {reasons({**excluded})}" if excluded else ""
    return DatasetError(
        f"{num_cases} usable scan{'' if num_cases == 1 else 's'} of {num_patients} "
        f"patient{'' if num_patients == 1 else 's'}; validation needs two patients.{refused}",
        remedy="Add scans of other patients"
        + (", or mend those that cannot be used" if excluded else "")
        + "; what a file name has before _visit, _ses, _scan, _frame, _phase or _tp is taken for "
        "the patient.",
    )


def given_fold(cases: Sequence[Case], *, allow_leakage: bool = False) -> Fold | None:
    """Return the dataset's own split into training and validation, if it has one.

    Args:
        cases: All scans of the cohort.
        allow_leakage: Accept patients that stand on two sides.

    Raises:
        DatasetError: Some cases are on no side, none is there to train on, or a patient is on two
            sides, be it only of test and training, where cases on no side are trained on.
    """
    fold = Fold(*(tuple(c.case_id for c in cases if c.side == side) for side in SIDES))
    aside = [case.case_id for case in cases if case.side not in SIDES]
    if not allow_leakage:  # beside a test side alone, cases on no side are learnt from
        _refuse_leaks("split", (replace(fold, train=(*fold.train, *aside)),), cases)
    if not fold.val:
        return None
    if aside:
        raise DatasetError(
            f"{len(aside)} cases are neither for training nor validation: {aside[:5]}.",
            remedy="Give every case a side in the column split, or none.",
        )
    if not fold.train:
        raise DatasetError("the split has no case for training.")
    return fold


def given_folds(
    path: Path, cases: Sequence[Case], *, allow_leakage: bool = False
) -> tuple[Fold, ...]:
    """Read and check folds that somebody else made.

    Args:
        path: A ``splits.json`` as :func:`write_folds` or nnU-Net writes it; cases that it does not
            list are not used.
        cases: All scans of the cohort; :func:`drop_cases` takes out later what cannot be used.
        allow_leakage: Accept patients that stand on two sides.

    Raises:
        FileError, DatasetError: As :func:`read_folds`; or it lists unknown cases, trains or
            validates on the cohort's side ``test``, or has a patient on two sides.
    """
    folds = read_folds(path)
    test = {case.case_id for case in cases if case.side == "test"}
    learnt = {case_id for fold in folds for case_id in (*fold.train, *fold.val)}
    named = learnt.union(*(fold.test for fold in folds))
    if strange := sorted(named - {case.case_id for case in cases}):
        raise DatasetError(
            f"{path}: {len(strange)} cases are not in the dataset: {strange[:5]}.",
            remedy=f"Its cases have names such as {cases[0].case_id}.",
        )
    if early := sorted(learnt & test):
        raise DatasetError(f"{path}: has cases of the test side in train or val: {early[:5]}.")
    folds = tuple(replace(fold, test=tuple(sorted({*fold.test, *test}))) for fold in folds)
    if not allow_leakage:
        _refuse_leaks(str(path), folds, cases)
    return folds


def drop_cases(folds: Sequence[Fold], unusable: Collection[str]) -> tuple[Fold, ...]:
    """Return the folds without some cases; a ``DatasetError`` where that leaves a side bare."""
    kept = tuple(
        Fold(*(tuple(i for i in ids if i not in unusable) for ids in vars(fold).values()))
        for fold in folds
    )
    if bare := [number for number, fold in enumerate(kept) if not fold.train or not fold.val]:
        raise DatasetError(
            f"folds {bare}: no case to train on, or none to validate on, can be used.",
            remedy="Mend these cases, or give other folds.",
        )
    return kept


def leaks(
    folds: Sequence[Fold], cases: Sequence[Case], digests: Mapping[str, Hashable] | None = None
) -> tuple[Finding, ...]:
    """Audit folds: tell which patients, and which images, stand on two sides of one.

    Args:
        folds: To be audited.
        cases: Their cases; a fold's other cases are not looked at.
        digests: Case id -> what is equal for equal images, such as ``ImageFacts.digests``.

    Returns:
        One finding per patient and one per image; each names the first fold that it concerns.
    """
    by_id = {case.case_id: case for case in cases}
    patients = {case_id: f"patient {case.group}" for case_id, case in by_id.items()}
    first: dict[Hashable, str] = {}
    images = {
        case_id: f"the image of {first.setdefault(digest, case_id)}"
        for case_id, digest in sorted((digests or {}).items())
        if case_id in by_id
    }
    return (*_divided(folds, patients, by_id), *_divided(folds, images, by_id))


def write_folds(path: Path, folds: Sequence[Fold]) -> None:
    """Write ``splits.json``: a list of ``{"train": [...], "val": [...]}``, as nnU-Net has it.

    ``"test"`` is there too where cases are kept for the end.
    """
    plain = [{s: ids for s, ids in vars(f).items() if ids or s != "test"} for f in folds]
    write_json(path, plain)


def read_folds(path: Path) -> tuple[Fold, ...]:
    """Read ``splits.json``.

    Raises:
        FileError, DatasetError: It is no list of folds; one has an empty side or a case twice.
    """
    data = read_json(path)
    entries = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    folds = [[each.get("train"), each.get("val"), each.get("test", [])] for each in entries]
    lists = [ids for sides in folds for ids in sides]
    named = all(isinstance(ids, list) and all(isinstance(i, str) for i in ids) for ids in lists)
    if not folds or len(folds) < len(data) or not named:
        raise DatasetError(f"{path}: not a list of train and val, each a list of names.")
    for number, sides in enumerate(folds):
        if not sides[0] or not sides[1]:
            raise DatasetError(f"{path}: fold {number} has an empty side.")
        if twice := repeated(case_id for ids in sides for case_id in ids):
            raise DatasetError(f"{path}: fold {number} has {twice} on both sides, or twice.")
    return tuple(Fold(*map(tuple, sides)) for sides in folds)


def read_fold(path: Path, fold: int) -> Fold:
    """Read one fold of ``splits.json``.

    Raises:
        DatasetError: As :func:`read_folds`, or there is no fold of that number.
    """
    folds = read_folds(path)
    if not 0 <= fold < len(folds):
        raise DatasetError(f"fold {fold}: {path} has folds 0 to {len(folds) - 1}.")
    return folds[fold]


def _refuse_leaks(source: str, folds: Sequence[Fold], cases: Sequence[Case]) -> None:
    if found := leaks(folds, cases):
        raise DatasetError(
            f"{source}: patients are divided: {' '.join(leak.message for leak in found[:3])}",
            remedy="Give one side all scans of a patient, or accept it with --allow-leakage.",
        )


def _divided(
    folds: Sequence[Fold], owners: Mapping[str, str], cases: Mapping[str, Case]
) -> list[Finding]:
    """Return a finding for each owner of cases that has some on two sides of a fold."""
    found: dict[str, Finding] = {}
    for number, fold in enumerate(folds):
        held: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for side, ids in vars(fold).items():
            for case_id in owners.keys() & {*ids}:
                held[owners[case_id]][side].append(case_id)
        for owner, sides in sorted(held.items()):
            if len(sides) > 1 and owner not in found:
                named = [f"{side} ({', '.join(sorted(ids)[:5])})" for side, ids in sides.items()]
                first, second, *_ = map(min, sides.values())
                found[owner] = Finding(
                    severity="error",
                    check="train_test",
                    case=first,
                    file=str(next(iter(cases[first].images), "")),
                    message=f"{owner} is on both sides of fold {number}: {', '.join(named)}.",
                    remedy="Let all of them stand on one side.",
                    other=second,
                )
    return list(found.values())

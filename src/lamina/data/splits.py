"""Splits: which cases are trained and validated on, and which are kept for the end."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

from lamina.data.case import Case
from lamina.data.cohort import Cohort
from lamina.data.fingerprint import Fingerprint
from lamina.data.folds import Fold, drop_cases, given_fold, given_folds, make_folds
from lamina.data.protocols import Assignment, follow
from lamina.errors import ConfigError

_NUM_FOLDS = 5

_log = logging.getLogger(__name__)


def assign(
    cohort: Cohort, protocol: str | None, public: str | None
) -> tuple[Cohort, Assignment | None]:
    """Return the cohort as a paper used it, where one is followed, and how that came about.

    Raises:
        ConfigError: A public dataset is named, but no protocol.
        UnknownNameError, DatasetError: As :func:`~lamina.data.protocols.follow`.
    """
    if protocol is None:
        if public:
            raise ConfigError(
                f"dataset {public}: only says what a protocol is for.",
                remedy="Give a protocol, or leave it out.",
            )
        return cohort, None
    assigned = follow(cohort, protocol, public)
    for departure in assigned.departures:
        _log.warning("%s as %s used it: %s", assigned.dataset, protocol, departure)
    return assigned.cohort, assigned


def given_split(
    cohort: Cohort,
    assigned: Assignment | None,
    splits: Path | None,
    num_folds: int | None,
    allow_leakage: bool,
) -> tuple[Fold, ...]:
    """Return the folds of the file, or of the dataset's own split; none where they are to be made.

    All cases are there yet: whether a split makes sense is known before any scan is read.

    Raises:
        ConfigError: Folds are counted or given beside others that are given.
        FileError, DatasetError: As :func:`~lamina.data.folds.given_folds`, or the dataset's own
            split has a patient on two sides or nothing to train on.
    """
    if assigned and assigned.has_split and (splits or num_folds is not None):
        raise ConfigError(
            f"protocol {assigned.paper}: brings the paper's own split of {assigned.dataset}.",
            remedy="Leave out the file of splits and the number of folds.",
        )
    own = None if splits else given_fold(cohort.cases, allow_leakage=allow_leakage)
    given = given_folds(splits, cohort.cases, allow_leakage=allow_leakage) if splits else ()
    if num_folds is not None and (own or given):
        raise ConfigError(
            f"{num_folds} folds: {splits or 'the dataset'} has {len(given) or 'a split'} already.",
            remedy="Leave out the number of folds.",
        )
    return (own,) if own else given


def set_aside(cohort: Cohort, given: tuple[Fold, ...]) -> tuple[Cohort, tuple[Case, ...]]:
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


def divide(
    cohort: Cohort,
    test: tuple[Case, ...],
    given: tuple[Fold, ...],
    excluded: Mapping[str, str],
    num_folds: int | None,
    fingerprint: Fingerprint,
) -> tuple[Fold, ...]:
    """Return the given folds, or such with equally many and large structures.

    Raises:
        DatasetError: A side is left without a usable case, or there are too few patients.
    """
    if given:
        return drop_cases(given, excluded)
    volumes = {
        facts.case_id: {name: n * prod(facts.spacing) for name, n in facts.voxels.items()}
        for facts in fingerprint.cases
    }
    exact = num_folds is not None
    count = _NUM_FOLDS if num_folds is None else num_folds
    return make_folds((*cohort.cases, *test), count, strata=volumes, exact=exact, excluded=excluded)


def kept_by_all(folds: tuple[Fold, ...]) -> set[str]:
    """Return the cases that every fold keeps for the end."""
    seen = {case for fold in folds for case in (*fold.train, *fold.val)}
    return set.intersection(*(set(fold.test) for fold in folds)) - seen

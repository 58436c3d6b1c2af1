"""Datasets: what is known of public ones, and the exact protocols of the papers that used them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from lamina.data.case import Case, Cohort
from lamina.data.datasets import (
    DatasetDescription,
    Protocol,
    list_descriptions,
    load_description,
)
from lamina.data.folds import Fold
from lamina.errors import DatasetError, UnknownNameError
from lamina.labels import LabelSet


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A cohort as one paper used it."""

    cohort: Cohort
    """The cases to train and to validate on, with the labels of the paper."""
    folds: tuple[Fold, ...]
    """The paper's own split; empty where it is not public, for folds by patient to be made."""
    test: tuple[Case, ...]
    """The cases that are kept for the end."""
    relabel: Mapping[int, int]
    """Value in label files -> declared value that it counts as: 2 -> 1 where tumour is liver."""
    missing: tuple[int, ...]
    """Numbers of cases that the paper used and the cohort has not."""
    surplus: tuple[str, ...]
    """Ids of cases that the paper did not use; they are left out."""


def list_datasets(names: Sequence[str] | None = None) -> list[DatasetDescription]:
    """Return the descriptions of public datasets.

    Args:
        names: Datasets; all by default.

    Raises:
        UnknownNameError: A dataset is unknown.
    """
    return [load_description(name) for name in names or list_descriptions()]


def match(cohort: Cohort) -> list[DatasetDescription]:
    """Tell which public datasets a cohort could be, by the names of all its cases.

    Two datasets may share their scans, as ``btcv`` and ``synapse`` do, or only the way they name
    them; so this is a hint to show, and never a reason to change anything unasked.
    """
    return [
        description
        for description in list_datasets()
        if (names := description.names) and all(names.fits(c.case_id) for c in cohort.cases)
    ]


def used_by(cohort: Cohort, paper: str) -> DatasetDescription:
    """Return the dataset that a cohort is and that a paper has a protocol for.

    Raises:
        DatasetError: The names of the cases are those of no such dataset.
    """
    matching = match(cohort)
    for description in matching:
        if paper in description.protocols:
            return description
    known = [d.name for d in list_datasets() if d.names and paper in d.protocols]
    found = ", ".join(d.name for d in matching) or "no dataset that is described"
    raise DatasetError(
        f"{cohort.name}: by the names of its cases it is {found}; {paper} has no protocol for it.",
        remedy=f"It has one for {', '.join(known) or 'none'}; lamina datasets shows them all.",
    )


def apply_protocol(cohort: Cohort, description: DatasetDescription, paper: str) -> Assignment:
    """Divide and relabel a cohort as a paper did.

    Args:
        cohort: The dataset as its layout was read.
        description: What the dataset is.
        paper: Paper whose protocol is followed, such as ``"lightmedseg"``.

    Raises:
        UnknownNameError: The paper has no protocol for this dataset.
        DatasetError: The paper trained nothing on it, the cohort has none of the cases that the
            paper trained or validated on, or its labels are not those of the dataset.
    """
    if paper not in description.protocols:
        raise UnknownNameError(
            f"{description.name}: {paper!r} has no protocol for it.",
            remedy=f"Known: {', '.join(description.protocols)}.",
        )
    protocol = description.protocols[paper]
    if protocol.trained_on:
        raise DatasetError(
            f"{description.name}: {paper} only tests on it.",
            remedy=f"Train on {protocol.trained_on}, then predict and evaluate these scans.",
        )
    labels, relabel = _labels(cohort, description, protocol)
    sides, missing = _sides(cohort, description, protocol)
    listed = protocol.split is not None and protocol.split.train
    fold = Fold(train=_ids(sides["train"]), val=_ids(sides["val"]))
    learning = {*fold.train, *fold.val}
    used = learning | {*_ids(sides["test"])}
    kept = tuple(case for case in cohort.cases if case.case_id in learning)
    licence = cohort.licence or description.licence
    return Assignment(
        cohort=replace(cohort, cases=kept, labels=labels, licence=licence),
        folds=(fold,) if listed else (),
        test=sides["test"],
        relabel=relabel,
        missing=missing,
        surplus=tuple(c.case_id for c in cohort.cases if c.case_id not in used),
    )


def _labels(
    cohort: Cohort, description: DatasetDescription, protocol: Protocol
) -> tuple[LabelSet, dict[int, int]]:
    """Return the labels of the paper and what file values count as, where it differs."""
    known = description.label_set
    strange = sorted({*cohort.labels.values.values()} - {*known.values.values()})
    if strange and (protocol.labels or protocol.split):
        raise DatasetError(
            f"{cohort.name}: has the labels {strange}; {description.name} has {known.values}.",
            remedy="Give the labels as they were downloaded.",
        )
    if not protocol.labels:  # pictures may have been saved with other values than the originals
        return (cohort.labels if strange else known), {}
    values = {name: known.values[members[0]] for name, members in protocol.labels.items()}
    target = {
        known.values[member]: values[name]
        for name, members in protocol.labels.items()
        for member in members
    }
    counts_as = {v: target.get(v, known.background) for v in known.values.values()}
    return LabelSet(values=values), {v: to for v, to in counts_as.items() if v != to}


def _sides(
    cohort: Cohort, description: DatasetDescription, protocol: Protocol
) -> tuple[dict[str, tuple[Case, ...]], tuple[int, ...]]:
    """Return the cases on each side and the numbers that no case has."""
    if protocol.split is None or description.names is None:
        used = tuple(c for c in cohort.cases if re.fullmatch(protocol.only or ".*", c.case_id))
        return {"train": used, "val": (), "test": ()}, ()
    numbers = {case.case_id: description.names.number(case.case_id) for case in cohort.cases}
    found = {number for number in numbers.values() if number is not None}
    listed = {side: {*given} for side, given in protocol.split.sides().items()}
    listed["train"] = listed["train"] or found - listed["val"] - listed["test"]
    sides = {
        side: tuple(case for case in cohort.cases if numbers[case.case_id] in given)
        for side, given in listed.items()
    }
    if not sides["train"] or (listed["val"] and not sides["val"]):
        raise DatasetError(
            f"{cohort.name}: has none of the cases that the protocol "
            f"{'validates on' if sides['train'] else 'trains on'}.",
            remedy=f"Cases of {description.name} are called {description.names.examples[0]}.",
        )
    return sides, tuple(sorted(set().union(*listed.values()) - found))


def _ids(cases: tuple[Case, ...]) -> tuple[str, ...]:
    return tuple(case.case_id for case in cases)

"""Protocols: public datasets divided and relabelled exactly as the papers did that used them."""

import re
from dataclasses import dataclass, replace
from typing import Any

from lamina.data.case import Case
from lamina.data.cohort import Cohort
from lamina.data.datasets import (
    PAPERS,
    DatasetDescription,
    Protocol,
    Split,
    expand,
    load_description,
    load_descriptions,
)
from lamina.errors import DatasetError, UnknownNameError, some, unknown
from lamina.labels import LabelSet

_NAMED = 10
"""Missing cases that are named in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A cohort as one paper used it."""

    paper: str
    dataset: str
    cohort: Cohort
    """The cases that the paper used, on its sides where its split is public, with its channels and
    labels; file values that it unites or leaves out are in ``labels.relabel``."""
    protocol: Protocol
    missing: tuple[int, ...]
    """Numbers of cases that the paper used and the cohort has not."""
    surplus: tuple[str, ...]
    """Ids of cases that the paper did not use; they are left out."""
    departures: tuple[str, ...]
    """Where this cannot be what the paper did, in sentences."""

    @property
    def has_split(self) -> bool:
        """Whether the cohort's sides are those of the paper, training and validation among them."""
        return self.protocol.split is not None and bool(self.protocol.split.train)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, without the cases."""
        return {
            "paper": self.paper,
            "dataset": self.dataset,
            "missing": list(self.missing),
            "surplus": list(self.surplus),
            "departures": list(self.departures),
            "note": self.protocol.note,
        }


def match(cohort: Cohort) -> list[DatasetDescription]:
    """Tell which public datasets a cohort could be, by the names of all its cases.

    Two datasets may share their scans, as ``btcv`` and ``synapse`` do, or only the way they name
    them; so this is a hint to show, and never a reason to change anything unasked.
    """
    return [
        description
        for description in load_descriptions()
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
    known = [d.name for d in load_descriptions() if d.names and paper in d.protocols]
    found = ", ".join(d.name for d in matching) or "no dataset that is described"
    raise DatasetError(
        f"{cohort.name}: by the names of its cases it is {found}; {paper} has no protocol for it.",
        remedy=f"It has one for {', '.join(known) or 'none'}; name the public dataset.",
    )


def follow(cohort: Cohort, paper: str, dataset: str | None = None) -> Assignment:
    """Divide and relabel a cohort as a paper did, whichever public dataset it is.

    Args:
        cohort: The dataset as its layout was read.
        paper: Paper whose protocol is followed, such as ``"lightmedseg"``.
        dataset: What the cohort is; told by the names of its cases if not given.

    Raises:
        UnknownNameError: No such paper or dataset is known, or the one did not use the other.
        DatasetError: As :func:`used_by` and :func:`apply_protocol`.
    """
    if paper not in PAPERS:
        raise unknown("protocol", paper, PAPERS)
    description = load_description(dataset) if dataset else used_by(cohort, paper)
    return apply_protocol(cohort, description, paper)


def apply_protocol(cohort: Cohort, description: DatasetDescription, paper: str) -> Assignment:
    """Divide and relabel a cohort as a paper did.

    Args:
        cohort: The dataset as its layout was read. Where the paper's split is not public, its cases
            keep the sides that they have.
        description: What the dataset is.
        paper: Paper whose protocol is followed, such as ``"lightmedseg"``.

    Raises:
        UnknownNameError: The paper has no protocol for this dataset.
        DatasetError: The paper trained nothing on it, the cohort has none of the cases that the
            paper used, or trained or validated on, or its labels are not those of the dataset.
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
    cases, missing = _used(cohort, description, protocol)
    used = {case.case_id for case in cases}
    return Assignment(
        paper=paper,
        dataset=description.name,
        cohort=replace(
            cohort,
            cases=cases,
            channels=_channels(cohort, description),
            labels=_labels(cohort, description, protocol),
            licence=cohort.licence or description.licence,
            source=cohort.source or description.citation,
        ),
        protocol=protocol,
        missing=missing,
        surplus=tuple(c.case_id for c in cohort.cases if c.case_id not in used),
        departures=_departures(len(cases), missing, description, protocol),
    )


def _channels(cohort: Cohort, description: DatasetDescription) -> tuple[str, ...]:
    """Call the only channel what it is where nobody has: that it is CT decides on its scale."""
    nameless = cohort.channels == ("channel_0",) and len(description.channels) == 1
    return description.channels if nameless else cohort.channels


def _labels(cohort: Cohort, description: DatasetDescription, protocol: Protocol) -> LabelSet:
    """Return the labels of the paper, and in them what other values in the files count as."""
    known = description.label_set
    strange = sorted({*cohort.labels.values.values()} - {*known.values.values()})
    if strange and (protocol.labels or protocol.split):
        raise DatasetError(
            f"{cohort.name}: has the labels {strange}; {description.name} has {known.values}.",
            remedy="Give the labels as they were downloaded.",
        )
    if not protocol.labels:  # pictures may have been saved with other values than the originals
        return cohort.labels if strange else known
    values = {name: known.values[members[0]] for name, members in protocol.labels.items()}
    target = {
        known.values[member]: values[name]
        for name, members in protocol.labels.items()
        for member in members
    }
    counts_as = {v: target.get(v, known.background) for v in known.values.values()}
    return LabelSet(values=values, relabel={v: to for v, to in counts_as.items() if v != to})


def _used(
    cohort: Cohort, description: DatasetDescription, protocol: Protocol
) -> tuple[tuple[Case, ...], tuple[int, ...]]:
    """Return the cases that the paper used, on its sides, and the numbers that no case has."""
    names = description.names
    numbers = {c.case_id: names.number(c.case_id) if names else None for c in cohort.cases}
    if protocol.split is None:
        pattern = protocol.only or (names.pattern if names else ".*")
        cases = tuple(c for c in cohort.cases if re.fullmatch(pattern, c.case_id))
        needed = {*expand(names.numbers)} if names else set()
    else:
        side_of = _side_of(description, protocol.split)
        cases = tuple(
            replace(case, side=side_of[number])
            for case in cohort.cases
            if (number := numbers[case.case_id]) in side_of
        )
        needed = {*side_of}
        _check_sides({case.side for case in cases}, protocol.split, cohort, description)
    if not cases:
        raise _lacking("uses", cohort, description)
    return cases, tuple(sorted(needed - {*numbers.values()}))


def _side_of(description: DatasetDescription, split: Split) -> dict[int, str]:
    """Return the number of every case -> its side; empty where it is to train or to validate on."""
    listed = {number: side for side, given in split.sides().items() for number in given}
    if split.train or description.names is None:
        return listed
    return dict.fromkeys(expand(description.names.numbers), "") | listed


def _check_sides(
    found: set[str], split: Split, cohort: Cohort, description: DatasetDescription
) -> None:
    if found <= {"val", "test"}:
        raise _lacking("trains on", cohort, description)
    if split.val and "val" not in found:
        raise _lacking("validates on", cohort, description)


def _lacking(what: str, cohort: Cohort, description: DatasetDescription) -> DatasetError:
    names = description.names
    return DatasetError(
        f"{cohort.name}: has none of the cases that the protocol {what}.",
        remedy=f"Cases of {description.name} are called {names.examples[0]}." if names else "",
    )


def _departures(
    num_cases: int,
    missing: tuple[int, ...],
    description: DatasetDescription,
    protocol: Protocol,
) -> tuple[str, ...]:
    said = []
    printed = (protocol.num_train, protocol.num_val, protocol.num_test)
    aim = sum(filter(None, printed)) or description.size.cases or num_cases
    numbered = description.names is not None and description.names.numbers
    if missing:
        numbers = some(missing, _NAMED)
        said.append(f"{len(missing)} cases of the paper are not here: numbers {numbers}.")
    elif num_cases != aim and not numbered:
        said.append(f"{num_cases} cases are here, {aim} in the paper.")
    if protocol.split is None or not protocol.split.train:
        lists = f" Lists: {protocol.lists}; --splits takes them." if protocol.lists else ""
        said.append(f"The split is not the paper's own. {protocol.note}{lists}")
    return tuple(said)

"""What is publicly known of the datasets that the published networks were trained and tested on.

One YAML file here describes one dataset: what it shows, who may use it, where it is, and the exact
cases that each paper trained, validated and tested on. Nothing is guessed: what is not published
is empty, and a note says so. The scans themselves are not here, and nothing is downloaded.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from lamina.config import load_yaml, resolve
from lamina.errors import ConfigError, LabelError, UnknownNameError
from lamina.labels import LabelSet

PAPERS = ("dainet", "glims", "lgmsnet", "lightmedseg", "mpunet")
"""Papers that have protocols, named after their networks."""

Numbers = tuple[int | str, ...]
"""Case numbers and ranges of them with both ends in: ``(3, "27-46")``."""

_RANGE = re.compile(r"(\d+)-(\d+)")


def expand(numbers: Numbers) -> tuple[int, ...]:
    """Spell out ranges: ``(3, "27-29")`` -> ``(3, 27, 28, 29)``.

    Raises:
        ConfigError: An entry is neither a number nor a rising range.
    """
    found: list[int] = []
    for entry in numbers:
        match = _RANGE.fullmatch(f"{entry}-{entry}" if isinstance(entry, int) else entry)
        if not match or int(match[1]) > int(match[2]):
            raise ConfigError(f"{entry!r}: must be a number or a range such as 27-46.")
        found += range(int(match[1]), int(match[2]) + 1)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class CaseNames:
    """What the cases of a dataset are called.

    Raises:
        ConfigError: The pattern is no regular expression, does not fit the examples, or has not
            the one group that numbers are read from.
    """

    pattern: str
    """Regular expression of a whole case id; its group is the number that splits go by."""
    examples: tuple[str, ...]
    numbers: Numbers = ()
    """The numbers of all labelled cases; patients where these have several scans."""

    def __post_init__(self) -> None:
        if _compile(self.pattern).groups != bool(self.numbers):
            raise ConfigError(f"{self.pattern!r}: needs one group where cases have numbers.")
        _check_unique("numbers", expand(self.numbers))
        if strange := [name for name in self.examples if not self.fits(name)]:
            raise ConfigError(f"{self.pattern!r}: does not fit {strange}.")

    def fits(self, case_id: str) -> bool:
        """Tell whether a case could be one of this dataset, by its name."""
        return re.fullmatch(self.pattern, case_id) is not None

    def number(self, case_id: str) -> int | None:
        """Return the number in a case id, or None where the name is another or has no number."""
        match = re.fullmatch(self.pattern, case_id)
        return int(match[1]) if match and self.numbers else None


@dataclass(frozen=True, kw_only=True)
class Split:
    """The cases on each side, by their numbers; no case is on two of them.

    Raises:
        ConfigError: A case is listed twice, or nothing is listed.
    """

    train: Numbers = ()
    """Empty where the list is unknown; then these are the cases on no other side."""
    val: Numbers = ()
    test: Numbers = ()

    def __post_init__(self) -> None:
        listed = [number for side in self.sides().values() for number in side]
        if not listed:
            raise ConfigError("split: lists no cases; leave it out.")
        _check_unique("split", listed)

    def sides(self) -> dict[str, tuple[int, ...]]:
        """Return the numbers on the sides ``train``, ``val`` and ``test``."""
        return {side: expand(getattr(self, side)) for side in ("train", "val", "test")}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How one paper used a dataset.

    Raises:
        ConfigError: The listed cases are not as many as the paper prints, or there is no split and
            no note that says why.
    """

    num_train: int | None = None
    """Cases that the paper prints; those in ``split.val`` are among them where it prints no
    validation set."""
    num_val: int | None = None
    num_test: int | None = None
    num_folds: int | None = None
    """Folds of the paper's cross-validation."""
    only: str = ""
    """Regular expression of the ids of the cases that the paper used; all where empty."""
    split: Split | None = None
    """None where the paper's lists are not public or are too long to be kept here."""
    lists: str = ""
    """Where the authors published their lists."""
    trained_on: str = ""
    """Dataset that the network was trained on, where this one only tests it."""
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Structures that the paper segments -> those of the dataset that they unite, in class order;
    the others count as background. Empty: all, as they are."""
    region_based: bool = False
    """Whether the paper's network says yes or no to each region instead of choosing a structure."""
    note: str = ""

    def __post_init__(self) -> None:
        _compile(self.only)
        if self.split is None:
            if not self.note:
                raise ConfigError("split: has none; the note must say why.")
            return
        counts = {side: len(numbers) for side, numbers in self.split.sides().items()}
        if self.num_val is None:
            counts["train"] += counts.pop("val")
        for side, count in counts.items():
            printed = getattr(self, f"num_{side}")
            if count not in (0, printed):
                raise ConfigError(f"split: {count} cases in {side}, the paper prints {printed}.")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much there is."""

    cases: int | None = None
    """Labelled images that the public can have."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """A public dataset.

    Raises:
        ConfigError: Something contradicts something else.
    """

    name: str
    """Short name, that of its file."""
    title: str
    task: str
    """What is to be segmented, in a sentence."""
    modality: str
    spatial_dims: int
    channels: tuple[str, ...]
    """What the image channels show, in the order in which the papers take them."""
    labels: Mapping[str, int]
    """Structure -> value in label files, in class order."""
    regions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Region that is scored -> the structures it unites."""
    licence: str
    size: Size
    where: str
    """Home page."""
    citation: str
    layout: str | None
    """Layout of Lamina's that reads the download as it is; None where none does."""
    download: str
    """What the download looks like, and what to do where no layout reads it."""
    names: CaseNames | None
    """None where the names of the files are not known or say nothing."""
    protocols: Mapping[str, Protocol]
    """Paper, one of ``PAPERS`` -> how it used the dataset."""

    def __post_init__(self) -> None:
        try:
            _ = self.label_set
        except LabelError as error:
            raise ConfigError(str(error)) from error
        if self.spatial_dims not in (2, 3):
            raise ConfigError(f"spatial_dims = {self.spatial_dims}: must be 2 or 3.")
        for paper, protocol in self.protocols.items():
            self._check(paper, protocol)

    def _check(self, paper: str, protocol: Protocol) -> None:
        if paper not in PAPERS:
            raise ConfigError(f"protocols.{paper}: unknown; known: {', '.join(PAPERS)}.")
        united = [name for members in protocol.labels.values() for name in members]
        if strange := sorted(set(united) - set(self.labels)):
            raise ConfigError(f"protocols.{paper}.labels: no structures are called {strange}.")
        _check_unique(f"protocols.{paper}.labels", united)
        if protocol.region_based and (protocol.labels or not self.regions):
            raise ConfigError(f"protocols.{paper}.region_based: needs regions of all its labels.")
        if protocol.split is None:
            return
        listed = {number for side in protocol.split.sides().values() for number in side}
        if strange_cases := sorted(listed - set(expand(self.names.numbers if self.names else ()))):
            raise ConfigError(f"protocols.{paper}.split: there are no cases {strange_cases}.")

    @property
    def label_set(self) -> LabelSet:
        """The labels as the dataset's files have them."""
        return LabelSet(values=self.labels, regions=self.regions)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, ranges of case numbers spelt out."""
        plain = asdict(self)
        for paper, protocol in self.protocols.items():
            if protocol.split:
                plain["protocols"][paper]["split"] = protocol.split.sides()
        return plain


def list_descriptions() -> tuple[str, ...]:
    """Return the names of the datasets that are described, sorted."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("*.yaml")))


def load_description(name: str) -> DatasetDescription:
    """Read the description of a dataset.

    Raises:
        UnknownNameError: There is none of that name; the message offers near ones.
        ConfigError: The file contradicts itself: all faults, one line each.
    """
    known = list_descriptions()
    if name not in known:
        near = get_close_matches(name, known, n=3, cutoff=0.5)
        offer = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(known)}."
        raise UnknownNameError(f"Unknown dataset {name!r}.", remedy=offer)
    return resolve(DatasetDescription, load_yaml(Path(__file__).parent / f"{name}.yaml"))


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ConfigError(f"{pattern!r}: not a regular expression: {error}.") from error


def _check_unique(where: str, entries: Iterable[int | str]) -> None:
    twice = [entry for entry, count in Counter(entries).items() if count > 1]
    if twice:
        raise ConfigError(f"{where}: {twice[:5]} are listed twice.")

"""What is publicly known of the datasets that the published networks were trained and tested on.

One YAML file here describes one dataset: what it shows, who may use it, where it is, and the exact
cases that each paper trained, validated and tested on. Nothing is guessed: what is not published
is empty, and a note says so. The scans themselves are not here, and nothing is downloaded.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lamina.config import load_yaml, resolve
from lamina.errors import unknown
from lamina.labels import LabelSet

PAPERS = ("dainet", "glims", "lgmsnet", "lightmedseg", "mpunet")
"""Papers that have protocols, named after their networks."""

Numbers = tuple[int | str, ...]
"""Case numbers and ranges of them with both ends in: ``(3, "27-46")``."""


def expand(numbers: Numbers) -> tuple[int, ...]:
    """Spell out ranges: ``(3, "27-29")`` -> ``(3, 27, 28, 29)``."""
    found: list[int] = []
    for entry in numbers:
        first, _, last = str(entry).partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


@dataclass(frozen=True, kw_only=True)
class CaseNames:
    """What the cases of a dataset are called."""

    pattern: str
    """Regular expression of a whole case id; its group is the number that splits go by."""
    examples: tuple[str, ...]
    numbers: Numbers = ()
    """The numbers of all labelled cases; patients where these have several scans."""

    def fits(self, case_id: str) -> bool:
        """Tell whether a case could be one of this dataset, by its name."""
        return re.fullmatch(self.pattern, case_id) is not None

    def number(self, case_id: str) -> int | None:
        """Return the number in a case id, or None where the name is another or has no number."""
        match = re.fullmatch(self.pattern, case_id)
        return int(match[1]) if match and self.numbers else None


@dataclass(frozen=True, kw_only=True)
class Split:
    """The cases on each side, by their numbers; no case is on two of them."""

    train: Numbers = ()
    """Empty where the list is unknown; then these are the cases on no other side."""
    val: Numbers = ()
    test: Numbers = ()

    def sides(self) -> dict[str, tuple[int, ...]]:
        """Return the numbers on the sides ``train``, ``val`` and ``test``."""
        return {side: expand(getattr(self, side)) for side in ("train", "val", "test")}


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How one paper used a dataset."""

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


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much there is."""

    cases: int | None = None
    """Labelled images that the public can have."""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class DatasetDescription:
    """A public dataset."""

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


def load_descriptions(names: Sequence[str] | None = None) -> list[DatasetDescription]:
    """Read the descriptions of some datasets, or of all.

    Raises:
        UnknownNameError: There is none of a name; the message offers near ones.
    """
    return [load_description(name) for name in names or list_descriptions()]


def load_description(name: str) -> DatasetDescription:
    """Read the description of a dataset.

    Raises:
        UnknownNameError: There is none of that name; the message offers near ones.
    """
    known = list_descriptions()
    if name not in known:
        raise unknown("dataset", name, known)
    return resolve(DatasetDescription, load_yaml(Path(__file__).parent / f"{name}.yaml"))

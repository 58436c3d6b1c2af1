"""What a study is, and how its file is read.

A file has as many parts as there are datasets in the paper's table; each is a study of its own,
``lgmsnet/table1-busi``, with the columns of its dataset and those that belong to none.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from lamina.config import load_yaml, resolve
from lamina.errors import ConfigError, UnknownNameError

COUNTED = ("parameters", "macs")
"""Columns that are counted from the network, without any scan."""
CHANNELS = "channels"
"""Column of :mod:`lamina.study.redundancy`."""
SCALES = {"%": 100.0, "k": 1e-3, "M": 1e-6, "G": 1e-9, "": 1.0, "mm": 1.0, "s": 1.0, "MB": 1.0}
"""Unit of a column -> what a measured value is multiplied by."""

_KEY = re.compile(r"[\w.+-]+")
_TABLES = Path(__file__).parent / "tables"


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure of each row."""

    title: str
    metric: str = ""
    """Registered metric, one of the study's protocol, ``"parameters"``, ``"macs"`` or
    ``"channels"``; empty where Lamina does not measure it."""
    of: tuple[str, ...] = ()
    """Structures or regions that it is the mean of; empty: all regions where the scans have some,
    else all structures."""
    unit: Literal["%", "k", "M", "G", "", "mm", "s", "MB"] = "%"
    part: str = ""
    """Part of the table that it belongs to; empty: to all."""
    change: bool = False
    """Whether the value of each row's ``base`` on the same patients is taken off."""
    note: str = ""
    """Why it is not measured, or why what is measured is not what is printed."""

    @property
    def is_scored(self) -> bool:
        """Whether it takes scans to measure it."""
        return bool(self.metric) and self.metric not in COUNTED


@dataclass(frozen=True, kw_only=True)
class Row:
    """One network with its settings, and what is printed of it."""

    title: str = ""
    model: str = ""
    """Network preset; empty where Lamina has none, which ``missing`` explains."""
    model_options: Mapping[str, Any] = field(default_factory=dict)
    """Fields of its configuration to change."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Further settings of training, laid over the recipe's."""
    published: tuple[float | None, ...] = ()
    """What is printed in each column, in its unit."""
    missing: str = ""
    """Why there is nothing to train."""
    note: str = ""
    """What to know of it, such as why its weights are others than printed."""
    base: str = ""
    """Row that it is a change of, for columns of changes."""
    line: str = ""
    """Line of a curve that it belongs to..."""
    place: float | None = None
    """...and where it stands along it."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """The dataset of one part of a table."""

    recipe: str
    dataset: str
    unseen: str = ""
    """Dataset that is scored in its place: it was not trained on."""


@dataclass(frozen=True, kw_only=True)
class Study:
    """A table or curve.

    Raises:
        ConfigError: Something in it contradicts something else.
    """

    name: str
    """Such as ``"glims/table4"``."""
    title: str
    paper: str
    source: str
    """Where it is printed."""
    recipe: str = ""
    """Recipe that all rows follow."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """What all rows change of it."""
    side: Literal["", "val", "test"] = ""
    """Which scans the paper scores; empty: those that are kept for the end, if there are any."""
    dataset: str = ""
    """Described dataset that it is printed for."""
    unseen: str = ""
    """Described dataset that is scored in its place."""
    parts: Mapping[str, Part] = field(default_factory=dict)
    in_channels: int
    """Image channels that networks are counted with."""
    num_classes: int
    """Likewise; each network in the way its paper has it."""
    size: tuple[int, ...]
    """Size of the image that operations are counted for."""
    protocol: str = ""
    """The paper's own way to measure, for columns that it names."""
    columns: tuple[Column, ...]
    rows: Mapping[str, Row]
    reference: str = ""
    """Row that the others are tested against."""
    cases: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)
    """Case number -> what is printed of it in each column, for tables of single cases."""
    drawn: Literal["", "radar", "curve"] = ""
    """How it is drawn, too."""
    axis: str = ""
    """What a curve runs along."""
    notes: tuple[str, ...] = ()
    """Why what is measured here cannot be what is printed."""
    contradictions: tuple[str, ...] = ()
    """Where the paper disagrees with itself."""

    def __post_init__(self) -> None:
        faults = [f"{c.title}: needs a note" for c in self.columns if not (c.metric or c.note)]
        faults += self._faults_of_rows()
        named = [self.reference, *(row.base for row in self.rows.values())]
        faults += [f"no row {name!r}" for name in named if name and name not in self.rows]
        if faults:
            raise ConfigError(f"{self.name}: {'; '.join(faults)}.")

    def _faults_of_rows(self) -> list[str]:
        printed = {k: row.published for k, row in self.rows.items()} | dict(self.cases)
        count = len(self.columns)
        short = [key for key, row in printed.items() if len(row) not in (0, count)]
        odd = [key for key in self.rows if not _KEY.fullmatch(key)]
        idle = [key for key, row in self.rows.items() if bool(row.model) == bool(row.missing)]
        return [
            *(f"{key}: {count} figures are needed" for key in short),
            *(f"{key}: needs either a model or a reason" for key in idle),
            *(f"{key}: cannot be the name of a folder" for key in odd),
        ]

    @property
    def runnable(self) -> dict[str, Row]:
        """Rows that can be trained."""
        return {key: row for key, row in self.rows.items() if row.model}

    def part(self, name: str) -> "Study":
        """Return one part of the table as a study of its own."""
        about = self.parts[name]
        kept = [i for i, column in enumerate(self.columns) if column.part in ("", name)]

        def shortened(row: Row) -> Row:
            return replace(row, published=tuple(row.published[i] for i in kept if row.published))

        return replace(
            self,
            name=f"{self.name}-{name}",
            recipe=about.recipe,
            dataset=about.dataset,
            unseen=about.unseen,
            parts={},
            columns=tuple(self.columns[i] for i in kept),
            rows={key: shortened(row) for key, row in self.rows.items()},
        )


def list_studies() -> tuple[Study, ...]:
    """Return all studies, by paper, in the order of the papers."""
    tables = [_read(path) for path in sorted(_TABLES.glob("*.yaml"), key=_in_the_paper)]
    return tuple(
        study
        for table in tables
        for study in ([table.part(name) for name in table.parts] or [table])
    )


def read_study(name: str) -> Study:
    """Return the study of that name, such as ``"glims/table4"``.

    Raises:
        UnknownNameError: There is none; the message offers near ones.
    """
    table, _, part = name.partition("-")
    path = _TABLES / f"{table.replace('/', '_')}.yaml"
    if table.count("/") == 1 and path.is_file():
        study = _read(path)
        if part in study.parts:
            return study.part(part)
        if not (part or study.parts):
            return study
    known = [study.name for study in list_studies()]
    near = [other for other in known if other.startswith(name)]
    near = near or get_close_matches(name, known, n=3, cutoff=0.5)
    offer = f"Did you mean {' or '.join(near)}?" if near else "See lamina study."
    raise UnknownNameError(f"Unknown study {name!r}.", remedy=offer)


def _in_the_paper(path: Path) -> tuple[str, str, int]:
    match = re.fullmatch(r"(\w+?)_([a-z]+)(\d+)[a-z]?", path.stem)
    return (match[1], match[2], int(match[3])) if match else (path.stem, "", 0)


def _read(path: Path) -> Study:
    paper, _, rest = path.stem.partition("_")
    return resolve(Study, {"name": f"{paper}/{rest}", "paper": paper}, load_yaml(path))

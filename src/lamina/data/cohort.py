"""The scans of one segmentation task, and what they share."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lamina.data.case import Case
from lamina.errors import DatasetError, repeated
from lamina.labels import LabelSet


@dataclass(frozen=True, kw_only=True)
class Cohort:
    """The scans of one segmentation task and what they share.

    Raises:
        DatasetError: There are no cases, or two share an id.
    """

    name: str
    channels: tuple[str, ...]
    """What each image channel shows, such as ``("CT",)`` or ``("FLAIR", "T1")``."""
    labels: LabelSet
    cases: tuple[Case, ...]
    region_based: bool = False
    """Whether the network is to say yes or no to each region of ``labels``."""
    licence: str = ""
    source: str = ""
    """Who made the scans and where they are described, for whoever is given a model of them."""
    unpaired: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """What a case that is left out lacks, or has too much of -> its files; see ``read_cohort``."""
    odd_labels: tuple[Path, ...] = ()
    """Labels that hold too many values, where nobody declared any; they stay cases."""

    def __post_init__(self) -> None:
        if not self.cases:
            raise DatasetError(f"{self.name}: no cases with an image and a label were found.")
        if twice := repeated(case.case_id for case in self.cases):
            raise DatasetError(f"{self.name}: case ids stand for more than one scan: {twice}.")

    @property
    def origin(self) -> dict[str, str]:
        """What a model remembers of the scans: ``name``, ``licence`` and, if told, ``source``."""
        told = {"name": self.name, "licence": self.licence}
        return told | {"source": self.source} if self.source else told

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; :meth:`from_dict` reads it back."""
        return {
            "name": self.name,
            "channels": list(self.channels),
            "labels": self.labels.as_dict(),
            "licence": self.licence,
            "source": self.source,
            "cases": [case.as_dict() for case in self.cases],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Cohort":
        """Read what :meth:`as_dict` wrote.

        Raises:
            DatasetError, LabelError: It is not what that wrote.
        """
        try:
            return cls(
                name=data["name"],
                channels=tuple(data["channels"]),
                labels=LabelSet.from_dict(data["labels"]),
                cases=tuple(Case.from_dict(case) for case in data["cases"]),
                licence=data["licence"],
                source=data.get("source", ""),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise DatasetError(f"cohort {data!r:.80}: cannot be read: {error!r}.") from error

"""Which series of an archive are meant, by what it tells of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from lamina.config import load_yaml, resolve
from lamina.errors import ConfigError
from lamina.io.pacs import Series

_OBJECTS = frozenset({"SEG", "RTSTRUCT", "RTPLAN", "RTDOSE", "SR", "PR", "KO", "REG", "DOC"})
"""Modalities that are no images; among them are the objects that we make ourselves."""

_PATTERNS = ("modality", "description", "not_description", "body_part")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a series must be; what is left out may be anything.

    Patterns are those of the shell, such as ``*abdomen*``, upper and lower case being alike.

    Raises:
        ConfigError: A number is below its least value, or a modality has no images.
    """

    modality: tuple[str, ...] = ()
    """One of these, such as ``CT``; any but objects without images by default."""
    description: tuple[str, ...] = ()
    """SeriesDescription matches one of these patterns."""
    not_description: tuple[str, ...] = ()
    """SeriesDescription matches none of these patterns."""
    body_part: tuple[str, ...] = ()
    """BodyPartExamined matches one of these patterns."""
    min_slices: int = 1
    """Least number of objects; an enhanced series is one object."""
    max_slices: int | None = None
    """Largest number of objects."""
    days: int | None = None
    """Studies of the last so many days only: 1 asks for those of today."""

    def __post_init__(self) -> None:
        faults = [
            f"{name} = {value}: must be 1 or more."
            for name in ("min_slices", "max_slices", "days")
            if (value := getattr(self, name)) is not None and value < 1
        ]
        if self.max_slices is not None and self.max_slices < self.min_slices:
            faults.append(f"max_slices = {self.max_slices}: is below min_slices.")
        if objects := _OBJECTS & {name.upper() for name in self.modality}:
            faults.append(f"modality {', '.join(sorted(objects))}: holds no images.")
        if faults:
            raise ConfigError(" ".join(faults))

    def filters(self, today: date) -> dict[str, str]:
        """Return what an archive can be asked for, as QIDO-RS takes it."""
        found = {"Modality": self.modality[0].upper()} if len(self.modality) == 1 else {}
        if self.days is not None:
            found["StudyDate"] = f"{today - timedelta(days=self.days - 1):%Y%m%d}-"
        return found

    def matches(self, series: Series, instances: int) -> bool:
        """Tell whether a series is meant, which has so many objects."""
        return self.may_match(series) and self.min_slices <= instances <= (
            self.max_slices or instances
        )

    def may_match(self, series: Series) -> bool:
        """Tell whether a series is meant, but for the number of its objects."""
        known = {name.upper() for name in self.modality}
        modality = series.modality.upper()
        return (
            modality not in _OBJECTS
            and (not known or modality in known)
            and _any(series.description, self.description or ("*",))
            and not _any(series.description, self.not_description)
            and _any(series.body_part, self.body_part or ("*",))
        )


def rule_of(file: Path | None, given: Mapping[str, Any]) -> Rule:
    """Return the rule of a YAML file, with what is given beside it in its place.

    Args:
        file: Settings of :class:`Rule`; where it takes several texts, one may stand alone.
        given: The same by name; what is ``None`` is not given.

    Raises:
        ConfigError: A setting is unknown, or its value wrong.
    """
    told = load_yaml(file) if file else {}
    layers = [told, {name: value for name, value in given.items() if value is not None}]
    return resolve(
        Rule, *({name: _several(name, v) for name, v in layer.items()} for layer in layers)
    )


def _several(name: str, value: Any) -> Any:
    return [value] if name in _PATTERNS and isinstance(value, str) else value


def _any(text: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(text.casefold(), pattern.casefold()) for pattern in patterns)

"""The record that ``predict`` leaves beside its segmentations: its entries, written and read."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from lamina.data.case import Case
from lamina.errors import FileError
from lamina.files import read_json, write_json

RECORD = "prediction.json"
"""Its name."""

_ENTRY: Mapping[str, Any] = {
    "case_id": str,
    "segmentation": (str, type(None)),
    "error": str,
    "sha256": str,
    "model": str,
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one scan."""

    case_id: str
    image: str
    segmentation: str | None
    """Name of the file in the output folder; ``None`` when the scan failed."""
    seconds: float
    """To read, segment and write it."""
    error: str = ""
    sha256: str = ""
    """Of the segmentation, by which a later run knows it as its own."""
    model: str = ""
    """SHA-256 of the model, for a folder may hold the work of several."""
    settings: dict[str, Any] = field(default_factory=dict)
    """What else the segmentation depends on."""
    stamp: str = ""
    """Of the scan's files as they were when they were read, by which changed ones are known."""
    probabilities: str | None = None
    """Name of the file that holds them, where they were asked for."""
    sizes: dict[str, float] | None = None
    """Structure -> how much of it was found, in ml, cm² or pixels."""
    flags: list[dict[str, Any]] | None = None
    """What about the scan is unlike the model's training; ``None`` where that was not looked at."""
    case: dict[str, Any] | None = None
    """The case of a dataset that the scan is, with the label that it can be scored against."""

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "Outcome":
        """Take an entry of a record; what other versions have noted there is passed over."""
        names = {each.name for each in fields(cls)}
        return cls(**{name: value for name, value in entry.items() if name in names})


def write_record(
    folder: Path,
    model: Mapping[str, str],
    labels: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
) -> None:
    """Write the record.

    Args:
        folder: Where the segmentations are.
        model: ``file`` and ``sha256`` of the model that they are by.
        labels: What their values stand for, as plain data.
        entries: One per case.

    Raises:
        FileError: The folder cannot be written.
    """
    write_json(folder / RECORD, {"model": dict(model), "labels": labels, "cases": entries})


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record in a folder; one without cases where there is none.

    Raises:
        FileError: It is not as ``predict`` writes it.
    """
    path = folder / RECORD
    record = read_json(path) if path.is_file() else {}
    if isinstance(record, dict):
        model, cases = record.get("model", {}), record.get("cases", [])
        if isinstance(model, dict) and isinstance(cases, list):
            model = {"sha256": ""} | model
            usual = {"error": "", "sha256": "", "model": model["sha256"]}
            entries = [usual | entry for entry in cases if isinstance(entry, dict)]
            if len(entries) == len(cases) and all(map(_is_sound, entries)):
                return record | {"model": model, "cases": entries}
    raise FileError(
        f"{path}: is not as a prediction wrote it.",
        remedy="Remove it, or segment the scans again into another folder.",
    )


def place_of(case: Case) -> str:
    """Return where a scan is, from wherever the record is read."""
    return str(case.images[0].absolute())


def stamp_of(case: Case) -> str:
    """Return what changes with a scan's files, without reading them; empty where one is gone."""
    try:
        states = [(file.name, file.stat()) for file in case.image_files]
    except OSError:
        return ""
    told = repr([(name, state.st_size, state.st_mtime_ns) for name, state in states])
    return hashlib.sha256(told.encode(errors="surrogateescape")).hexdigest()


def _is_sound(entry: Mapping[str, Any]) -> bool:
    return all(isinstance(entry.get(name, 0), kind) for name, kind in _ENTRY.items())

"""The record that ``predict`` leaves beside its segmentations, read back."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.errors import FileError
from lamina.files import read_json
from lamina.workflows import RECORD

_ENTRY: Mapping[str, Any] = {
    "case_id": str,
    "segmentation": (str, type(None)),
    "error": str,
    "sha256": str,
}


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
            entries = [{"error": "", "sha256": ""} | c for c in cases if isinstance(c, dict)]
            if len(entries) == len(cases) and all(map(_is_sound, entries)):
                return record | {"model": {"sha256": ""} | model, "cases": entries}
    raise FileError(
        f"{path}: is not as a prediction wrote it.",
        remedy="Remove it, or segment the scans again into another folder.",
    )


def _is_sound(entry: Mapping[str, Any]) -> bool:
    return all(isinstance(entry.get(name, 0), kind) for name, kind in _ENTRY.items())

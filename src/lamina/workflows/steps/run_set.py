"""Earlier work in a folder of many runs: whether it is the same as what is asked for now."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.errors import ConfigError, DatasetError, FileError
from lamina.files import check_folder, read_json, sha256
from lamina.folders.work import WorkFolder


def made_from(folder: WorkFolder, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return what runs must have in common to be compared."""
    files = {file.name: sha256(file) for file in (folder.plan_file, folder.splits_file)}
    plain = json.loads(json.dumps(base))
    return {"work": str(folder.root), "preparation": files, "settings": plain}


def read_earlier(file: Path, origin: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the record of earlier work in a folder, or nothing where the folder is new.

    Args:
        file: The record.
        origin: What the work must have in common with what is asked for now.
        kind: What the record is of, for messages.

    Raises:
        DatasetError: There is no record, but there are other files.
        FileError: It is no such record, or the folder is a file.
        ConfigError: It is of something else.
    """
    check_folder(file.parent)
    if not file.is_file():
        if file.parent.is_dir() and any(file.parent.iterdir()):
            raise DatasetError(
                f"{file.parent}: holds files that no {kind} wrote.", remedy="Choose another --out."
            )
        return {}
    earlier = read_json(file)
    try:
        then, _ = dict(earlier["made_from"]), dict(earlier.get("finished", {}))
    except (KeyError, TypeError, ValueError) as error:
        raise FileError(f"{file}: not the record of a {kind}.", remedy="Remove it.") from error
    others = [name for name, value in origin.items() if then.get(name) != value]
    if others:
        raise ConfigError(
            f"{file.parent}: holds a {kind} of another {' and another '.join(others)}.",
            remedy="Choose another --out, or ask for the same again.",
        )
    return dict(earlier)

"""Forms that Slicer sends: described, received, taken apart."""

import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import Request

from lamina.serve.errors import Refusal
from lamina.serve.intake import Upload
from lamina.serve.intake.uploads import base_name
from lamina.serve.receiving import check_room, receive_files
from lamina.serve.service import Service

_FILE = {"type": "string", "format": "binary"}
_TEXT = {"type": "string"}
_DEEPEST = 32


def form(required: tuple[str, ...], *, kind: str = "multipart/form-data") -> dict[str, Any]:
    """Return the description of a form; clients may send further fields."""
    known = {"files": _FILE, "file": _FILE, "label": _FILE, "params": _TEXT, "password": _TEXT}
    properties = {name: known[name] for name in dict.fromkeys((*required, "params"))}
    schema = {"type": "object", "required": list(required), "properties": properties}
    return {"requestBody": {"required": True, "content": {kind: {"schema": schema}}}}


@asynccontextmanager
async def received(request: Request, service: Service) -> AsyncIterator[Upload]:
    """Receive a form into a folder of its own, which goes when it has been dealt with.

    Until then it counts as a scan that waits.

    Raises:
        Refusal: The queue is full, or the form is refused.
    """
    check_room(request, service)
    folder = service.datastore.incoming()
    service.uploading.add(folder.name)
    try:
        yield await receive_files(request, service, folder)
    finally:
        service.uploading.discard(folder.name)
        shutil.rmtree(folder, ignore_errors=True)


def only_file(upload: Upload, fields: tuple[str, ...]) -> tuple[Path, str]:
    """Return the file of a field, and what the user calls it.

    Raises:
        Refusal: None of the fields has one.
    """
    for name in fields:
        if name in upload.parts:
            path = upload.parts[name]
            return path, base_name(upload.files[path])
    raise Refusal(422, f"The form has no file {fields[0]!r}.")


def params(upload: Upload) -> dict[str, Any]:
    """Return what the client told besides.

    Raises:
        Refusal: It is no JSON object, or holds what cannot be told again: NaN, half a letter, lists
            in lists without end.
    """
    try:
        told = json.loads(upload.fields.get("params") or "{}")
        json.dumps(told, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Refusal(422, "params is no JSON.") from error
    if not isinstance(told, dict) or _is_deeper(told, _DEEPEST):
        raise Refusal(422, f"params is no JSON object of at most {_DEEPEST} levels.")
    return told


def _is_deeper(told: Any, levels: int) -> bool:
    if not isinstance(told, dict | list):
        return False
    inner = told.values() if isinstance(told, dict) else told
    return levels == 0 or any(_is_deeper(each, levels - 1) for each in inner)

"""Files that are either whole or absent: atomic writes, hashes, JSON."""

import errno
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lamina.errors import FileError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a hidden sibling of ``path`` to write to; move it into place when the block ends well.

    The sibling keeps the file's suffixes, so writers that choose a format by name choose the same one. It
    may be written as a file or created as a folder. Whatever interrupts the block, Ctrl-C included,
    nothing partial stays behind and an earlier ``path`` is left as it was. (An earlier *folder* is removed
    just before the new one takes its place, so a kill in between leaves none rather than a mixture.)

    Raises:
        FileError: The folder cannot be written, or the disk is full.
    """
    part = path.with_name(f".part-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        if part.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            _flush(part)
        part.replace(path)
    except OSError as error:
        raise _explain(path, error) from error
    finally:
        if part.is_dir():
            shutil.rmtree(part, ignore_errors=True)
        else:
            part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8")


def write_json(path: Path, data: Any) -> None:
    """Write plain data as indented JSON, atomically."""
    write_text(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        FileError: It is missing, unreadable, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise FileError(f"{path}: not valid JSON: {error}.", remedy="Mend or remove it.") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    with path.open("rb") as stream:
        os.fsync(stream.fileno())


def _explain(path: Path, error: OSError) -> FileError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return FileError(
            f"{path}: no space left on the disk.",
            remedy="Free some space or choose another folder, then run the same command again.",
        )
    return FileError(f"{path}: cannot be written: {error.strerror or error}.")

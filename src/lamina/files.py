"""Files that are either whole or absent: atomic writes, hashes, JSON; and names for them."""

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, count
from pathlib import Path
from typing import Any

from lamina.errors import DiskFullError, FileError, LaminaError

_FULL_BELOW_BYTES = 1 << 16
_REMEDY = "Choose another place, or ask for leave to read and write there."
_REPLACED = re.compile(r"\.old-[0-9a-f]{8}-(.+)")
"""What a folder is called while another takes its place, and its own name."""


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a hidden sibling of ``path`` to write to; move it into place when the block ends well.

    The sibling keeps the file's suffixes, so writers that choose a format by name choose the same
    one; in lower case, for some know no other. It may be written as a file or created as a folder.
    Whatever interrupts the block, Ctrl-C included, nothing partial stays behind and an earlier
    ``path`` is left as it was. Only write in the block: an ``OSError`` in it is taken for a fault
    of ``path``.

    Raises:
        FileError: The folder cannot be written, or the disk is full.
    """
    part = path.with_name(f".part-{uuid.uuid4().hex[:8]}-{path.name.lower()}")
    try:
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield part
            _move(part, path)
    except LaminaError as error:
        error.message = error.message.replace(str(part), str(path))  # the name that the user knows
        raise
    finally:
        _remove(part)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tell by the name of ``path`` what goes wrong in a block that only writes.

    Raises:
        FileError: It cannot be written, or the disk is full.
    """
    try:
        yield
    except LaminaError:
        raise
    except Exception as error:
        if _is_full(path.parent, error):
            raise DiskFullError(
                f"{path}: no space left on the disk.",
                remedy="Free some space or choose another folder, then run the same command again.",
            ) from error
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise FileError(f"{path}: cannot be written: {reason}.", remedy=_REMEDY) from error
        raise


def take_room(descriptor: int, num_bytes: int) -> None:
    """Take a file's room on the disk at once, where the system can.

    An array that lies in a file ends the process when it finds out later that there is not enough.

    Raises:
        OSError: There is not enough.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, num_bytes)


def check_folder(folder: Path) -> None:
    """Refuse what cannot be a folder to write to, before there is anything to write.

    Raises:
        FileError: It is a file or would lie in one, or it could not be written to.
    """
    there = (place for place in (folder, *folder.parents) if os.access(place, os.F_OK))
    nearest = next(there, folder)
    if nearest.is_file():
        raise FileError(f"{nearest}: is a file.", remedy="Give another place to write to.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise FileError(f"{nearest}: cannot be written to.", remedy=_REMEDY)


def remove_parts(folder: Path) -> None:
    """Remove what writers that were killed left in ``folder``; nobody may be writing to it now.

    A folder that was about to be replaced comes back where its successor did not get into place.
    """
    for part in folder.glob(".part-*"):
        _remove(part)
    for old in folder.iterdir() if folder.is_dir() else ():
        if named := _REPLACED.fullmatch(old.name):
            path = folder / named[1]
            if path.exists():
                _remove(old)
            else:
                old.replace(path)


@contextmanager
def locked(folder: Path, *, wait: bool = False) -> Iterator[None]:
    """Keep other processes that ask for the same folder out of it while the block lasts.

    The folder is made where it is missing. A process that is killed lets go of it. Windows, and
    some network drives, know no such lock: there nobody is kept out.

    Args:
        folder: Any.
        wait: Whether to wait while another process is in it.

    Raises:
        FileError: Another process is in it and is not waited for, or it cannot be made.
    """
    try:
        made = not folder.is_dir()
        folder.mkdir(parents=True, exist_ok=True)
        handle = _lock(folder, wait)
    except OSError as error:
        raise FileError(
            f"{folder}: cannot be made or opened: {error.strerror}.",
            remedy=_REMEDY,
        ) from error
    try:
        yield
    finally:
        if made:
            with suppress(OSError):  # it is not empty, as a rule
                folder.rmdir()
        if handle is not None:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, atomically; stray bytes of file names are escaped as JSON does."""
    with atomic_path(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: Path, data: Any) -> None:
    """Write plain data as indented JSON, atomically.

    Raises:
        ValueError: ``data`` holds NaN or infinity, which JSON has no word for.
    """
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
    except (ValueError, RecursionError) as error:
        raise FileError(f"{path}: not valid JSON: {error}.", remedy="Mend or remove it.") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits.

    Raises:
        FileError: It is missing or unreadable.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    return digest.hexdigest()


def _lock(folder: Path, wait: bool) -> int | None:
    if sys.platform == "win32":
        return None
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError as error:
        os.close(handle)
        raise FileError(
            f"{folder}: another process is writing there.",
            remedy="Wait until it has finished, or choose another folder.",
        ) from error
    except OSError:
        os.close(handle)
        return None
    return handle


def _move(part: Path, path: Path) -> None:
    if part.is_file():
        with part.open("r+b") as stream:
            os.fsync(stream.fileno())
    if not (part.is_dir() and path.is_dir()):
        part.replace(path)
        return
    # No system call replaces a folder that holds files.
    old = path.with_name(f".old-{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        path.replace(old)
        part.replace(path)
    except BaseException:
        if not path.exists():
            old.replace(path)
        raise
    _remove(old)


def _remove(path: Path) -> None:
    with suppress(OSError):  # a name that is too long cannot even be asked for
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def _is_full(folder: Path, error: Exception) -> bool:
    """Tell whether ``error`` means a full disk; many writers do not say so themselves."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return folder.is_dir() and shutil.disk_usage(folder).free < _FULL_BELOW_BYTES


def file_names(names: Iterable[str]) -> list[str]:
    """Return a name to put in a file's for each of these, numbered where it is taken already.

    They differ in more than the case of their letters, which not every file system keeps.
    """
    found: list[str] = []
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^\w.-]+", "_", name)
        numbered = (f"{plain}_{number}" for number in count(2))
        chosen = next(each for each in chain([plain], numbered) if each.casefold() not in taken)
        taken.add(chosen.casefold())
        found.append(chosen)
    return found

"""Fetch: download a task of the Medical Segmentation Decathlon, only ever when asked to.

MONAI keeps the table of addresses and checksums. The download goes to the disk that it is meant
for, and every wait has an end, neither of which holds of MONAI's own downloader.
"""

import hashlib
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.request import urlopen

from lamina.errors import DatasetError, FileError, UnknownNameError
from lamina.files import atomic_path
from lamina.workflows import Progress, no_progress

_CHUNK_BYTES = 1 << 20
_TIMEOUT_S = 60.0
"""How long a server may say nothing."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a task of the Decathlon is, and who may use it."""

    task: str
    """Such as ``"Task04_Hippocampus"``."""
    url: str
    md5: str
    """Of the archive, as 32 hexadecimal digits."""
    licence: str = "CC BY-SA 4.0"
    home: str = "http://medicaldecathlon.com"

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def source_of(task: str) -> Source:
    """Return where a task is.

    Raises:
        UnknownNameError: There is no such task; the message lists them.
    """
    from monai.apps import DecathlonDataset

    known = DecathlonDataset.resource
    if task not in known:
        raise UnknownNameError(f"Unknown task {task!r}.", remedy=f"Known: {', '.join(known)}.")
    return Source(task=task, url=known[task], md5=DecathlonDataset.md5[task])


def fetch(source: Source, out: str | Path, *, progress: Progress = no_progress) -> Path:
    """Download and unpack a task; whatever interrupts it, nothing half-written stays behind.

    Args:
        source: What :func:`source_of` returned.
        out: Folder to make the task's own folder in.
        progress: Called after each megabyte.

    Returns:
        The task's folder, as ``prepare`` takes it. One that is there already is left as it is.

    Raises:
        DatasetError: A folder of the task's name holds something else.
        FileError: The download fails or is not what it should be, it cannot be written, or the disk
            is full.
    """
    folder = Path(out) / source.task
    if (folder / "dataset.json").is_file():
        return folder
    if folder.exists():
        raise DatasetError(
            f"{folder}: is there, and is not {source.task}.",
            remedy="Choose another folder for --out.",
        )
    with atomic_path(folder) as part, TemporaryDirectory(prefix=".part-", dir=out) as scratch:
        archive = Path(scratch, "archive.tar")
        _download(source, archive, progress)
        _unpack(source, archive).rename(part)
    return folder


def _download(source: Source, archive: Path, progress: Progress) -> None:
    digest = hashlib.md5(usedforsecurity=False)
    with archive.open("wb") as stream:
        for chunk, done, total in _chunks(source):
            digest.update(chunk)
            stream.write(chunk)
            progress(done, total, f"Fetching {source.task}")
    if digest.hexdigest() != source.md5:
        raise _failed(source, f"its MD5 is {digest.hexdigest()}, it should be {source.md5}")


def _chunks(source: Source) -> Iterator[tuple[bytes, int, int]]:
    """Yield the parts of the download, the bytes so far, and the bytes in all."""
    done = 0
    try:
        with urlopen(source.url, timeout=_TIMEOUT_S) as response:
            total = int(response.headers.get("Content-Length") or 0)
            while chunk := response.read(_CHUNK_BYTES):
                done += len(chunk)
                yield chunk, done, max(done, total)
    except (OSError, HTTPException) as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise _failed(source, f"cannot be fetched: {reason}") from error
    if done < total:
        raise _failed(source, f"it ended after {done:,} of {total:,} bytes")


def _unpack(source: Source, archive: Path) -> Path:
    """Unpack an archive beside it and return the task's folder in it."""
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(archive.parent, filter="data")  # which refuses what leads out of there
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise _failed(source, f"it cannot be unpacked: {error}") from error
    folder = archive.parent / source.task
    if not (folder / "dataset.json").is_file():
        raise _failed(source, f"it holds no {source.task}/dataset.json")
    return folder


def _failed(source: Source, fault: str) -> FileError:
    return FileError(
        f"{source.url}: {fault}.",
        remedy=f"Try again, or download it in another way and unpack it; {source.home} has it too.",
    )

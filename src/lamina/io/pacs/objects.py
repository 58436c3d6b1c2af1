"""Objects as an archive takes them: files of DICOM, and what tells one from another."""

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lamina.errors import DatasetError, FileError
from lamina.io.dicom_headers import guarded, parse, value_of
from lamina.io.dicom_quiet import unquoted

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Sent = Callable[[Path, str], None]
"""Is told of each file that it was stored, or why not."""

DUPLICATE = 0x0111
"""Status of an object that an archive has already."""

_UID = re.compile(r"[0-9][0-9.]{0,63}")
_TAGS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
_MARK = b"DICM"
_PREAMBLE = 128
_TALKATIVE = ("dicomweb_client", "pynetdicom", "requests", "retrying", "urllib3")
"""Packages whose logs quote addresses with what was asked for, and headers with secrets."""


@dataclass(frozen=True, kw_only=True)
class Instance:
    """What tells an object from all others."""

    sop_class: str
    uid: str
    study: str
    series: str
    transfer_syntax: str


def instance_of(path: Path) -> Instance:
    """Read what tells an object from others.

    Raises:
        FileError: The file is missing, damaged or no DICOM object.
    """
    header = parse(path, _TAGS, pixels=False)
    sop_class, uid, study, series = (str(value_of(header, tag) or "") for tag in _TAGS)
    if not (sop_class and is_uid(uid)):
        raise FileError(f"{path}: is no DICOM object.")
    with guarded(path):
        transfer_syntax = str(header.file_meta.TransferSyntaxUID)
    return Instance(
        sop_class=sop_class, uid=uid, study=study, series=series, transfer_syntax=transfer_syntax
    )


def read_object(path: Path) -> "Dataset":
    """Read a whole file to be sent; it may lack the preamble that marks it as DICOM.

    Raises:
        FileError: It is damaged, or does not say how it is encoded.
    """
    from pydicom import dcmread

    with guarded(path):
        dataset = dcmread(path, force=True)
        dataset.preamble = dataset.preamble or b"\0" * _PREAMBLE
        if "TransferSyntaxUID" not in dataset.file_meta:
            raise ValueError("it does not say how it is encoded")
    return dataset


def is_uid(text: str) -> bool:
    """Tell whether a text can be a UID; one that can is safe as the name of a file."""
    return _UID.fullmatch(text) is not None


def object_files(paths: Iterable[Path]) -> list[Path]:
    """Return files, and the DICOM files in folders and their folders, sorted.

    Raises:
        DatasetError: There is none.
        FileError: One that was named is missing.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise FileError(f"{path}: does not exist.")
        inside = sorted(p for p in path.rglob("*") if _is_marked(p)) if path.is_dir() else [path]
        found.update(dict.fromkeys(inside))
    if not found:
        raise DatasetError("There are no DICOM files to send.")
    return list(found)


@contextmanager
def silent() -> Iterator[None]:
    """Keep what other packages say of addresses, headers and values out of our logs."""
    with ExitStack() as stack:
        stack.enter_context(unquoted())
        for name in _TALKATIVE:
            stack.enter_context(_disabled(name))
        yield


@contextmanager
def _disabled(name: str) -> Iterator[None]:
    """Pass over what a package logs, its modules' own loggers included."""
    log = logging.getLogger(name)
    before = log.propagate, log.handlers[:]
    log.propagate, log.handlers[:] = False, [logging.NullHandler()]
    try:
        yield
    finally:
        log.propagate, log.handlers[:] = before


def _is_marked(path: Path) -> bool:
    """Tell by its first bytes whether a file is DICOM."""
    if path.name.startswith(".") or not path.is_file():
        return False
    try:
        with path.open("rb") as stream:
            return stream.read(_PREAMBLE + len(_MARK))[_PREAMBLE:] == _MARK
    except OSError:
        return False

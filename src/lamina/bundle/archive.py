"""The zip around a model: written the same way every time, opened with suspicion.

Nothing is ever extracted to the disk: members are read into memory, each no further than its limit,
and none is believed before its SHA-256 has been compared.
"""

import hashlib
import stat
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from lamina.errors import BundleError
from lamina.files import atomic_path

WEIGHTS = "weights.safetensors"
RECORD = "bundle.json"
CARD = "README.md"
SUMS = "SHA256SUMS"

LIMITS = {WEIGHTS: 2 << 30, RECORD: 16 << 20, CARD: 1 << 20, SUMS: 1 << 12}
"""The members of a bundle, all of them, and the most bytes each may hold once unpacked."""

FRESH_COPY = "Get a fresh copy from where it came from."

_ENCRYPTED = 0x1
_ZIP_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError)
"""What ``zipfile`` raises on damaged input, besides ``OSError``."""


def write_archive(path: Path, content: Mapping[str, bytes]) -> None:
    """Write the members and their checksums, atomically; equal content gives equal bytes.

    Members are stored, not deflated: weights hardly shrink, and zlibs differ in what they write.

    Args:
        path: File to write.
        content: The bytes of every member but ``SHA256SUMS``.

    Raises:
        BundleError: A member is larger than a reader would accept.
        FileError: The file cannot be written.
    """
    members = {**content, SUMS: checksums(content)}
    for name, data in members.items():
        if len(data) > LIMITS[name]:
            raise BundleError(f"{path}: {name} has {_too_large(name, len(data))}.")
    with atomic_path(path) as part, zipfile.ZipFile(part, "w") as archive:
        for name, data in members.items():
            archive.writestr(_header(name), data)


def read_archive(path: Path) -> dict[str, bytes]:
    """Return the bytes of every member but ``SHA256SUMS``, after comparing them with it.

    Raises:
        BundleError: The file is missing, no zip, holds other members than a bundle's, holds links,
            encrypted or oversized members, or a member's SHA-256 differs from the one listed.
    """
    if not path.is_file():
        raise BundleError(f"{path}: no such file.", remedy="Give the path of a .lamina file.")
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(path, archive.infolist())
            members = {
                info.orig_filename: _read(path, archive, info) for info in archive.infolist()
            }
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read: {error.strerror or error}.",
            remedy="Check that you may read it and that it is whole.",
        ) from error
    except _ZIP_FAULTS as error:
        raise _damaged(f"{path}: not a zip archive, or a damaged one", error) from error
    _check_sums(path, members)
    return members


def checksums(content: Mapping[str, bytes]) -> bytes:
    """Return the text that ``sha256sum -c`` reads, one line per member, sorted by name."""
    lines = (f"{hashlib.sha256(content[name]).hexdigest()}  {name}\n" for name in sorted(content))
    return "".join(lines).encode()


def _header(name: str) -> zipfile.ZipInfo:
    header = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    header.create_system = 3  # Unix, on every system that writes bundles
    header.external_attr = (stat.S_IFREG | 0o644) << 16
    return header


def _check_members(path: Path, infos: Sequence[zipfile.ZipInfo]) -> None:
    # orig_filename is the name as stored; filename has been cut at the first NUL.
    names = [info.orig_filename for info in infos]
    for info in infos:
        if fault := _fault(info):
            shown = info.orig_filename[:80]
            raise BundleError(f"{path}: member {shown!r} {fault}.", remedy="Do not use this file.")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise BundleError(f"{path}: holds {twice} twice.", remedy="Do not use this file.")
    if missing := sorted(LIMITS.keys() - names):
        raise BundleError(f"{path}: lacks {', '.join(missing)}.", remedy=FRESH_COPY)


def _fault(info: zipfile.ZipInfo) -> str | None:
    """Say what makes a member unsafe, before a byte of it is read."""
    name = info.orig_filename
    if name not in LIMITS:
        return "is no part of a bundle"
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
        return "is a link or a special file"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is neither stored nor deflated"
    if info.file_size > LIMITS[name]:
        return f"unpacks to {_too_large(name, info.file_size)}"
    return None


def _too_large(name: str, size: int) -> str:
    return f"{size:,} bytes, at most {LIMITS[name]:,} are allowed"


def _read(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Read no more than the declared size, which passed the limit, whatever the stream holds."""
    try:
        with archive.open(info) as stream:
            return stream.read(info.file_size)
    except _ZIP_FAULTS as error:
        raise _damaged(f"{path}: {info.orig_filename} is altered or damaged", error) from error


def _damaged(fault: str, error: Exception) -> BundleError:
    return BundleError(f"{fault}: {str(error).rstrip('.')}.", remedy=FRESH_COPY)


def _check_sums(path: Path, members: dict[str, bytes]) -> None:
    """Compare the checksums and take their member out."""
    listed = members.pop(SUMS)
    expected = checksums(members)
    if listed == expected:
        return
    differing = set(expected.splitlines()) - set(listed.splitlines())
    altered = sorted(line.decode().split()[1] for line in differing) or [SUMS]
    raise BundleError(
        f"{path}: {', '.join(altered)} altered or damaged (the SHA-256 differs).", remedy=FRESH_COPY
    )

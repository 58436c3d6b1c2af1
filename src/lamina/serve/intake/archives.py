"""Zip archives from strangers.

Nothing of an archive's own making reaches the file system: members are written one by one under
names of the server's, each no further than it declares, after the declarations have been summed up.

Source: PKWARE, "APPNOTE.TXT - .ZIP File Format Specification", 6.3.10.
"""

import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from lamina.serve.errors import UploadError
from lamina.serve.intake.uploads import disk_full, is_clutter, readable, safe_suffix

_MOST_PACKED = 200
"""A member may grow so many times when unpacked; scans grow 2 to 50 times."""
_FREE_BYTES = 1 << 20
"""Members up to this size may grow as they like."""
_ENTRY_BYTES = 1 << 10
"""Bytes of the directory that an entry may take on average."""
_CHUNK = 1 << 20
_END, _LOCATOR = b"PK\x05\x06", b"PK\x06\x07"
_END_SIZE, _LOCATOR_SIZE, _COMMENT = 22, 20, 0xFFFF
_ENTRY_SIZE, _LENGTHS = 46, 28
"""Bytes of an entry without its name, further fields and comment; where their lengths stand."""
_ENCRYPTED = 0x1
_NESTED = (b"PK\x03\x04", b"Rar!", b"7z\xbc\xaf", b"\xfd7zX", b"BZh")
"""How archives within archives begin; gzip is left out, for scans are stored so."""
_FAULTS = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError, NotImplementedError)
_UNSAFE = "Send the scan's files themselves."


def unpack(archive: Path, folder: Path, *, max_bytes: int, max_files: int) -> dict[Path, str]:
    """Write an archive's files into a folder, and remove the archive.

    Args:
        archive: The file.
        folder: Where to.
        max_bytes: What all of it may unpack to.
        max_files: How many there may be.

    Returns:
        Where a file lies -> what it is called in the archive.

    Raises:
        UploadError: It is damaged, encrypted, holds links or archives, or unpacks to more.
    """
    _check_directory(archive, max_files)
    found: dict[Path, str] = {}
    try:
        with zipfile.ZipFile(archive) as opened:
            for info in _checked(opened.infolist(), max_bytes, max_files):
                path = folder / f"m{len(found):05d}{safe_suffix(info.filename)}"
                found[path] = readable(info.filename)
                _write(opened, info, path)
    except _FAULTS as error:
        raise UploadError(400, "The zip archive is damaged.", "Pack it again.") from error
    except OSError as error:
        raise disk_full() from error
    archive.unlink()
    return found


def _check_directory(archive: Path, max_files: int) -> None:
    """Refuse a directory that is too large, before it is read into memory."""
    with archive.open("rb") as stream:
        size = stream.seek(0, 2)
        stream.seek(max(0, size - _END_SIZE - _COMMENT - _LOCATOR_SIZE))
        tail = stream.read()
    end = tail.rfind(_END)
    if end < 0 or len(tail) - end < _END_SIZE:
        raise UploadError(400, "The file is no zip archive, or is cut off.", "Pack it again.")
    (directory,) = struct.unpack_from("<I", tail, end + 12)
    if tail[max(0, end - _LOCATOR_SIZE) : end].startswith(_LOCATOR):
        raise UploadError(413, "The zip archive is of the 64-bit kind, for huge ones.", _UNSAFE)
    if directory > max_files * _ENTRY_BYTES:
        raise _too_many(max_files)
    with archive.open("rb") as stream:
        stream.seek(max(0, size - len(tail) + end - directory))
        if _num_entries(stream.read(directory), max_files + 1) > max_files:
            raise _too_many(max_files)


def _num_entries(directory: bytes, most: int) -> int:
    """Count the entries of a directory up to a number; the one that is told may be wrong."""
    found = place = 0
    while found < most and place + _ENTRY_SIZE <= len(directory):
        place += _ENTRY_SIZE + sum(struct.unpack_from("<3H", directory, place + _LENGTHS))
        found += 1
    return found


def _checked(
    infos: Sequence[zipfile.ZipInfo], max_bytes: int, max_files: int
) -> Iterator[zipfile.ZipInfo]:
    if len(infos) > max_files:
        raise _too_many(max_files)
    for info in infos:
        if fault := _fault(info):
            raise UploadError(400, f"The archive {fault}.", _UNSAFE)
    if sum(info.file_size for info in infos) > max_bytes:
        raise UploadError(413, f"The archive unpacks to more than {max_bytes:,} bytes.", _UNSAFE)
    yield from (i for i in infos if not i.is_dir() and not is_clutter(i.filename))


def _fault(info: zipfile.ZipInfo) -> str | None:
    if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "holds a link or a special file"
    if info.flag_bits & _ENCRYPTED:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is packed in an uncommon way"
    if info.file_size > max(_FREE_BYTES, _MOST_PACKED * info.compress_size):
        return f"holds a file that grows more than {_MOST_PACKED} times when unpacked"
    return None


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    left = info.file_size
    with opened.open(info) as source, path.open("xb") as target:
        while chunk := source.read(_CHUNK):
            if left == info.file_size and chunk.startswith(_NESTED):
                raise UploadError(400, "The archive holds another archive.", _UNSAFE)
            left -= len(chunk)
            if left < 0:
                raise ValueError("more than declared")
            target.write(chunk)


def _too_many(max_files: int) -> UploadError:
    return UploadError(413, f"The archive holds more than {max_files:,} files.", _UNSAFE)

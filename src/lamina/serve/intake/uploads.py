"""Multipart uploads, written to the disk as they come in.

No more than a chunk is ever in memory, and the limits hold for bodies that do not tell their length
too. Files get names of the server's making; what the user called them is only remembered.

Source: RFC 7578, multipart/form-data.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from io import BufferedWriter
from pathlib import Path, PurePosixPath

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool

from lamina.io import is_scan, strip_suffix
from lamina.serve.errors import UploadError

_FIELD_LIMIT = 1 << 16
_FIELDS_LIMIT = 64
_NAME_LIMIT = 1024
_SPLIT = "Send it in parts, or ask whoever runs the server to raise --max-upload."


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much one upload may hold."""

    max_bytes: int
    max_files: int
    idle_s: float = 60.0
    """The longest silence."""


@dataclass(kw_only=True)
class Upload:
    """What a form held."""

    folder: Path
    """Of the files."""
    files: dict[Path, str] = field(default_factory=dict)
    """Where a file lies -> what the user called it."""
    parts: dict[str, Path] = field(default_factory=dict)
    """Name of the form's field -> the last file that it held."""
    fields: dict[str, str] = field(default_factory=dict)


async def receive(
    stream: AsyncIterator[bytes],
    content_type: str,
    length: str | None,
    folder: Path,
    limits: Limits,
) -> Upload:
    """Write the files of a form into a folder.

    Args:
        stream: The body.
        content_type: Of the request.
        length: What the request says of its length, if it does.
        folder: New or empty.
        limits: Beyond them, the rest of the body is not even read.

    Raises:
        UploadError: The body is no such form, cut off, silent for too long, or too large.
    """
    kind, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if kind != b"multipart/form-data" or not boundary:
        raise UploadError(
            415, "The body is no multipart/form-data.", "Send the files as fields named 'files'."
        )
    if length is not None and length.isdecimal() and int(length) > limits.max_bytes:
        raise _too_large(limits)
    form, received = _Form(boundary, folder, limits), 0
    try:
        async for chunk in _timed(stream, limits.idle_s):
            received += len(chunk)
            if received > limits.max_bytes:
                raise _too_large(limits)
            await run_in_threadpool(form.write, chunk)
        return form.finish()
    finally:
        form.close()


def safe_suffix(name: str) -> str:
    """Return the suffix by which a scan's format is known, in lower case; else nothing."""
    last = base_name(name).lower()
    return last.removeprefix(strip_suffix(last)) if is_scan(last) else ""


def base_name(name: str) -> str:
    """Return the last part of a name, whichever way its folders are written."""
    return PurePosixPath(name.replace("\\", "/")).name


def disk_full() -> UploadError:
    """Return what is answered where a file of an upload cannot be written."""
    return UploadError(507, "The server's disk takes no more.", "Try again later.")


def readable(name: str) -> str:
    """Return what a user calls a file as printable text of bounded length."""
    return "".join(each if each.isprintable() else "?" for each in name[-_NAME_LIMIT:])


def is_clutter(name: str) -> bool:
    """Tell whether a file is one that systems leave in folders, such as ``.DS_Store``."""
    parts = name.replace("\\", "/").split("/")
    return parts[-1].startswith(".") or "__MACOSX" in parts or parts[-1].lower() == "thumbs.db"


async def _timed(stream: AsyncIterator[bytes], idle_s: float) -> AsyncIterator[bytes]:
    chunks = aiter(stream)
    while True:
        try:
            chunk = await asyncio.wait_for(anext(chunks), idle_s)
        except StopAsyncIteration:
            return
        except asyncio.TimeoutError as error:
            fault = f"Nothing more came for {idle_s:g} s."
            raise UploadError(408, fault, "Send it again.") from error
        yield chunk


def _too_large(limits: Limits) -> UploadError:
    return UploadError(413, f"The upload is larger than {limits.max_bytes:,} bytes.", _SPLIT)


class _Form:
    """Takes a form apart as it comes in."""

    def __init__(self, boundary: bytes, folder: Path, limits: Limits) -> None:
        self.folder = folder
        self.limits = limits
        self.upload = Upload(folder=folder)
        self.ended = False
        self.header, self.value = b"", b""
        self.headers: dict[bytes, bytes] = {}
        self.field = ""
        self.text = bytearray()
        self.file: BufferedWriter | None = None
        folder.mkdir(parents=True)
        try:
            self.parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_header,
                    "on_header_value": self._on_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers,
                    "on_part_data": self._on_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise UploadError(400, "The form's boundary is too long.") from error

    def write(self, chunk: bytes) -> None:
        try:
            self.parser.write(chunk)
        except FormParserError as error:
            raise UploadError(400, "The form is malformed.", "Send it again.") from error
        except OSError as error:
            raise disk_full() from error

    def finish(self) -> Upload:
        if not self.ended:
            raise UploadError(400, "The form ends too early.", "Send it again.")
        return self.upload

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None

    def _begin(self) -> None:
        self.headers, self.header, self.value = {}, b"", b""

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def _on_header_end(self) -> None:
        self.headers[self.header.lower()] = self.value
        self.header, self.value = b"", b""

    def _on_headers(self) -> None:
        kind, options = parse_options_header(self.headers.get(b"content-disposition"))
        if kind != b"form-data" or b"name" not in options:
            raise UploadError(400, "A part of the form has no name.")
        self.field, self.text = _decoded(options[b"name"]), bytearray()
        if b"filename" in options:
            self._open(_decoded(options[b"filename"]))
        elif len(self.upload.fields) >= _FIELDS_LIMIT:
            raise UploadError(413, f"The form has more than {_FIELDS_LIMIT} fields.")

    def _open(self, name: str) -> None:
        count = len(self.upload.files)
        if count >= self.limits.max_files:
            raise UploadError(
                413, f"The upload has more than {self.limits.max_files:,} files.", _SPLIT
            )
        suffix = ".zip" if name.lower().endswith(".zip") else safe_suffix(name)
        path = self.folder / f"{count:05d}{suffix}"
        self.file = path.open("xb")
        self.upload.files[path] = name
        self.upload.parts[self.field] = path

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self.file is not None:
            self.file.write(data[start:end])
            return
        self.text += data[start:end]
        if len(self.text) > _FIELD_LIMIT:
            raise UploadError(413, f"A field is longer than {_FIELD_LIMIT:,} bytes.")

    def _on_part_end(self) -> None:
        if self.file is None:
            self.upload.fields[self.field] = self.text.decode("utf-8", "replace")
        self.close()

    def _on_end(self) -> None:
        self.ended = True


def _decoded(name: bytes) -> str:
    return readable(name.decode("utf-8", "replace"))

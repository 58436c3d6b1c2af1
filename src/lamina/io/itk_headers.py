"""The text headers of NRRD and MetaImage: what they claim of the voxels, and where these are.

A header may send its reader to any file of the machine, and the readers of SimpleITK are lenient.
They never get it: what they read is a header made here, of the fields that were understood, beside
a link to the voxels. An NRRD is refused unless each of its lines has one meaning.

Formats: G. Kindlmann, "Definition of NRRD file format", teem.sourceforge.net/nrrd/format.html, and
"MetaIO", itk.org/Wiki/MetaIO/Documentation.
"""

import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory

from lamina.errors import FileError

_HEADER_LIMIT = 1 << 20
_FIELD_LIMIT = 400
_CHUNK = 1 << 16
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NRRD_MAGIC = re.compile(rb"NRRD\d{4}\r?\n")
_NRRD_FIELD = re.compile(rb"([A-Za-z ]+): [ \t]*(.*?)[ \t]*")
_META_FIELDS = (
    "ObjectType",
    "NDims",
    "BinaryData",
    "BinaryDataByteOrderMSB",
    "ElementByteOrderMSB",
    "CompressedData",
    "CompressedDataSize",
    "TransformMatrix",
    "Rotation",
    "Orientation",
    "Offset",
    "Position",
    "Origin",
    "CenterOfRotation",
    "ElementSpacing",
    "ElementSize",
    "DimSize",
    "ElementNumberOfChannels",
    "ElementType",
    "HeaderSize",
)
_META_LAST = "ElementDataFile"
_UNITS = re.compile(r'"([^"]*)"')
_UNIT_MM = (
    dict.fromkeys(("m", "meter", "meters"), 1e3)
    | dict.fromkeys(("cm", "centimeter", "centimeters"), 10.0)
    | dict.fromkeys(("um", "\u00b5m", "\u00c2\u00b5m", "micron", "microns"), 1e-3)
    | dict.fromkeys(("micrometer", "micrometers"), 1e-3)
    | dict.fromkeys(("nm", "nanometer", "nanometers"), 1e-6)
)
"""Units other than mm; the letter mu in its two encodings."""
_LOCAL = ("LOCAL", "Local", "local")
_VOXELS = "voxels"


@dataclass(frozen=True, kw_only=True)
class Header:
    """Where a header says that the voxels are, and whether it says how they lie in the body."""

    path: Path
    offset: int
    compressed: bool
    compressed_size: str | None = None
    """How many bytes the compressed voxels take, where the header has to tell it."""
    plain_text: bool
    """Voxels are written out as decimal numbers."""
    oriented: bool
    unit_mm: float = 1.0
    """What positions are measured in."""
    rewritten: bytes
    """The header that its reader gets, which names no file but the one beside it."""


def nrrd_header(path: Path) -> Header:
    """Read the header of an NRRD.

    Raises:
        ValueError: It is none, a line of it is no field, or its voxels are in no file beside it.
    """
    lines = _nrrd_lines(path)
    fields = _nrrd_fields(lines[1:])
    encoding = fields.get("encoding", "").lower()
    elsewhere = fields.pop("datafile", None)
    if elsewhere is not None and (elsewhere.startswith("LIST") or "%" in elsewhere):
        raise ValueError(f"its voxels are in several files, {elsewhere!r}")
    skipped = fields.pop("lineskip", "0")
    if not skipped.isdecimal():
        raise ValueError(f"its header field 'lineskip' is {skipped!r}, which is no number")
    before = lines if elsewhere is None else []
    known = fields | {"lineskip": str(len(before) + int(skipped)), "datafile": _VOXELS}
    text = "".join(f"{name}: {value}\n" for name, value in known.items())
    return Header(
        path=path if elsewhere is None else _beside(path, elsewhere),
        offset=sum(map(len, before)),
        rewritten=lines[0].rstrip() + b"\n" + text.encode("latin-1"),
        compressed=encoding in ("gzip", "gz"),
        plain_text=encoding in ("ascii", "text", "txt"),
        unit_mm=_unit_mm(fields.get("spaceunits", "")),
        oriented=fields.get("space", "").lower().startswith(("left", "right", "l", "r")),
    )


def meta_header(path: Path) -> Header:
    """Read the header of a MetaImage.

    Raises:
        ValueError: It is none, a field that is used is no plain text, or its voxels are in no file
            beside it.
    """
    fields, offset = _meta_fields(path)
    axes, sizes, voxels = (fields.get(key, "") for key in ("NDims", "DimSize", _META_LAST))
    if not voxels:
        raise ValueError("it does not start with a MetaImage header")
    if axes not in ("2", "3", "4") or len(sizes.split()) != int(axes):
        raise ValueError(f"its header claims {axes or 'no'} axes of sizes {sizes!r}")
    compressed = _is_true(fields.get("CompressedData", ""))
    known = {key: fields[key] for key in _META_FIELDS if fields.get(key)}
    if voxels in _LOCAL:
        known["HeaderSize"] = str(offset)
    for key, value in known.items():
        if not (value.isascii() and value.isprintable()):
            raise ValueError(f"its header field {key} is no plain text")
    known[_META_LAST] = _VOXELS
    return Header(
        path=path if voxels in _LOCAL else _beside(path, voxels),
        offset=offset if voxels in _LOCAL else 0,
        compressed=compressed,
        compressed_size=fields.get("CompressedDataSize", "no") if compressed else None,
        plain_text=not _is_true(fields.get("BinaryData", "true")),
        oriented=not fields.keys().isdisjoint(("TransformMatrix", "Orientation", "Rotation")),
        rewritten="".join(f"{key} = {value}\n" for key, value in known.items()).encode(),
    )


@contextmanager
def vetted(path: Path, header: Header) -> Iterator[Path]:
    """Yield the file that a reader may be given instead of this one, for as long as it reads.

    Raises:
        FileError: It cannot be made.
    """
    with ExitStack() as kept:
        try:
            folder = kept.enter_context(TemporaryDirectory())
            Path(folder, _VOXELS).symlink_to(header.path.resolve())
            file = Path(folder, f"{path.stem}{path.suffix.lower()}")
            file.write_bytes(header.rewritten)
        except OSError as error:
            raise FileError(
                f"{path}: reading it needs a file and a symbolic link in the temporary folder, "
                f"which cannot be made: {error}.",
                remedy="Set TMPDIR to a folder that can be written to, where links are permitted; "
                "Windows permits them in its developer mode.",
            ) from error
        yield file


def check_stored(header: Header, numbers: int, number_size: int) -> None:
    """Check that a file holds as many numbers, of so many bytes each, as its header claims.

    Raises:
        ValueError: It holds fewer, or they are damaged.
    """
    claimed = numbers if header.plain_text else numbers * number_size
    found = (
        _unpacked_size(header) if header.compressed else header.path.stat().st_size - header.offset
    )
    if found < claimed:
        raise ValueError(f"its header claims {claimed} bytes of voxels, {max(0, found)} are there")


def _nrrd_lines(path: Path) -> list[bytes]:
    """Return the lines of a header, with the empty one that ends it."""
    lines: list[bytes] = []
    for line in _lines(path):
        lines.append(line)
        if line in (b"\n", b"\r\n"):
            break
    if not (lines and _NRRD_MAGIC.fullmatch(lines[0]) and sum(map(len, lines)) < _HEADER_LIMIT):
        raise ValueError("it does not start with an NRRD header")
    return lines


def _nrrd_fields(lines: Iterable[bytes]) -> dict[str, str]:
    """Return the fields, names in lower case without blanks."""
    fields: dict[str, str] = {}
    for line in lines:
        text = re.sub(rb"\r?\n\Z", b"", line)
        if text and (found := _nrrd_field(text)):
            name, value = found
            if name in fields:
                raise ValueError(f"its header has the field {name!r} twice")
            fields[name] = value
    return fields


def _unit_mm(text: str) -> float:
    """Return the unit of all axes in space; units that nobody knows count as mm."""
    units = {_UNIT_MM.get(unit, 1.0) for unit in _UNITS.findall(text)} or {1.0}
    if len(units) > 1:
        raise ValueError(f"its axes in space have different units, {text}")
    return units.pop()


def _nrrd_field(text: bytes) -> tuple[str, str] | None:
    """Return the name and value of a field, None for remarks and what others may use."""
    if _CONTROL.search(text):
        raise ValueError("its header holds control characters")
    found = _NRRD_FIELD.fullmatch(text)
    if not found:
        if text.startswith(b"#") or b":=" in text:
            return None
        raise ValueError(f"its header line {text[:20].decode('latin-1')!r} is no field")
    name = found[1].decode().replace(" ", "").lower()
    if len(text) > _FIELD_LIMIT:
        raise ValueError(f"its header field {name[:20]!r} is too long")
    return name, found[2].decode("latin-1")


def _meta_fields(path: Path) -> tuple[dict[str, str], int]:
    """Return the fields, and the byte where the last ends: the one that says where voxels are."""
    fields: dict[str, str] = {}
    end = 0
    for line in _lines(path):
        end += len(line)
        name, *value = re.split("[:=]", line.decode("latin-1"), maxsplit=1)
        name = name.strip(" \t\r\n")
        fields[name] = " ".join("".join(value).split())
        if name == _META_LAST:
            fields[name] = "".join(value).strip(" \t\r\n")
            break
    return fields, end


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        return iter(BytesIO(stream.read(_HEADER_LIMIT)))


def _is_true(value: str) -> bool:
    return value[:1] in ("T", "t", "1")


def _beside(path: Path, name: str) -> Path:
    voxels = path.parent / name
    if Path(name).name != name or not voxels.is_file():
        raise ValueError(f"its voxels are in {name!r}, which is no file beside it")
    return voxels


def _unpacked_size(header: Header) -> int:
    """Return the length in bytes of what is compressed, after comparing its checksum."""
    unpacker, size = zlib.decompressobj(wbits=47), 0  # 47: either a zlib or a gzip stream
    with header.path.open("rb") as stream:
        stream.seek(header.offset)
        while not unpacker.eof and (chunk := stream.read(_CHUNK)):
            size += len(unpacker.decompress(chunk))
        packed = stream.tell() - len(unpacker.unused_data) - header.offset
    if not unpacker.eof:
        raise ValueError(f"its compressed voxels end early, after {packed} bytes")
    if header.compressed_size not in (None, str(packed)):
        raise ValueError(
            f"its header claims {header.compressed_size} bytes of compressed voxels, {packed} are "
            "there"
        )
    return size

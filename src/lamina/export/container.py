"""The folder of an exported model: graphs, and as data all that stands around a network.

==================== ======================================================================
``model.*``          the network; ``attention.*`` beside it where it reads attention maps
``export.json``      plan, postprocessing, network, training, metrics, provenance, source
``parity.json``      how far the exported network is from the original
``README.md``        model card
``SHA256SUMS``       checksums of all others, as ``sha256sum -c`` reads them
==================== ======================================================================

Nothing is believed before its checksum was compared. Only an export to torch may hold code; the
runtime refuses it.
"""

import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lamina.data.plan import Plan
from lamina.errors import BundleError, ConfigError, LaminaError
from lamina.export.targets import Precision
from lamina.files import read_json, sha256, write_json, write_text

RECORD = "export.json"
PARITY = "parity.json"
CARD = "README.md"
SUMS = "SHA256SUMS"
FORMAT_VERSION = 1
"""Goes up whenever ``export.json`` or what is beside it changes; readers refuse newer ones."""

_FRESH_COPY = "Export the model again, or get a fresh copy from where it came from."
_SECTIONS = ("network", "training", "metrics", "provenance", "source")
_LINE = re.compile(r"([0-9a-f]{64})  (\S.*)")


@dataclass(frozen=True, kw_only=True, eq=False)
class Exported:
    """What an exported model knows beside its graphs."""

    target: str
    """Registered name, such as ``"onnx"``."""
    precision: Precision
    """What its network was written in: ``"fp32"`` or ``"int8"``."""
    plan: Plan
    """How scans are prepared for the network, and what its classes mean."""
    postprocessing: tuple[dict[str, Any], ...]
    """As a bundle has it."""
    network: dict[str, Any]
    """As a bundle has it."""
    training: dict[str, Any]
    metrics: dict[str, Any]
    provenance: dict[str, Any]
    source: dict[str, Any]
    """``file`` and ``sha256`` of the model it was made from, and the versions that made it."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "format_version": FORMAT_VERSION,
            "target": self.target,
            "precision": self.precision,
            "plan": self.plan.as_dict(),
            "postprocessing": list(self.postprocessing),
            **{name: getattr(self, name) for name in _SECTIONS},
        }


def seal(folder: Path, exported: Exported, card: str, parity: dict[str, Any]) -> None:
    """Write the record, the card and the report beside the graphs, then the checksums of all.

    Raises:
        FileError: They cannot be written.
    """
    write_json(folder / RECORD, exported.as_dict())
    write_json(folder / PARITY, parity)
    write_text(folder / CARD, card)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    sums = (f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files)
    write_text(folder / SUMS, "".join(sums))


def is_exported(path: Path) -> bool:
    """Tell whether a path is the folder of an exported model."""
    return (path / RECORD).is_file() and (path / SUMS).is_file()


def read_exported(folder: Path) -> Exported:
    """Check an exported model and read what it knows.

    Raises:
        BundleError: The folder holds none, or one that is damaged, altered, made by a newer Lamina,
            or contradicts itself.
    """
    if not is_exported(folder):
        raise BundleError(
            f"{folder}: holds no exported model.", remedy="Make one with lamina export."
        )
    try:
        _check_sums(folder)
        record = read_json(folder / RECORD)
        return _exported(folder, record)
    except BundleError:
        raise
    except (LaminaError, LookupError, TypeError, ValueError) as error:
        raise BundleError(f"{folder}: {RECORD}: {error}", remedy=_FRESH_COPY) from error


def further_files(folder: Path) -> list[str]:
    """Return what a folder holds beside an exported model; a few of all, where it holds none."""
    if is_exported(folder):
        return sorted(_files(folder) - {SUMS, *_listed(folder)})
    return sorted(path.name for path in islice(folder.iterdir(), 5)) if folder.is_dir() else []


def _files(folder: Path) -> set[str]:
    found = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return {path.relative_to(folder).as_posix() for path in found}


def _listed(folder: Path) -> dict[str, str]:
    """Return the files of an exported model with their checksums; none where these are damaged."""
    lines = (folder / SUMS).read_text("utf-8", errors="replace").splitlines()
    listed = {m[2]: m[1] for line in lines if (m := _LINE.fullmatch(line))}
    return listed if len(listed) == len(lines) and RECORD in listed else {}


def _check_sums(folder: Path) -> None:
    listed = _listed(folder)
    if not listed:
        raise BundleError(f"{folder}: {SUMS} is damaged.", remedy=_FRESH_COPY)
    if odd := sorted((_files(folder) - {SUMS}) ^ listed.keys()):
        raise BundleError(
            f"{folder}: files are missing, or are no part of it: {', '.join(odd)[:200]}.",
            remedy=_FRESH_COPY,
        )
    altered = [
        name
        for name, expected in listed.items()
        if (folder / name).is_symlink() or sha256(folder / name) != expected
    ]
    if altered:
        raise BundleError(
            f"{folder}: {', '.join(altered)} altered or damaged (the SHA-256 differs).",
            remedy=_FRESH_COPY,
        )


def _exported(folder: Path, record: dict[str, Any]) -> Exported:
    version = record["format_version"]
    if version != FORMAT_VERSION:
        raise BundleError(
            f"{folder}: made by another Lamina (format {version!r}, known: {FORMAT_VERSION}).",
            remedy="Upgrade Lamina, or export the model again.",
        )
    steps = record["postprocessing"]
    if not isinstance(steps, list) or not all(isinstance(step, dict) for step in steps):
        raise ConfigError("postprocessing must be a list of mappings.")
    if wrong := [name for name in _SECTIONS if not isinstance(record[name], dict)]:
        raise ConfigError(f"{wrong[0]} is no mapping.")
    if not isinstance(record["source"].get("sha256"), str):
        raise ConfigError("source tells no sha256.")
    plan, network = Plan.from_dict(record["plan"]), record["network"]
    plan.check_network(network)
    if network["fields"].get("attention_maps") and not isinstance(network.get("attention"), dict):
        raise ConfigError("network reads attention maps, and does not say what draws them.")
    return Exported(
        target=str(record["target"]),
        precision=record["precision"],
        plan=plan,
        postprocessing=tuple(steps),
        **{name: record[name] for name in _SECTIONS},
    )

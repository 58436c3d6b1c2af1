"""What was measured, kept as JSON and shown as a page."""

import os
import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lamina.errors import ConfigError
from lamina.files import atomic_path, read_json, write_json
from lamina.report.benchmarks import page
from lamina.workflows.steps.provenance import machine, software

NAME = "benchmarks"
_RUNTIMES = ("onnxruntime", "openvino")


def new_record() -> dict[str, Any]:
    """Return a record of this machine in which nothing was measured yet."""
    about = {key: value for key, value in machine().items() if key != "threads"}
    return {
        "machine": {"processor": processor(), "scheduling": _scheduling(), **about},
        "software": software() | {name: _version(name) for name in _RUNTIMES},
        "networks": {},
        "scans": {},
    }


def read_benchmarks(folder: Path) -> dict[str, Any]:
    """Return the record of a folder, or a new one.

    Raises:
        ConfigError: It was made on another machine, with other versions or under another
            scheduling policy, whose figures must not stand beside those of today.
    """
    fresh, file = new_record(), folder / f"{NAME}.json"
    if not file.is_file():
        return fresh
    known: dict[str, Any] = read_json(file)
    if any(known.get(part) != fresh[part] for part in ("machine", "software")):
        raise ConfigError(
            f"{file}: was measured on another machine, with other versions, or under another "
            "scheduling policy.",
            remedy="Choose another --out, or remove the file.",
        )
    return known


def write_benchmarks(record: Mapping[str, Any], folder: Path) -> None:
    """Write the record and its page.

    Raises:
        FileError: The folder cannot be written.
    """
    write_json(folder / f"{NAME}.json", record)
    with atomic_path(folder / f"{NAME}.md") as part:
        part.write_text(page(record), "utf-8")


def processor() -> str:
    """Return the name of this machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _scheduling() -> str | None:
    """Return the name of the policy by which the system gives this process its turns."""
    if not hasattr(os, "sched_getscheduler"):  # not everywhere
        return None
    used = os.sched_getscheduler(0)
    policies = ("SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE", "SCHED_FIFO", "SCHED_RR")
    return next((name for name in policies if getattr(os, name) == used), f"{used}")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None

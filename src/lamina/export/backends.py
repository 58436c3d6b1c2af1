"""What runs a model's network: torch, or another runtime that it is exported to on the fly.

Exports and measurements are kept in the user's cache folder, by the hash of the model. Processes
take turns there, so that none sees an export that another is about to replace.
"""

import hashlib
import json
import logging
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.bundle import Bundle
from lamina.errors import BundleError, ConfigError, ExportError, FileError
from lamina.export.container import read_exported
from lamina.export.targets import MODEL, TARGETS, Graphs, Network, Precision
from lamina.export.writing import write_exported
from lamina.files import locked, read_json, remove_parts, write_json
from lamina.inference.backend import fast_network

log = logging.getLogger(__name__)

BACKENDS = ("torch", "onnx", "openvino", "auto")
"""What a prediction may run on; ``auto`` is the one that was quickest on one window."""

_EXPORTED = ("onnx", "openvino")
_REPEATS = 2


def cache_folder() -> Path:
    """Return where exports and measurements are kept for this user.

    Raises:
        FileError: The user has no home.
    """
    try:
        return Path.home() / ".cache" / "lamina"
    except RuntimeError as error:
        raise FileError("This user has no home folder.", remedy="Set HOME to one.") from error


def backend_of(
    name: str,
    bundle: Bundle,
    graphs: Callable[[], Graphs],
    *,
    model_sha256: str,
    device: str,
    precision: Precision = "fp32",
    threads: int | None = None,
    ram_bytes: float | None = None,
) -> tuple[str, Network | None]:
    """Return what a model's network is to be run by.

    Args:
        name: One of ``BACKENDS``.
        bundle: The model.
        graphs: Builds its networks, should they be needed.
        model_sha256: Of its file.
        device: That of torch.
        precision: ``"fp32"`` or ``"bf16"``.
        threads: For runtimes other than torch; ``None``: all cores.
        ram_bytes: The memory granted, as :func:`~lamina.inference.backend.fast_network` takes it.

    Returns:
        The backend's name, and the network; ``None`` where torch is to run it.

    Raises:
        ConfigError: There is no such backend, or it cannot use that device.
        ExportError: The network cannot be exported to it.
        FileError: The export cannot be kept in the cache folder; ``auto`` goes on without.
        ImportError: A package that it needs is not installed.
    """
    if name not in BACKENDS:
        raise ConfigError(f"backend {name!r}: must be one of {', '.join(BACKENDS)}.")
    on_cpu = device == "cpu"
    if name in _EXPORTED and not on_cpu:
        raise ConfigError(
            f"backend {name}: runs on the processor, not on {device}.",
            remedy="Give --device cpu, or --backend torch.",
        )
    if name == "torch" or not on_cpu:
        return "torch", None
    load = _Loader(
        bundle=bundle,
        graphs=graphs,
        model_sha256=model_sha256,
        precision=precision,
        threads=threads,
        ram_bytes=ram_bytes,
    )
    if name == "auto":
        name = _quickest(load)
    return name, None if name == "torch" else load(name)


@dataclass(frozen=True, kw_only=True)
class _Loader:
    """Loads a model's network for any backend, exporting it first where that was not done yet."""

    bundle: Bundle
    graphs: Callable[[], Graphs]
    model_sha256: str
    precision: Precision
    threads: int | None
    ram_bytes: float | None

    def __call__(self, name: str) -> Network:
        if name == "torch":
            network, bf16 = self.graphs()[MODEL].network, self.precision == "bf16"
            return fast_network(network, bf16=bf16, ram_bytes=self.ram_bytes)
        TARGETS.get(name).require(self.precision)  # before a whole export is made for nothing
        try:
            with locked(cache_folder(), wait=True):
                folder = self._exported(name)
                return TARGETS.get(name).network(folder, MODEL, self.threads, self.precision)
        except FileError as error:
            raise FileError(
                f"{error.message} Exports are kept there.",
                remedy="To go without one, give --backend torch.",
            ) from error

    def _exported(self, name: str) -> Path:
        """Return the folder of the model's export, made now if need be."""
        folder = cache_folder() / f"{self.model_sha256}-{name}-{version('lamina')}"
        try:
            read_exported(folder)
        except BundleError:
            log.info("Exporting the model to %s, once.", name)
            remove_parts(cache_folder())
            source = {"file": Path(self.bundle.source).name, "sha256": self.model_sha256}
            write_exported(self.bundle, self.graphs(), name, folder, source=source)
        return folder

    def window(self) -> NDArray[np.float32]:
        """Return one window."""
        example: NDArray[np.float32] = self.graphs()[MODEL].example[:1].numpy()
        return example

    def times_file(self) -> Path:
        """Return where the seconds are kept that a window took with just this, just here."""
        names = ("lamina", "torch", "onnxruntime", "openvino")
        found = {name: _version(name) for name in names}
        machine = [platform.node(), platform.machine(), os.cpu_count(), self.threads]
        circumstances = json.dumps([self.model_sha256, self.precision, machine, found])
        digest = hashlib.sha256(circumstances.encode()).hexdigest()
        return cache_folder() / f"{digest}-seconds.json"


def _quickest(load: _Loader) -> str:
    """Return the backend that needed least time for one window when that was measured.

    It is torch where nothing can be kept in the cache folder.
    """
    try:
        file = load.times_file()
        return _known(file) or _measured(load, file)
    except FileError as error:
        log.warning("%s Going on with torch.", error.message)
        return "torch"


def _known(file: Path) -> str | None:
    """Return the quickest of an earlier measurement, if there is one that can be read."""
    try:
        name = _least(read_json(file))
    except (FileError, AttributeError, TypeError, ValueError):
        return None
    return name if name in BACKENDS else None


def _measured(load: _Loader, file: Path) -> str:
    """Time one window on each backend that is installed and runs it, and keep that."""
    window, times = load.window(), {}
    for name in ("torch", *_EXPORTED):
        if name != "torch" and not all(map(find_spec, TARGETS.get(name).packages)):
            continue
        try:
            network = load(name)
            network(window)
            times[name] = min(_seconds(network, window) for _ in range(_REPEATS))
        except (ExportError, MemoryError, RuntimeError) as error:
            if name == "torch":
                raise
            log.info("%s is left out: %s", name, error)
    with locked(cache_folder(), wait=True):
        write_json(file, times)
    return _least(times)


def _least(times: Any) -> str:
    return str(min(times, key=times.__getitem__))


def _seconds(network: Network, window: NDArray[np.float32]) -> float:
    began = time.perf_counter()
    network(window)
    return time.perf_counter() - began


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

"""What runs a model's network: torch, or another runtime that it is exported to on the fly.

Exports and measurements are kept in the user's cache folder, by the hash of the model.
"""

import json
import logging
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lamina.bundle import Bundle
from lamina.errors import BundleError, ConfigError, ExportError, FileError
from lamina.export.container import read_exported
from lamina.export.targets import MODEL, TARGETS, Graphs, Network, Precision
from lamina.export.writing import write_exported
from lamina.files import read_json, write_json
from lamina.inference.backend import fast_network

log = logging.getLogger(__name__)

BACKENDS = ("torch", "onnx", "openvino", "auto")
"""What a prediction may run on; ``auto`` is the one that was quickest on one window."""

_EXPORTED = ("onnx", "openvino")
_REPEATS = 2


def cache_folder() -> Path:
    """Return where exports and measurements are kept for this user."""
    return Path.home() / ".cache" / "lamina"


def backend_of(
    name: str,
    bundle: Bundle,
    graphs: Callable[[], Graphs],
    *,
    model_sha256: str,
    device: str,
    precision: Precision = "fp32",
    threads: int | None = None,
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

    Returns:
        The backend's name, and the network; ``None`` where torch is to run it.

    Raises:
        ConfigError: There is no such backend, or it cannot use that device.
        ExportError: The network cannot be exported to it.
        FileError: The export cannot be kept in the cache folder.
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
    load = _Loader(bundle, graphs, model_sha256, precision, threads)
    if name == "auto":
        name = _quickest(load)
    return name, None if name == "torch" else load(name)


class _Loader:
    """Loads a model's network for any backend, exporting it first where that was not done yet."""

    def __init__(
        self,
        bundle: Bundle,
        graphs: Callable[[], Graphs],
        model_sha256: str,
        precision: Precision,
        threads: int | None,
    ) -> None:
        self.bundle = bundle
        self.graphs = graphs
        self.model_sha256 = model_sha256
        self.precision = precision
        self.threads = threads

    def __call__(self, name: str) -> Network:
        if name == "torch":
            return fast_network(self.graphs()[MODEL].network, bf16=self.precision == "bf16")
        folder = cache_folder() / f"{self.model_sha256}-{name}-{version('lamina')}"
        try:
            read_exported(folder)
        except BundleError:
            log.info("Exporting the model to %s, once.", name)
            source = {"file": Path(self.bundle.source).name, "sha256": self.model_sha256}
            try:
                write_exported(self.bundle, self.graphs(), name, folder, source=source)
            except FileError as error:
                raise FileError(
                    f"{error.message} Exports are kept there.",
                    remedy="To go without one, give --backend torch.",
                ) from error
        return TARGETS.get(name).load(folder, MODEL, self.threads, self.precision)

    def window(self) -> NDArray[np.float32]:
        """Return one window."""
        example: NDArray[np.float32] = self.graphs()[MODEL].example[:1].numpy()
        return example

    def key(self) -> str:
        """Return all that a measurement holds for."""
        names = ("lamina", "torch", "onnxruntime", "openvino")
        found = {name: _version(name) for name in names}
        machine = [platform.node(), platform.machine(), os.cpu_count(), self.threads]
        return json.dumps([self.model_sha256, self.precision, machine, found])


def _quickest(load: _Loader) -> str:
    """Return the backend that needed least time for one window when that was measured."""
    file, key = cache_folder() / "backends.json", load.key()
    try:
        known = read_json(file)
        return _least(known[key])
    except (FileError, LookupError, TypeError, ValueError):
        known = {}
    times = _measured(load)
    try:
        write_json(file, known | {key: times})
    except FileError as error:
        log.debug("%s", error)
    return _least(times)


def _least(times: Mapping[str, float]) -> str:
    return min(times, key=times.__getitem__)


def _measured(load: _Loader) -> dict[str, float]:
    """Return the seconds that one window takes on each backend that is installed."""
    window, times = load.window(), {}
    for name in ("torch", *_EXPORTED):
        if name != "torch" and not all(map(find_spec, TARGETS.get(name).packages)):
            continue
        try:
            network = load(name)
        except ExportError as error:
            log.debug("%s", error)
            continue
        network(window)
        times[name] = min(_seconds(network, window) for _ in range(_REPEATS))
    return times


def _seconds(network: Network, window: NDArray[np.float32]) -> float:
    began = time.perf_counter()
    network(window)
    return time.perf_counter() - began


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""

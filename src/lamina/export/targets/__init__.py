"""What models are exported to: one file for each target.

Exported networks are plain functions of arrays. Writing needs torch; loading needs only the
target's own runtime, so nothing here imports torch before it writes.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from lamina.errors import ExportError, LaminaError
from lamina.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from lamina.bundle import Bundle

Network = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Windows ``(B, C, *roi_size) -> (B, K, *roi_size)`` logits, or slices to attention maps."""

Segment = Callable[[Sequence[Path]], NDArray[Any]]
"""A scan's files -> its label map ``(1, *S)`` on its own grid, in the values of files."""

Precision = Literal["fp32", "bf16", "int8"]
"""What a network computes in."""

MODEL = "model"
"""Name of the graph that segments."""
ATTENTION = "attention"
"""Name of the graph that draws the attention maps which some networks read."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Graph:
    """A network in evaluation mode, on the CPU, and a batch of two that fits it."""

    network: "nn.Module"
    example: "Tensor"


Graphs = Mapping[str, Graph]
"""``MODEL``, and ``ATTENTION`` where the network reads such maps."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """One kind of export.

    Raises (all functions):
        ExportError: The network holds what the target cannot express, or the target cannot do what
            is asked for.
        ImportError: A package of the target is not installed.
    """

    packages: tuple[str, ...]
    """Modules that writing needs besides torch."""
    write: Callable[["Bundle", Graphs, Path], None]
    """Write a model's graphs into a folder, which exists."""
    load: Callable[[Path, str, int | None, Precision], Network]
    """Load a graph by its name from such a folder, to run on so many threads (``None``: all), in
    one of the ``precisions``; :meth:`network` calls it."""
    precisions: tuple[Precision, ...] = ("fp32",)
    """What it can compute in."""
    runs_code: bool = False
    """Whether loading may run code that a folder holds, so that only one's own may be loaded."""
    how_to_run: str = "lamina-runtime -m {folder} -i SCAN -o SEGMENTATION"
    """What runs an export that lies in ``{folder}``, for people."""
    segmenter: Callable[[Path], Segment] | None = None
    """Return what segments scans as a folder's own program does; ``None`` where scans are prepared
    and put back by Lamina's code.

    What it returns raises ``ExportError`` for scans that the program does not take."""

    def network(
        self,
        folder: Path,
        graph: str,
        threads: int | None = None,
        precision: Precision = "fp32",
    ) -> Network:
        """Load a graph by its name from a folder.

        Raises:
            ExportError: As :meth:`require`; or what runs the target does not take the graph.
            MemoryError: There is not enough memory.
            ImportError: What runs the target is not installed.
        """
        self.require(precision)
        try:
            with running():
                return self.load(folder, graph, threads, precision)
        except RuntimeError as error:
            raise ExportError(
                f"{folder}: {graph} cannot be loaded: {str(error).rstrip('.')}.",
                remedy="Upgrade the runtime, or export the model again, here or to another target.",
            ) from error

    def require(self, precision: Precision) -> None:
        """Refuse a precision that the target does not compute in.

        Raises:
            ExportError: It does not.
        """
        if precision not in self.precisions:
            raise ExportError(
                f"precision {precision}: this export computes in {', '.join(self.precisions)}.",
                remedy="Export the model to openvino.",
            )


TARGETS: Registry[Target] = Registry("export target", __name__)
"""Every target by its name, such as ``"onnx"``."""

_NO_MEMORY = ("allocate", "bad_alloc", "bad allocation")


@contextmanager
def running() -> Iterator[None]:
    """Turn what a runtime raises in the block into errors that everybody expects.

    ONNX Runtime's have nothing in common, and OpenVINO's begin with the lines of its own source.
    What everybody expects, such as a missing package, stays as it is.

    Raises:
        MemoryError: There is not enough memory.
        RuntimeError: Anything else went wrong.
    """
    try:
        yield
    except (ImportError, LaminaError, MemoryError):
        raise
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        for line in lines:
            if any(sign in line for sign in _NO_MEMORY):
                raise MemoryError(line) from error
        raise RuntimeError(lines[-1] if lines else type(error).__name__) from error

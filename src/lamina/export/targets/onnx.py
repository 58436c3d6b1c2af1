"""ONNX, run by ONNX Runtime on the CPU."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lamina.export.targets import TARGETS, Graphs, Network, Precision, Target, running

if TYPE_CHECKING:
    from lamina.bundle import Bundle

_FATAL_ONLY = 4
"""What goes wrong is raised, and need not be printed as well."""


def write(bundle: "Bundle", graphs: Graphs, folder: Path) -> None:
    """Write each graph as ``NAME.onnx``."""
    from lamina.export.graphs import to_onnx

    for name, graph in graphs.items():
        to_onnx(graph, folder / f"{name}.onnx")


def load(folder: Path, graph: str, threads: int | None, precision: Precision) -> Network:
    """Load ``NAME.onnx``."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = _FATAL_ONLY
    session = onnxruntime.InferenceSession(
        str(folder / f"{graph}.onnx"), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with running():
            found: NDArray[np.float32] = session.run(None, {name: np.ascontiguousarray(batch)})[0]
        return found

    return run


TARGETS.register("onnx")(
    Target(packages=("onnx", "onnxscript", "onnxruntime"), write=write, load=load)
)

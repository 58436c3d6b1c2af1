"""OpenVINO on the CPU: in fp32 or bf16 as asked for when it is loaded, or quantised to int8."""

import errno
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lamina.export.targets import (
    MODEL,
    TARGETS,
    Graphs,
    Network,
    Precision,
    Target,
    running,
)

if TYPE_CHECKING:
    from lamina.bundle import Bundle


def write(bundle: "Bundle", graphs: Graphs, folder: Path) -> None:
    """Write each graph as ``NAME.xml`` and ``NAME.bin``, by way of ONNX.

    Its own reader of traced networks is slower, and a thousand times less exact on some of them.
    """
    import openvino

    from lamina.export.graphs import refusing, to_onnx

    for name, graph in graphs.items():
        between = folder / f"{name}.onnx"
        with refusing("OpenVINO"):
            to_onnx(graph, between)
            model = openvino.Core().read_model(between)
            _save(model, folder / f"{name}.xml")
            del model  # it maps the file that is about to be removed
        between.unlink()


def quantise(folder: Path, windows: Sequence[NDArray[np.float32]]) -> None:
    """Replace the network in ``folder`` by one that computes in int8 where it can.

    Args:
        folder: What :func:`write` wrote; attention maps stay as they are.
        windows: ``(1, C, *roi_size)`` each, from which the ranges of values are learnt.

    Raises:
        ExportError: NNCF cannot quantise it.
        ImportError: NNCF is not installed.
    """
    import nncf
    import openvino

    from lamina.export.graphs import refusing

    path = folder / f"{MODEL}.xml"
    with refusing("int8"):
        model = openvino.Core().read_model(path)
        with redirect_stdout(sys.stderr):  # where it draws its progress
            quantised = nncf.quantize(model, nncf.Dataset(windows), subset_size=len(windows))
        del model  # it maps the weights of the file that is about to be replaced
        part = folder / f"{MODEL}-int8.xml"
        _save(quantised, part)
        for suffix in (".xml", ".bin"):
            part.with_suffix(suffix).replace(path.with_suffix(suffix))


def _save(model: Any, path: Path) -> None:
    import openvino

    try:
        openvino.save_model(model, path, compress_to_fp16=False)
    except RuntimeError as error:  # it does not say what was wrong, and has removed the file
        raise OSError(errno.EIO, "OpenVINO could not write it; is the disk full?") from error


def load(folder: Path, graph: str, threads: int | None, precision: Precision) -> Network:
    """Load ``NAME.xml``; ``"bf16"`` is a hint that processors without it pass over."""
    import openvino

    hint = "f32" if precision == "fp32" else precision
    properties: dict[str, object] = {"INFERENCE_PRECISION_HINT": hint}
    if threads:
        properties["INFERENCE_NUM_THREADS"] = threads
    compiled = openvino.Core().compile_model(folder / f"{graph}.xml", "CPU", properties)

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with running():
            return np.array(compiled([np.ascontiguousarray(batch)])[0], np.float32)

    return run


TARGETS.register("openvino")(
    Target(
        packages=("openvino", "onnx", "onnxscript"),
        write=write,
        load=load,
        precisions=("fp32", "bf16"),
    )
)

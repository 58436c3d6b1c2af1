"""From a model to graphs: what is traced, how, and what is said when that fails."""

import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lamina.bundle import Bundle, build_network
from lamina.errors import ExportError
from lamina.export.targets import ATTENTION, MODEL, Graph, Network
from lamina.models.accelerate import simplified
from lamina.models.vit import ViT

_OPERATOR = re.compile(r"\b(?:aten|prims?|torchvision|lamina)(?:\.|::)\w+(?:\.\w+)?")
_MAX_BATCH = 4096


class AttentionGraph(nn.Module):
    """A vision transformer that returns its attention instead of its features."""

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, image: Tensor) -> Tensor:
        """``(B, C, size, size) -> (B, h, size / t, size / t)``."""
        return self.vit.attention(image)


def graphs_of(bundle: Bundle, vit: ViT | None = None) -> dict[str, Graph]:
    """Build a model's networks and the batches that they are traced with.

    Args:
        bundle: The model; the members of an ensemble become one graph.
        vit: The transformer that draws the attention maps its network reads, if it reads any.

    Raises:
        BundleError: The network cannot be built.
    """
    window = noise(2, bundle.config.input_channels, bundle.plan.seen_roi_size)
    graphs = {MODEL: Graph(network=build_network(bundle), example=window)}
    if vit is not None:
        size = bundle.network["attention"]["size"]
        slices = noise(2, vit.config.in_channels, (size, size))
        graphs[ATTENTION] = Graph(network=AttentionGraph(vit).eval(), example=slices)
    return graphs


def of_arrays(network: Callable[[Tensor], Tensor], threads: int | None) -> Network:
    """Return a network as a function of arrays.

    ``threads`` is torch's own setting, for the whole process.
    """
    if threads:
        torch.set_num_threads(threads)

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            found: NDArray[np.float32] = network(torch.from_numpy(batch)).numpy()
        return found

    return run


def noise(batch: int, channels: int, size: Sequence[int]) -> Tensor:
    """Return normal noise ``(batch, channels, *size)``, the same every time."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, channels, *size, generator=generator)


def traced(graph: Graph) -> torch.export.ExportedProgram:
    """Trace a network for batches of any size of windows of one size.

    Raises:
        ExportError: It cannot be traced.
    """
    batch = torch.export.Dim("batch", min=1, max=_MAX_BATCH)
    with refusing("torch.export"), torch.no_grad():
        return torch.export.export(graph.network, (graph.example,), dynamic_shapes=({0: batch},))


def to_onnx(graph: Graph, path: Path) -> None:
    """Write a network, in fewer operators, as an ONNX file, weights and all.

    Raises:
        ExportError: It holds what ONNX cannot express.
    """
    # Other forms of attention order their result otherwise in memory than what ONNX makes of them.
    with refusing("ONNX"), sdpa_kernel(SDPBackend.MATH):
        program = traced(replace(graph, network=simplified(graph.network)))
        converted = torch.onnx.export(program, (), dynamo=True, verbose=False)
        assert converted is not None
        converted.save(str(path), external_data=False)


@contextmanager
def refusing(target: str) -> Iterator[None]:
    """Turn whatever an exporter raises into one message that names the operator; hush the rest.

    Raises:
        ExportError: The block failed.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "nncf", "onnxscript")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (ImportError, ExportError, OSError, MemoryError):
        raise
    except Exception as error:
        raise ExportError(
            f"The network cannot be exported to {target}: {_reason(error)}",
            remedy="Export it to another target, or predict with --backend torch.",
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _reason(error: BaseException) -> str:
    """Name the operator that failed, from the innermost of the errors that tells one."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    for each in reversed(chain):
        if found := _OPERATOR.search(str(each)):
            return f"operator {found[0]} is not supported."
    first = str(error).strip().partition("\n")[0]
    return f"{first or type(error).__name__}."[:300]

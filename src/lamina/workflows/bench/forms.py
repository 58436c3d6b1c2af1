"""The forms that a network is measured in: what runs it, and in which precision."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lamina.bundle import Bundle, build_network
from lamina.errors import ConfigError
from lamina.export.targets import MODEL, TARGETS, Network, Precision
from lamina.inference.backend import TorchNetwork
from lamina.models.accelerate import for_inference, keep_freed_memory
from lamina.training.device import has_bf16


@dataclass(frozen=True, kw_only=True)
class Form:
    """One way to run a network."""

    title: str
    precision: Literal["f32", "bf16"]
    load: Callable[[Bundle, Path, int], Network]
    """Takes the model, the folder of its exports, and threads."""
    target: str | None = None
    """What the model has to be exported to first."""


def plain(bundle: Bundle) -> Network:
    """Return the network as its paper defines it, called as a user of torch would."""
    module = build_network(bundle)

    def run(batch: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits: NDArray[np.float32] = module(torch.from_numpy(batch)).numpy()
        return logits

    return run


def fast(bundle: Bundle, *, bfloat16: bool) -> Network:
    """Return the network as a prediction on a CPU runs it.

    Raises:
        ConfigError: The processor only imitates bfloat16.
    """
    if bfloat16 and not has_bf16():
        raise ConfigError("this processor does not multiply in bfloat16.")
    keep_freed_memory()
    return TorchNetwork(for_inference(build_network(bundle), bfloat16=bfloat16))


def _exported(target: str, precision: Precision) -> Callable[[Bundle, Path, int], Network]:
    def load(bundle: Bundle, folder: Path, threads: int) -> Network:
        return TARGETS.get(target).network(folder / target, MODEL, threads, precision)

    return load


PLAIN = "plain"
FORMS: dict[str, Form] = {
    PLAIN: Form(
        title="torch, plain", precision="f32", load=lambda bundle, folder, threads: plain(bundle)
    ),
    "fast": Form(
        title="torch, fast",
        precision="f32",
        load=lambda bundle, folder, threads: fast(bundle, bfloat16=False),
    ),
    "fast_bf16": Form(
        title="torch, fast, bf16",
        precision="bf16",
        load=lambda bundle, folder, threads: fast(bundle, bfloat16=True),
    ),
    "onnx": Form(
        title="ONNX Runtime", precision="f32", load=_exported("onnx", "fp32"), target="onnx"
    ),
    "openvino": Form(
        title="OpenVINO", precision="f32", load=_exported("openvino", "fp32"), target="openvino"
    ),
    "openvino_bf16": Form(
        title="OpenVINO, bf16",
        precision="bf16",
        load=_exported("openvino", "bf16"),
        target="openvino",
    ),
}
"""Every form by its name; all are compared with the first."""

"""Lamina: thin networks for medical image segmentation.

The names below are the public face. They are imported when first used, so ``import lamina`` stays
instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lamina.data.case import Case
    from lamina.errors import LaminaError
    from lamina.folders.model import Model, load
    from lamina.io import read_volume, write_volume
    from lamina.labels import LabelSet
    from lamina.models import build
    from lamina.volume import Volume
    from lamina.workflows.compare import compare
    from lamina.workflows.cross_validation import cross_validate
    from lamina.workflows.evaluate import evaluate
    from lamina.workflows.predict import predict
    from lamina.workflows.prepare import prepare
    from lamina.workflows.recipes import recipe
    from lamina.workflows.train import train

__version__ = "0.1.0"

_HOMES = {
    "Case": "lamina.data.case",
    "LabelSet": "lamina.labels",
    "LaminaError": "lamina.errors",
    "Model": "lamina.folders.model",
    "Volume": "lamina.volume",
    "build": "lamina.models",
    "compare": "lamina.workflows.compare",
    "cross_validate": "lamina.workflows.cross_validation",
    "evaluate": "lamina.workflows.evaluate",
    "load": "lamina.folders.model",
    "predict": "lamina.workflows.predict",
    "prepare": "lamina.workflows.prepare",
    "read_volume": "lamina.io",
    "recipe": "lamina.workflows.recipes",
    "train": "lamina.workflows.train",
    "write_volume": "lamina.io",
}

__all__ = [
    "Case",
    "LabelSet",
    "LaminaError",
    "Model",
    "Volume",
    "__version__",
    "build",
    "compare",
    "cross_validate",
    "evaluate",
    "load",
    "predict",
    "prepare",
    "read_volume",
    "recipe",
    "train",
    "write_volume",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'lamina' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        told = f"lamina.{name} needs torch, which is not installed; lamina.runtime does not."
        raise ModuleNotFoundError(told, name=error.name) from error


def __dir__() -> list[str]:
    return __all__

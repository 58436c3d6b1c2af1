"""The losses of supervised training, each filed here under its name; one file, one loss."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lamina.config import resolve
from lamina.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor"], "Tensor"]
"""``(logits (B, K, *S), class indices (B, *S)) -> scalar``; index 255 is ignored."""

LOSSES: Registry[type[Loss]] = Registry("loss", __name__)
"""Every loss by its name: a frozen dataclass of its settings, callable as a :data:`Loss`."""


def build_loss(name: str, **options: Any) -> Loss:
    """Return the loss called ``name`` with ``options`` as its settings.

    Raises:
        UnknownNameError: No loss is called ``name``.
        ConfigError: Options are unknown or of the wrong type.
    """
    return resolve(LOSSES.get(name), options)

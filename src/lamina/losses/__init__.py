"""The losses, one a file; those of segmentation are filed here under their names.

``terms`` has what they share; ``deep_supervision`` applies one of them to many heads.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lamina.config import resolve
from lamina.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[["Tensor", "Tensor"], "Tensor"]
"""``(logits (B, K, *S), target) -> scalar``.

Losses of mutually exclusive classes take class indices ``(B, *S)``, those of regions that may
overlap masks ``(B, K, *S)`` of 0 and 1. In both 255 is ignored.
"""

LOSSES: Registry[type[Loss]] = Registry("loss", __name__)
"""Every loss by its name: a frozen dataclass of its settings, callable as a :data:`Loss`."""


def build_loss(name: str, **options: Any) -> Loss:
    """Return the loss called ``name`` with ``options`` as its settings.

    Raises:
        UnknownNameError: No loss is called ``name``.
        ConfigError: Options are unknown or of the wrong type.
    """
    return resolve(LOSSES.get(name), options)

"""The networks: one paper, one file, each filed here under the names of its presets.

A preset is a function from the number of image channels and of classes to a frozen configuration,
and the configuration builds the network. Adding a network means adding a file to this folder.
"""

from collections.abc import Callable
from dataclasses import Field, asdict
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from lamina.config import resolve
from lamina.errors import ConfigError
from lamina.models.published import Published
from lamina.registry import Registry

if TYPE_CHECKING:
    from torch import nn


class NetworkConfig(Protocol):
    """What every network's configuration offers; in practice a frozen keyword-only dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @property
    def in_channels(self) -> int:
        """Channels of the image."""

    @property
    def num_classes(self) -> int:
        """Channels of the logits, the background included."""

    @property
    def spatial_dims(self) -> int:
        """2 for images, 3 for volumes."""

    @property
    def size_divisor(self) -> int:
        """Sizes that are multiples of it cost no padding; the network accepts every size."""

    def build(self) -> "nn.Module":
        """Return the network, fresh: ``(B, C, *S) -> (B, num_classes, *S)`` logits.

        ``C`` is :func:`input_channels`. In training mode a network with deep supervision returns a
        list of logits instead, finest first, each of its own size. Modules that the
        published network has but whose result it never uses do not require gradients.
        """


Preset = Callable[[int, int], NetworkConfig]
"""``(in_channels, num_classes) -> NetworkConfig``."""

NETWORKS: Registry[Preset] = Registry("network", __name__)
"""Every preset by its name, such as ``"lightmedseg"``."""

PUBLISHED: Registry[Published] = Registry("published network", __name__)
"""What the papers print of presets, by the names of those that are in a table."""


def preset(name: str, published: Published | None = None) -> Callable[[Preset], Preset]:
    """Return a decorator that files a preset under ``name``, with what its paper prints of it."""

    def add(member: Preset) -> Preset:
        if published:
            PUBLISHED.register(name)(published)
        return NETWORKS.register(name)(member)

    return add


def input_channels(config: NetworkConfig) -> int:
    """Channels of the network's input: those of the image, then its attention maps, if any."""
    return config.in_channels + int(getattr(config, "attention_maps", 0))


def own_learning_rate(name: str) -> float | None:
    """Return the highest rate that suits preset ``name`` where the usual one does not.

    It is ``learning_rate`` of the network's configuration, found by trying some on a few datasets.

    Raises:
        UnknownNameError: No preset is called ``name``.
    """
    rate: float | None = getattr(NETWORKS.get(name)(1, 2), "learning_rate", None)
    return rate


def own_precision(name: str) -> Literal["fp32"] | None:
    """Return the number format that preset ``name`` keeps to where none is asked for.

    It is ``precision`` of the network's configuration: of one that half precision changes too much.

    Raises:
        UnknownNameError: No preset is called ``name``.
    """
    precision: Literal["fp32"] | None = getattr(NETWORKS.get(name)(1, 2), "precision", None)
    return precision


def configure(name: str, *, in_channels: int, num_classes: int, **options: Any) -> NetworkConfig:
    """Return the configuration of preset ``name``, with ``options`` in place of its own values.

    Raises:
        UnknownNameError: No preset is called ``name``.
        ConfigError: Options are unknown, of the wrong type or out of range.
    """
    preset = NETWORKS.get(name)(in_channels, num_classes)
    return resolve(type(preset), asdict(preset), options)


def build(name: str, *, in_channels: int, num_classes: int, **options: Any) -> "nn.Module":
    """Return a network with fresh weights; arguments and errors are those of :func:`configure`."""
    return configure(name, in_channels=in_channels, num_classes=num_classes, **options).build()


def require(config: NetworkConfig, **constraints: tuple[bool, str]) -> None:
    """Check a configuration's fields: ``require(self, depth=(self.depth >= 1, "at least 1"))``.

    Raises:
        ConfigError: Fields that break their constraint, all of them, each with its value.
    """
    faults = [
        f"{name} = {getattr(config, name)!r} must be {constraint}"
        for name, (holds, constraint) in constraints.items()
        if not holds
    ]
    if faults:
        raise ConfigError(f"{type(config).__name__}: {'; '.join(faults)}.")

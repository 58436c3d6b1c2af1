"""The networks: one paper, one file, each filed here under the names of its presets.

A preset is a function from the number of image channels and of classes to a frozen configuration,
and the configuration builds the network. Adding a network means adding a file to this folder.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from lamina.config import resolve
from lamina.errors import ConfigError
from lamina.models.published import Published
from lamina.registry import Registry

if TYPE_CHECKING:
    from torch import nn


Constraints = dict[str, tuple[bool, str]]
"""What :func:`require` checks: field -> whether it holds, and what must hold."""


@dataclass(frozen=True, kw_only=True)
class NetworkConfig(ABC):
    """What every network's configuration has; the network's own settings follow.

    Raises:
        ConfigError: Values out of range, all of them at once.
    """

    precision: ClassVar[Literal["fp32"] | None] = None
    """The number format to keep to where none is asked for: half precision changes it too much."""
    exclusive_classes: ClassVar[bool] = False
    """Its logits are no answers of yes or no to each class, so that it cannot say regions."""

    in_channels: int
    """Channels of the image."""
    num_classes: int
    """Channels of the logits, the background included."""
    spatial_dims: int
    """2 for images, 3 for volumes."""

    def __post_init__(self) -> None:
        common: Constraints = {
            "in_channels": (self.in_channels >= 1, "at least 1"),
            "num_classes": (self.num_classes >= 1, "at least 1"),
            "spatial_dims": (self.spatial_dims in (2, 3), "2 or 3"),
        }
        require(self, **(common | self._constraints()))

    def _constraints(self) -> Constraints:
        """Return what its own settings must keep to; an entry of a common field replaces its."""
        return {}

    @property
    @abstractmethod
    def size_divisor(self) -> int:
        """Sizes that are multiples of it cost no padding; the network accepts every size."""

    @property
    def learning_rate(self) -> float | None:
        """The highest rate that suits it where the usual one does not, as trying some showed."""
        return None

    @property
    def attention_maps(self) -> int:
        """Channels of the network's input behind those of the image."""
        return 0

    @property
    def input_channels(self) -> int:
        """Channels of the network's input: those of the image, then its attention maps, if any."""
        return self.in_channels + self.attention_maps

    @abstractmethod
    def build(self) -> "nn.Module":
        """Return the network, fresh: ``(B, C, *S) -> (B, num_classes, *S)`` logits.

        ``C`` is ``input_channels``. In training mode a network with deep supervision returns a
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


def usual(name: str) -> NetworkConfig:
    """Return the configuration of preset ``name`` for one channel and two classes.

    Raises:
        UnknownNameError: No preset is called ``name``.
    """
    return NETWORKS.get(name)(1, 2)


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


def require(config: object, **constraints: tuple[bool, str]) -> None:
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

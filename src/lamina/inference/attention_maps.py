"""Attention maps: where a transformer looks in each slice, which DAI-Net reads with the image.

Yeganeh et al., ICCV Workshops 2023, section 3.1.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lamina.bundle import Bundle, transformer_weights
from lamina.config import resolve
from lamina.data.slices import intensity_range, slice_axis, to_unit
from lamina.data.views import normalised
from lamina.errors import BundleError, LaminaError
from lamina.models.vit import ViT, ViTConfig, attention_maps

_BATCH = 8
_IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and deviation of the colours that published transformers were trained on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MapMaker:
    """A transformer with all that is needed to draw its maps."""

    vit: ViT
    """In evaluation mode."""
    mean: tuple[float, ...] = _IMAGENET[0]
    """Of each channel that it takes, grey values being 0 to 1; subtracted."""
    std: tuple[float, ...] = _IMAGENET[1]
    """Divisor of each."""
    origin: dict[str, Any] = field(default_factory=dict)
    """What it was trained on here; empty for imported weights."""
    size: int = 256
    """Sides in pixels to which slices are brought for it."""
    upsample: Literal["nearest", "bilinear"] = "nearest"
    """How maps are brought from tokens to ``size``."""

    @property
    def from_scratch(self) -> bool:
        """Whether it has seen nothing but the slices it was trained on here."""
        return self.origin.get("start") == "scratch"

    def describe(self) -> dict[str, Any]:
        """Return everything but the weights as plain data, which :func:`make_maker` reads."""
        shown = {
            name: getattr(self, name) for name in ("mean", "std", "origin", "size", "upsample")
        }
        plain: dict[str, Any] = json.loads(json.dumps({"fields": asdict(self.vit.config)} | shown))
        return plain

    def key(self) -> str:
        """Return a hash of everything that its maps depend on."""
        told = {name: value for name, value in self.describe().items() if name != "origin"}
        digest = hashlib.sha256(json.dumps(told).encode())
        for name, tensor in sorted(self.vit.state_dict().items()):
            digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def draw(self, image: NDArray[np.float32], axis: int | None) -> NDArray[np.uint8]:
        """Return the maps of a prepared scan.

        Args:
            image: ``(C, *S)``.
            axis: Across the slices; ``None`` where the scan is one.

        Returns:
            ``(heads, *S)``, of each slice and head from 0 to 255.
        """
        limits = intensity_range(image)
        stack = image[None] if axis is None else np.moveaxis(image, 1 + axis, 0)
        device = self.vit.cls_token.device
        drawn = np.empty((len(stack), self.vit.config.num_heads, *stack.shape[2:]), np.uint8)
        for first in range(0, len(stack), _BATCH):
            part = slice(first, first + _BATCH)
            flats = [normalised(to_unit(flat, limits), self.mean, self.std) for flat in stack[part]]
            maps = attention_maps(
                self.vit,
                torch.stack(flats).to(device),
                drawn.shape[2:],
                vit_size=self.size,
                upsample=self.upsample,
            )
            drawn[part] = (255 * maps).round().to(torch.uint8).cpu().numpy()
        return drawn[0] if axis is None else np.moveaxis(drawn, 0, 1 + axis)


def make_maker(description: Mapping[str, Any], weights: Mapping[str, torch.Tensor]) -> MapMaker:
    """Build a transformer on the CPU from what :meth:`MapMaker.describe` told, and its weights.

    Raises:
        ConfigError: The description is wrong.
        BundleError: The weights are not those of the transformer described.
    """
    told = dict(description)
    config = resolve(ViTConfig, told.pop("fields"))
    with torch.random.fork_rng(devices=[]):
        vit = config.build().eval()
    try:
        vit.load_state_dict(weights)
    except RuntimeError as error:
        raise BundleError(
            "The weights are not those of the transformer they are said to belong to.",
            remedy="Get a fresh copy from where it came from.",
        ) from error
    told |= {name: tuple(told[name]) for name in ("mean", "std") if name in told}
    return MapMaker(vit=vit, **told)


def carried_maps(
    bundle: Bundle, device: str
) -> Callable[[NDArray[np.float32]], NDArray[np.uint8]] | None:
    """Return what draws the maps that a bundle's network reads; ``None`` if it reads none.

    Raises:
        BundleError: It reads some, and the bundle carries no transformer that fits.
    """
    if not bundle.config.attention_maps:
        return None
    try:
        maker = make_maker(bundle.network["attention"], transformer_weights(bundle))
    except (LaminaError, LookupError, TypeError) as error:
        raise BundleError(
            f"{bundle.source}: its network reads attention maps, and the transformer that drew "
            f"them is not in it: {error}",
            remedy="Train it again, or get a fresh copy.",
        ) from error
    maker.vit.to(device)
    return partial(maker.draw, axis=slice_axis(bundle.plan))

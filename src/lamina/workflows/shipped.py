"""Shipped: the trained models that come with the package, and what is known of them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lamina.bundle import load_bundle
from lamina.errors import UnknownNameError
from lamina.export.container import PARITY
from lamina.files import read_json, sha256
from lamina.pretrained import INT8, quantised, shipped


@dataclass(frozen=True, kw_only=True)
class Quantised:
    """A model exported for OpenVINO in int8."""

    name: str
    """As ``lamina-runtime -m`` takes it."""
    dice_drop: float
    """What it loses of mean Dice on the validation scans, in points; below 0 where it gains."""
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class ShippedModel:
    """A trained model, ready to predict with by its name."""

    name: str
    """As ``lamina predict -m`` takes it."""
    dataset: str
    licence: str
    """Of the scans that it was trained on."""
    source: str
    """Who made them, and where they are described."""
    network: str
    spatial_dims: int
    unit: str
    """``"px"`` where images do not tell how large a pixel is; those of others must, or be told."""
    channels: tuple[str, ...]
    structures: tuple[str, ...]
    dice: float | None
    """Mean over structures and validation scans, as measured in training on the prepared grid."""
    size_bytes: int
    sha256: str
    int8: "Quantised | None"
    """The same for ``lamina-runtime``, where it is as good."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def list_shipped(names: Sequence[str] | None = None) -> list[ShippedModel]:
    """Describe the models that come with the package.

    Args:
        names: Of models; all by default.

    Raises:
        UnknownNameError: There is no model of that name.
        BundleError, FileError: One is damaged.
    """
    files = shipped()
    models = []
    for name in names or files:
        if name not in files:
            known = ", ".join(files)
            raise UnknownNameError(f"Unknown trained model {name!r}.", remedy=f"Known: {known}.")
        file = files[name]
        bundle = load_bundle(file)
        dataset = bundle.dataset
        models.append(
            ShippedModel(
                name=name,
                dataset=dataset.get("name", ""),
                licence=dataset.get("licence", ""),
                source=dataset.get("source", ""),
                network=bundle.network["name"],
                spatial_dims=bundle.plan.spatial_dims,
                unit=bundle.plan.unit,
                channels=bundle.plan.channels,
                structures=tuple(bundle.plan.labels.foreground),
                dice=bundle.metrics.get("mean_dice"),
                size_bytes=file.stat().st_size,
                sha256=sha256(file),
                int8=_quantised(f"{name}{INT8}"),
            )
        )
    return models


def _quantised(name: str) -> Quantised | None:
    folder = quantised().get(name)
    if folder is None:
        return None
    return Quantised(
        name=name,
        dice_drop=read_json(folder / PARITY)["scans"]["dice_drop"],
        size_bytes=sum(file.stat().st_size for file in folder.iterdir()),
    )

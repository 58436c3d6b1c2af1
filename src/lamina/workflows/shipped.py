"""Shipped: the trained models that come with the package, and what is known of them."""

from dataclasses import asdict, dataclass
from typing import Any

from lamina.bundle import load_bundle
from lamina.bundle.shipped import shipped
from lamina.files import sha256


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
    """Mean over structures and validation scans."""
    size_bytes: int
    sha256: str

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def list_shipped() -> list[ShippedModel]:
    """Describe the models that come with the package.

    Raises:
        BundleError: The file of one is damaged.
    """
    models = []
    for name, file in shipped().items():
        bundle = load_bundle(file)
        dataset = bundle.provenance.get("dataset", {})
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
            )
        )
    return models

"""Small models with weights that nobody trained, for whoever needs a whole bundle."""

from dataclasses import asdict

import torch

from lamina.bundle import VIT, Bundle, joined
from lamina.data.plan import Normalisation, Plan
from lamina.labels import LabelSet
from lamina.models import configure
from lamina.models.vit import ViTConfig

LABELS = LabelSet(
    values={"rim": 3, "core": 7}, regions={"whole": ("rim", "core"), "inner": ("core",)}
)


def small_bundle(
    name, *, regions=False, members=1, channels=1, roi_size=None, unit="mm", **options
):
    """Return a bundle of a preset with random weights; an ensemble with ``members`` above 1."""
    num_classes = 2 if regions else 3
    config = configure(name, in_channels=channels, num_classes=num_classes, **options)
    dims = config.spatial_dims
    side = max(config.size_divisor, 32 // 2)
    size = roi_size or (side,) * (dims - 1) + (2 * side,)
    plan = Plan(
        spatial_dims=dims,
        channels=tuple(f"channel {number}" for number in range(channels)),
        labels=LABELS,
        region_based=regions,
        orientation="RAS"[:dims],
        target_spacing=(1.0,) * dims,
        unit=unit,
        normalisation=(Normalisation(scheme="zscore"),) * channels,
        network=name,
        patch_size=size,
        roi_size=size,
        batch_size=1,
        mirror_axes=(),
        epochs=1,
        steps_per_epoch=1,
    )
    network = {"name": name, "fields": asdict(config)}
    weights = joined([shaken(config, seed).state_dict() for seed in range(members)])
    if heads := getattr(config, "attention_maps", 0):
        told, state = small_vit(heads)
        network |= {"attention": told}
        weights |= {f"{VIT}{key}": value for key, value in state.items()}
    return Bundle(
        network=network | ({"members": members} if members > 1 else {}),
        weights=weights,
        plan=plan,
        training={"fold": 0},
        metrics={"mean_dice": 0.5},
        provenance={"dataset": {"name": "None", "licence": "CC0"}},
    )


def small_vit(num_heads):
    """Return what a bundle says of a transformer, and its weights."""
    config = ViTConfig(
        image_size=32, token_size=8, width=4 * num_heads, depth=2, num_heads=num_heads
    )
    told = {
        "fields": asdict(config),
        "mean": [0.4, 0.5, 0.6],
        "std": [0.2, 0.25, 0.3],
        "origin": {},
        "size": 48,
        "upsample": "nearest",
    }
    torch.manual_seed(0)
    vit = config.build()
    for parameter in vit.parameters():  # fresh weights look everywhere alike
        parameter.data.mul_(5)
    return told, vit.state_dict()


@torch.no_grad()
def shaken(config, seed):
    """Build a network and change all weights, so that none that starts at zero hides another."""
    torch.manual_seed(seed)
    network = config.build()
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn(parameter.shape))
    return network

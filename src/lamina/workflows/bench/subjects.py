"""What is measured: models or networks with fresh weights, on a window or a whole scan."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from lamina.bundle import Bundle, load_bundle, save_bundle
from lamina.data.plan import Normalisation, Plan
from lamina.errors import ConfigError
from lamina.folders.bundle import find_bundle
from lamina.folders.run import BUNDLE
from lamina.labels import LabelSet
from lamina.models import NETWORKS, configure
from lamina.pretrained import shipped

log = logging.getLogger(__name__)

SUBJECTS: dict[str, tuple[int, int, tuple[int, ...]]] = {
    "glims": (4, 3, (96, 96, 96)),
    "lightmedseg": (4, 4, (128, 128, 128)),
    "lgmsnet_2d": (3, 1, (256, 256)),
    "lgmsnet_3d": (1, 14, (96, 96, 96)),
    "dainet": (1, 4, (224, 224)),
    "mpunet": (1, 2, (48, 256, 256)),
    "swin_unetr": (4, 3, (96, 96, 96)),
    "unetr": (4, 3, (96, 96, 96)),
    "segresnet": (4, 3, (96, 96, 96)),
    "dynunet": (4, 3, (96, 96, 96)),
}
"""Channels, classes and window of the networks measured by default: those of five papers, as
published, and four of MONAI's on the window of the first."""

_OTHERS = {2: (1, 2, (256, 256)), 3: (1, 2, (96, 96, 96))}
"""The same for any other network, by its number of axes."""


@dataclass(frozen=True, kw_only=True)
class WholeScan:
    """A made-up CT, and what segments it from file to file."""

    shape: tuple[int, int, int]
    """Voxels of the file, which covers 384x384x375 mm."""
    spacing: float
    """Of the prepared grid, in mm."""
    size: tuple[int, int, int]
    """Window in voxels; windows overlap by half."""
    num_classes: int
    runs: tuple[tuple[str, str], ...]
    """Networks, each with the way it is run: of ``WAYS``."""


WAYS = {
    "fast": "Lamina",
    "fast_bf16": "Lamina, bf16",
    "field": "MONAI's windows, logits at full size",
}
SCANS = {
    "large": WholeScan(
        shape=(512, 512, 300),
        spacing=1.5,
        size=(128, 128, 128),
        num_classes=15,
        runs=tuple(("lightmedseg", way) for way in WAYS),
    ),
    "side by side": WholeScan(
        shape=(256, 256, 150),
        spacing=3.0,
        size=(96, 96, 96),
        num_classes=15,
        runs=(
            *((name, way) for name in ("glims", "lightmedseg", "lgmsnet_3d") for way in WAYS),
            *((name, "field") for name in ("swin_unetr", "unetr", "segresnet", "dynunet")),
        ),
    ),
}
"""The second is small enough for networks that take seconds a window."""


@dataclass(frozen=True)
class Subject:
    """A model in a file, ready to be measured."""

    name: str
    file: Path
    bundle: Bundle


def check(name: str, size: Sequence[int] | None) -> None:
    """Check, before anything is measured, that :func:`subject` will find or make a model.

    Raises:
        As it does.
    """
    if _is_model(name):
        axes = len(load_bundle(find_bundle(Path(name))).plan.roi_size)
    else:
        axes = len(_usual(name)[2])
    if size is not None and len(size) != axes:
        raise ConfigError(
            f"size {','.join(map(str, size))}: {name} takes windows of {axes} axes.",
            remedy="Give one number per axis, or measure networks of 2 and 3 axes one by one.",
        )


def subject(name: str, size: Sequence[int] | None, folder: Path) -> Subject:
    """Find a trained model, or make one of a network with fresh weights.

    Args:
        name: A registered network, which goes first; or else a ``.lamina`` file or a run folder, of
            which ``./name`` tells one that is called like a network; or a model that ships.
        size: Window in voxels in place of the usual one.
        folder: For a copy of the model.

    Raises:
        UnknownNameError: There is neither such a file nor such a network.
        BundleError: The model cannot be loaded.
        ConfigError: The network works on another number of axes than ``size`` has.
    """
    check(name, size)
    if _is_model(name):
        bundle = load_bundle(find_bundle(Path(name)))
        if size is not None:
            bundle = replace(bundle, plan=replace(bundle.plan, roi_size=tuple(size)))
    else:
        if Path(name).exists():
            log.warning("%s: the network is measured; ./%s would be what lies here.", name, name)
        in_channels, num_classes, usual = _usual(name)
        bundle = untrained(name, in_channels, num_classes, size or usual)
    file = folder / BUNDLE
    save_bundle(bundle, file)
    return Subject(name, file, load_bundle(file))


def untrained(
    name: str, in_channels: int, num_classes: int, size: Sequence[int], spacing: float = 1.5
) -> Bundle:
    """Return a model of fresh weights, the same every time, for CT at a spacing in mm."""
    torch.manual_seed(0)
    config = configure(name, in_channels=in_channels, num_classes=num_classes)
    structures = tuple(f"structure {number}" for number in range(1, max(2, num_classes)))
    labels = LabelSet(
        values={structure: number for number, structure in enumerate(structures, start=1)},
        regions={"all": structures} if num_classes == 1 else {},
    )
    how = Normalisation(scheme="ct", low=-160, high=240, mean=40, std=100)
    plan = Plan(
        spatial_dims=len(size),
        channels=tuple(f"channel {number}" for number in range(1, in_channels + 1)),
        labels=labels,
        region_based=num_classes == 1,
        orientation="RAS"[: len(size)],
        target_spacing=(spacing,) * len(size),
        normalisation=(how,) * in_channels,
        network=name,
        patch_size=tuple(size),
        roi_size=tuple(size),
        batch_size=1,
        mirror_axes=(),
        epochs=1,
        steps_per_epoch=1,
    )
    return Bundle(
        network={"name": name, "fields": asdict(config)},
        weights=config.build().state_dict(),
        plan=plan,
        training={},
        metrics={},
        provenance={},
    )


def _is_model(name: str) -> bool:
    """Tell whether a name means a trained model, for no network is called so."""
    return name not in NETWORKS and (Path(name).exists() or name in shipped())


def _usual(name: str) -> tuple[int, int, tuple[int, ...]]:
    return SUBJECTS.get(name) or _OTHERS[NETWORKS.get(name)(1, 2).spatial_dims]

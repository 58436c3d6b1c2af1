"""Quality flags: what about a scan, or its segmentation, is unlike all that a model was trained on.

A flag does not say that a segmentation is wrong, but that nothing in training vouches for it. No
network is run, and torch is not needed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from lamina.data.fingerprint import canonical_size, describe
from lamina.data.plan import Plan
from lamina.data.preprocess import foreground_box
from lamina.data.ranges import Range, Ranges, levels_of
from lamina.geometry import size_unit
from lamina.labels import LabelSet
from lamina.volume import Volume

AGREEMENT = 0.7
"""Dice below which views of a scan are said to disagree; from 0.7 on, two readers are held to agree
well (Zijdenbos et al., IEEE Transactions on Medical Imaging 13(4), 1994)."""

_SAMPLES = 1_000_000
_AXES = {2: ("across", "down"), 3: ("from side to side", "from front to back", "from head to foot")}
"""The axes that :func:`~lamina.data.fingerprint.canonical_size` has, by their number."""
_RESIZE = " Resize it to about that first."
"""A picture has the size that it is given, and a network knows structures of the size they had."""
_LEVELS = {"p00_5": "darkest", "median": "middle", "p99_5": "brightest"}

Kind = Literal["spacing", "extent", "intensity", "volume", "absent", "disagreement"]


@dataclass(frozen=True, kw_only=True)
class Flag:
    """One thing that lies outside of what a model knows."""

    kind: Kind
    subject: str
    """An axis, a channel or a structure."""
    value: float
    low: float | None
    """Least value in training, or least that is usual; ``None`` where there is no such limit."""
    high: float | None
    text: str
    """A sentence that names all of it."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def flags(
    image: Volume,
    segmentation: Volume | None,
    plan: Plan,
    ranges: Ranges | None,
    agreement: Mapping[str, float] | None = None,
) -> tuple[Flag, ...] | None:
    """Return what is unlike the training of a model; ``None`` where nothing could be looked at.

    Spacing, extent, intensities and volumes are flagged where fewer than one in a thousand scans
    like those of training would have them; of few training scans this cannot be told of much.

    Args:
        image: The scan ``(C, *S)`` as it lies in its file.
        segmentation: What the model made of it, ``(1, *S)`` in file values; ``None`` to look at the
            scan alone.
        plan: The model's.
        ranges: The model's; ``None`` where it is older than they are: then only the agreement is
            looked at.
        agreement: Structure -> Dice between views of the scan, such as its mirror images.
    """
    if ranges is None and not agreement:
        return None
    found: list[Flag] = []
    if ranges is not None:
        found += [*_of_grid(image, ranges), *_of_intensities(image, plan, ranges)]
        if segmentation is not None:
            found += _of_sizes(sizes(segmentation, plan.labels), ranges)
    return (*found, *_of_agreement(agreement or {}))


def sizes(segmentation: Volume, labels: LabelSet) -> dict[str, float]:
    """Return how much there is of each structure, in ml; of a 2D image in cm², without size in px.

    Args:
        segmentation: ``(1, *S)`` in file values.
        labels: Their names.
    """
    values, counts = np.unique(segmentation.array, return_counts=True)
    voxels = dict(zip(values.tolist(), counts.tolist(), strict=True))
    each = voxel_size(segmentation)
    return {name: voxels.get(value, 0) * each for name, value in labels.values.items()}


def voxel_size(image: Volume) -> float:
    """Return the size of one voxel in the unit that :func:`unit_of` names."""
    each, _ = size_unit(image.unit, image.spatial_dims)
    return image.voxel_volume / each if image.unit == "mm" else 1.0


def unit_of(image: Volume) -> str:
    """Return the unit of :func:`sizes`: ``ml``, ``cm²`` of a 2D image, ``px`` without size."""
    return size_unit(image.unit, image.spatial_dims)[1]


def _of_grid(image: Volume, ranges: Ranges) -> Iterator[Flag]:
    shape, spacing = canonical_size(image, foreground_box(image.array))
    voxels, scan = ("Voxels", "scan") if image.spatial_dims == 3 else ("Pixels", "image")
    remedy = _RESIZE if ranges.unit == "px" else ""
    for axis, where in enumerate(_AXES[image.spatial_dims]):
        yield from _outside(
            *("spacing", where, spacing[axis], ranges.spacing[axis]),
            f"{voxels} are {{value}} {ranges.unit} {where}; in training they were {{range}}.",
        )
        yield from _outside(
            *("extent", where, shape[axis] * spacing[axis], ranges.extent[axis]),
            f"The {scan} shows {{value}} {ranges.unit} {where}; in training it was {{range}}."
            f"{remedy}",
        )


def _of_intensities(image: Volume, plan: Plan, ranges: Ranges) -> Iterator[Flag]:
    for name, channel, how, known in zip(
        plan.channels, image.array, plan.normalisation, ranges.intensity, strict=True
    ):
        flat = channel.reshape(-1)
        sample = flat[:: max(1, flat.size // _SAMPLES)].astype(np.float32)
        sample = sample[np.isfinite(sample)]
        if not sample.size:
            continue
        unit = "" if how.scheme == "ct" else " standard deviations from its mean"
        for level, value in levels_of(describe(sample), how).items():
            yield from _outside(
                *("intensity", name, value, known[level]),
                f"The {_LEVELS[level]} grey levels of {name} are {{value}}{unit}; in training they "
                "were {range}.",
            )


def _of_sizes(found: Mapping[str, float], ranges: Ranges) -> Iterator[Flag]:
    each, unit = size_unit(ranges.unit, len(ranges.spacing))
    scale = 1 / each
    for name, size in found.items():
        known = ranges.size.get(name)
        if known is not None and size:
            yield from _outside(
                *("volume", name, size, _scaled(known, scale)),
                f"{name}: {{value}} {unit} were found; in training it had {{range}} {unit}.",
            )
        elif known is not None and not ranges.absent.get(name) and ranges.cases > 1:
            low, high = known.low * scale, known.high * scale
            text = f"{name}: nothing was found; all {ranges.cases} of training have it."
            yield Flag(kind="absent", subject=name, value=0.0, low=low, high=high, text=text)


def _of_agreement(agreement: Mapping[str, float]) -> Iterator[Flag]:
    for name, dice in agreement.items():
        if dice < AGREEMENT:
            text = (
                f"{name}: views of the scan agree on it to a Dice of {dice:.2f} only; "
                f"{AGREEMENT:g} or more is usual."
            )
            yield Flag(
                kind="disagreement", subject=name, value=dice, low=AGREEMENT, high=None, text=text
            )


def _outside(kind: Kind, subject: str, value: float, known: Range, text: str) -> Iterator[Flag]:
    """Yield a flag where a value is none that one would expect."""
    if not known.holds(value):
        seen = " to ".join(dict.fromkeys(map(_told, (known.low, known.high))))
        told = text.replace("{value}", _told(value)).replace("{range}", seen)
        low, high = known.low, known.high
        yield Flag(kind=kind, subject=subject, value=value, low=low, high=high, text=told)


def _scaled(known: Range, scale: float) -> Range:
    return Range(
        low=known.low * scale,
        high=known.high * scale,
        least=known.least * scale,
        most=known.most * scale,
    )


def _told(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"

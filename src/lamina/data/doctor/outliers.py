"""Checks of how far a case lies from what is usual: spacing, size, orientation, intensity.

Distances are robust z-scores: from the median, in units of 1.4826 times the median absolute
deviation, which is the standard deviation of a normal distribution.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lamina.data.cohort import Cohort
from lamina.data.doctor import Finding
from lamina.data.doctor.facts import ChannelFacts, Examination, ImageFacts
from lamina.data.doctor.groups import folded, whole_set

ENOUGH = 5
"""Fewer cases than this have no usual."""
FAR = 5.0
"""Robust z-score from which a case is an outlier."""
USUAL = 0.8
"""An orientation that this share of the cases has is the usual one."""

_LEAST_LOG = np.log(1.1)
"""Spread, of logarithms, that spacings and sizes are granted even where all are equal."""
_LEAST_LOG_RANGE = np.log(1.25)
"""Spread, of logarithms, that ranges of intensities are granted."""
_LEAST_SHIFT = 0.1
"""Spread, in usual ranges, that median intensities are granted."""
_CT_AIR = -300.0
"""CT has values below this, but none below -5000, and few above 5000."""


def robust_z(values: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Return how far values lie from their median along the first axis, by their :func:`spread`."""
    return np.asarray((values - np.median(values, axis=0)) / spread(values, least))


def spread(values: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Return how far values lie apart along the first axis: the unit of robust z-scores.

    Args:
        values: ``(N, ...)``.
        least: What it is taken to be at least.
    """
    deviation = np.median(np.abs(values - np.median(values, axis=0)), axis=0)
    return np.asarray(np.maximum(1.4826 * deviation, least))


def check_dimensions(seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report images among volumes, and scans without units among others."""
    images = [(one, one.image) for one in seen if one.image]
    usual = Counter(image.spatial_dims for _, image in images).most_common(1)
    for one, image in images:
        if image.spatial_dims != usual[0][0]:
            yield one.finding(
                "image",
                "error",
                "size",
                f"has {image.spatial_dims} spatial axes; most have {usual[0][0]}.",
                "Keep images and volumes in sets of their own.",
            )
    patients = len({one.case.group for one in seen})
    if 0 < patients < ENOUGH:
        yield whole_set(
            "note",
            "few",
            f"scans of {patients} patient{'s' if patients > 1 else ''} only: what is usual among "
            "them cannot be told, so outliers were not looked for.",
            "None needed; but networks need more to learn from, and to be judged by.",
        )
    bare = sum(image.unit == "px" for _, image in images)
    if bare:
        yield whole_set(
            "note",
            "spacing",
            f"{bare} of {len(images)} images do not say how large their pixels are.",
            "None needed for training; lengths and areas are in pixels.",
        )


def check_spacing(seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report voxel sizes and fields of view far from the usual ones."""
    images = _usual_images(seen)
    if len(images) < ENOUGH:
        return
    spacing = np.array([image.spacing for _, image in images])
    extent = spacing * np.array([image.shape for _, image in images])
    yield from _far_sizes(
        images,
        spacing,
        "spacing",
        "voxels are",
        "Look at the header: a wrong unit or axes in another order are common.",
    )
    yield from _far_sizes(
        images,
        extent,
        "size",
        "the field of view is",
        "Look whether the scan is cropped, of another region, or its spacing wrong.",
    )


def _far_sizes(
    images: Sequence[tuple[Examination, ImageFacts]],
    sizes: NDArray[np.float64],
    check: str,
    what: str,
    remedy: str,
) -> Iterator[Finding]:
    far = np.abs(robust_z(np.log(sizes), float(_LEAST_LOG))).max(axis=1)
    usual = np.median(sizes, axis=0)
    found = [
        one.finding(
            "image",
            "warning",
            check,
            f"{what} {lengths(own)} {image.unit}; usual are {lengths(usual)} "
            f"{image.unit} (robust z {z:.1f}).",
            remedy,
        )
        for (one, image), own, z in zip(images, sizes, far, strict=True)
        if z > FAR
    ]
    yield from folded(found, len(images))


def check_orientation(seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report scans stored in another axis order than nearly all others."""
    images = _usual_images(seen)
    counts = Counter(image.orientation for _, image in images)
    if len(counts) < 2:
        return
    usual, count = counts.most_common(1)[0]
    remedy = "None needed here: axes are reordered by the header. Look whether it is right."
    if len(images) < ENOUGH or count < USUAL * len(images):
        listed = ", ".join(f"{name} ({number})" for name, number in counts.most_common())
        yield whole_set(
            "note", "orientation", f"axes run in {len(counts)} orientations: {listed}.", remedy
        )
        return
    for one, image in images:
        if image.orientation != usual:
            yield one.finding(
                "image",
                "note",
                "orientation",
                f"axes run {image.orientation}; those of {count} of {len(images)} cases "
                f"run {usual}.",
                remedy,
            )


def check_intensity(cohort: Cohort, seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report channels whose range of intensities, or the median's place in it, is far from usual.

    Both say the same whatever the units of a scan, except the range itself.
    """
    images = comparable(cohort, seen)
    for index, name in enumerate(cohort.channels):
        varied = [(one, i.channels[index]) for one, i in images]
        varied = [(one, channel) for one, channel in varied if channel.low < channel.high]
        yield from _check_modality(varied, name)
        if len(varied) >= ENOUGH:
            yield from folded(list(_far_levels(varied, name)), len(varied))


def _far_levels(varied: Sequence[tuple[Examination, ChannelFacts]], name: str) -> Iterator[Finding]:
    levels = np.array([channel.percentiles for _, channel in varied])
    low, middle, high = levels[:, 0], levels[:, 3], levels[:, -1]
    # A small bright thing in an even background lies beyond all percentiles.
    ranges = np.where(high > low, high - low, [c.high - c.low for _, c in varied])
    z = np.maximum(
        np.abs(robust_z(np.log(ranges), float(_LEAST_LOG_RANGE))),
        np.abs(robust_z(middle / ranges, _LEAST_SHIFT)),
    )
    for (one, _), far, *own in zip(varied, z, low, high, middle, strict=True):
        if far > FAR:
            usual = (np.median(low), np.median(high), np.median(middle))
            yield one.finding(
                "image",
                "warning",
                "intensity",
                "{} runs from {:.4g} to {:.4g}, median {:.4g}; usual are {:.4g} to {:.4g}, "
                "median {:.4g} (robust z {:.1f}).".format(name, *own, *usual, far),
                "Look whether it is another sequence, unit or rescaling; per-scan "
                "normalisation levels arbitrary units.",
            )


def _check_modality(
    varied: Sequence[tuple[Examination, ChannelFacts]], name: str
) -> Iterator[Finding]:
    """Report the few cases that are CT, by the values of air, where the others are not."""
    ct = [-5000 < c.low < _CT_AIR and c.percentiles[-1] <= 5000 for _, c in varied]
    rare = 2 * sum(ct) <= len(ct)
    usual = ct.count(not rare)
    found = [
        one.finding(
            "image",
            "warning",
            "intensity",
            (
                f"{name} goes down to {channel.low:.4g}, as CT does; {usual} of {len(ct)} "
                f"cases do not go below {_CT_AIR:g}."
                if rare
                else f"{name} goes down to {channel.low:.4g} only; {usual} of {len(ct)} cases go "
                f"below {_CT_AIR:g}, as CT does."
            ),
            "Look at the rescaling; keep modalities apart.",
        )
        for (one, channel), is_ct in zip(varied, ct, strict=True)
        if is_ct == rare and 0 < sum(ct) < len(ct)
    ]
    yield from folded(found, len(varied))


def _usual_images(seen: Sequence[Examination]) -> list[tuple[Examination, ImageFacts]]:
    """Return the images with the number of axes and the unit that most have."""
    images = [(one, one.image) for one in seen if one.image]
    kinds = Counter((image.spatial_dims, image.unit) for _, image in images)
    usual = kinds.most_common(1)[0][0] if kinds else None
    return [(one, image) for one, image in images if (image.spatial_dims, image.unit) == usual]


def comparable(cohort: Cohort, seen: Sequence[Examination]) -> list[tuple[Examination, ImageFacts]]:
    """Return the images that have the declared channels, with something in each."""
    return [
        (one, image)
        for one, image in _usual_images(seen)
        if len(image.channels) == len(cohort.channels)
        and all(channel.broken < channel.size for channel in image.channels)
    ]


def lengths(sizes: Sequence[float] | NDArray[np.float64]) -> str:
    """Return sizes as people write them."""
    return " x ".join(f"{size:.4g}" for size in sizes)

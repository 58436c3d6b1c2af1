"""Checks of what each case holds: channels, grids, label values, structures."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from lamina.data.cohort import Cohort
from lamina.data.doctor import Finding
from lamina.data.doctor.facts import WHOLE_TOLERANCE, Examination, ImageFacts, LabelFacts
from lamina.data.doctor.groups import folded, whole_set
from lamina.errors import GeometryError, some
from lamina.geometry import Affine, check_same_grid, corner_distance
from lamina.io import LABEL_TOLERANCE
from lamina.labels import LabelSet

USUAL = 0.9
"""A structure that this share of the labelled cases has is missed in the others."""


def check_image(cohort: Cohort, seen: Examination) -> Iterator[Finding]:
    """Report what is wrong within an image."""
    image = seen.image
    if image is None:
        return
    count = len(image.channels)
    if count != len(cohort.channels):
        yield seen.finding(
            "image",
            "error",
            "channels",
            f"has {count} channel{'' if count == 1 else 's'}; expected "
            f"{len(cohort.channels)} ({', '.join(cohort.channels)}), as declared or as most have.",
            "Give exactly these channels in this order.",
        )
    for i, channel in enumerate(image.channels):
        name = channel_name(cohort, i)
        if channel.broken == channel.size:
            yield seen.finding(
                "image",
                "error",
                "not_finite",
                f"{name} has no voxel that holds a finite number.",
                "Get the file again, or leave the case out.",
            )
        elif channel.broken:
            yield seen.finding(
                "image",
                "warning",
                "not_finite",
                f"{channel.broken} of {channel.size} voxels of {name} are NaN or infinite.",
                "Replace them by the smallest and largest finite value.",
                mend="replace_nan",
            )
        elif channel.low == channel.high:
            yield seen.finding(
                "image",
                "error" if all(c.low == c.high for c in image.channels) else "warning",
                "constant",
                f"{name} is {channel.low:g} everywhere.",
                "Get the file again; a constant channel teaches nothing.",
            )
    yield from _equal_channels(cohort, seen, image)


def _equal_channels(cohort: Cohort, seen: Examination, image: ImageFacts) -> Iterator[Finding]:
    for i, channel in enumerate(image.channels):
        for j in range(i):
            if channel.digest == image.channels[j].digest and channel.low < channel.high:
                yield seen.finding(
                    "image",
                    "warning",
                    "channels",
                    f"{channel_name(cohort, j)} and {channel_name(cohort, i)} hold the "
                    "same voxels.",
                    "One of them was most likely written over the other.",
                )


def channel_name(cohort: Cohort, index: int) -> str:
    """Return how messages call a channel, be it declared or not."""
    name = f" ({cohort.channels[index]})" if index < len(cohort.channels) else ""
    return f"channel {index}{name}"


def check_grid(seen: Examination) -> Iterator[Finding]:
    """Report a label map that does not lie on its image's grid."""
    image, label = seen.image, seen.label
    if image is None or label is None:
        return
    try:
        check_same_grid(
            image.affine, image.spatial_shape, label.affine, label.spatial_shape, "image and label"
        )
    except GeometryError as error:
        slip = is_header_slip(image, label)
        yield seen.finding(
            "label",
            "error",
            "grid",
            error.message,
            "Give the label the image's header; sizes agree." if slip else error.remedy,
            mend="take_grid" if slip else "",
        )


def is_header_slip(image: ImageFacts, label: LabelFacts) -> bool:
    """Tell whether only a label's header is wrong: sizes agree, and it lies less than a voxel off.

    So does one that was saved without any header: its affine is the identity.
    """
    if image.spatial_shape != label.spatial_shape:
        return False
    gap = corner_distance(image.affine, image.spatial_shape, label.affine, label.spatial_shape)
    return gap <= min(image.spacing) or _says_nothing(label.affine)


def _says_nothing(affine: Affine) -> bool:
    # Array libraries save the identity; seen from LPS it has two signs turned.
    return any(np.array_equal(affine, np.diag(signs)) for signs in ((1, 1, 1, 1), (-1, -1, 1, 1)))


def check_label(cohort: Cohort, seen: Examination) -> Iterator[Finding]:
    """Report what is wrong within a label map."""
    label = seen.label
    if label is None:
        return
    if label.num_channels != 1:
        yield seen.finding(
            "label",
            "error",
            "values",
            f"has {label.num_channels} channels; a label map has one.",
            "Merge them into one map with one value per structure.",
        )
        return
    if label.deviation > WHOLE_TOLERANCE:
        yield seen.finding(
            "label",
            "error",
            "values",
            f"values lie up to {label.deviation:.2g} beside whole numbers: no label map?"
            if np.isfinite(label.deviation)
            else "holds NaN or infinite values.",
            "Label maps are whole numbers; resample them with nearest neighbour.",
        )
        return
    if label.deviation > 0:
        yield seen.finding(
            "label",
            "error" if label.deviation > LABEL_TOLERANCE else "note",
            "values",
            f"values lie up to {label.deviation:.2g} beside whole numbers.",
            "Round them.",
            mend="round",
        )
    yield from _check_values(cohort.labels, seen, label)


def _check_values(labels: LabelSet, seen: Examination, label: LabelFacts) -> Iterator[Finding]:
    known = {labels.background, *labels.values.values()}
    known |= set() if labels.ignore is None else {labels.ignore}
    unknown = sorted(label.counts.keys() - known)
    if unknown == [255] and len(labels.values) == 1 and label.counts.keys() <= {0, 255}:
        ((name, value),) = labels.values.items()
        yield seen.finding(
            "label",
            "error",
            "values",
            f"is a mask of 0 and 255 ({label.counts[255]} voxels); {name!r} is {value}.",
            f"Write {value} for 255.",
            mend="renumber",
        )
    elif unknown:
        counted = some(f"{value} ({label.counts[value]} voxels)" for value in unknown)
        yield seen.finding(
            "label",
            "error",
            "values",
            f"undeclared values {counted}; declared are {some(sorted(known))}.",
            "Say in dataset.json what they stand for, or correct the file; masks are "
            "resized with nearest neighbour.",
        )


def check_structures(cohort: Cohort, seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report empty labels, structures that usual cases have, and ones that no case has."""
    labelled = [one for one in seen if one.label and one.label.counts]
    values = cohort.labels.values
    found = Counter(
        name
        for one in labelled
        for name, v in values.items()
        if one.label and v in one.label.counts
    )
    if labelled and (never := [name for name in values if not found[name]]):
        yield whole_set(
            "warning",
            "structures",
            f"no label has any {some(never)}.",
            "Correct the declaration, or look for the labels that should have it.",
        )
    missing = [finding for one in labelled for finding in _missing(cohort, one, found, labelled)]
    for message in dict.fromkeys(finding.message for finding in missing):
        yield from folded([f for f in missing if f.message == message], len(labelled))


def _missing(
    cohort: Cohort, seen: Examination, found: Counter[str], labelled: Sequence[Examination]
) -> Iterator[Finding]:
    counts = seen.label.counts if seen.label else {}
    remedy = "Look whether it was forgotten, or is rightly absent."
    present = [name for name, value in cohort.labels.values.items() if value in counts]
    if not counts.keys() - {cohort.labels.background, cohort.labels.ignore}:
        yield seen.finding("label", "warning", "structures", "the label is empty.", remedy)
    elif present:
        missed = [n for n in cohort.labels.values if n not in present and found[n]]
        usual = [n for n in missed if found[n] >= USUAL * len(labelled)]
        if usual:
            share = min(found[name] for name in usual)
            yield seen.finding(
                "label",
                "warning",
                "structures",
                f"has no {some(usual)}; at least {share} of {len(labelled)} cases have.",
                remedy,
            )
        elif missed:
            yield seen.finding("label", "note", "structures", f"has no {some(missed)}.", remedy)

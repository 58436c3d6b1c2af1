"""Checks for traces of earlier processing: nothing is wrong, but something may be lost."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from lamina.data.cohort import Cohort
from lamina.data.doctor import Finding
from lamina.data.doctor.facts import Examination, ImageFacts
from lamina.data.doctor.groups import whole_set
from lamina.data.doctor.outliers import ENOUGH, comparable, lengths

SEVERAL = 3
"""Fewer images than this that agree exactly may do so by chance."""

_SHARE = 0.05
"""Share of the pictures that must be squares of one size."""
_SIDES = 4
"""More long sides than this are no few."""
_SIDE_SHARE = 0.1
"""Share of the pictures that each of few long sides has at least."""


def check_traces(cohort: Cohort, seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report what scans have in common that scanners do not leave behind."""
    images = [image for _, image in comparable(cohort, seen)]
    yield from _check_types(images)
    if len(images) < SEVERAL:
        return
    if images[0].spatial_dims == 2:
        yield from _check_squares(images)
        yield from _check_long_sides(images)
    else:
        yield from _check_levels(cohort, images)
        patients = {one.case.group for one in seen}
        yield from _check_header(images) if len(patients) >= ENOUGH else ()


def _check_types(images: Sequence[ImageFacts]) -> Iterator[Finding]:
    types = Counter(image.dtype for image in images)
    if len(types) > 1:
        listed = ", ".join(f"{name} ({count})" for name, count in types.most_common())
        yield _note(
            f"images are stored in {len(types)} types of numbers: {listed}.",
            "Look whether some were rescaled to fewer bits.",
        )


def _check_levels(cohort: Cohort, images: Sequence[ImageFacts]) -> Iterator[Finding]:
    """Report channels that were stretched to one range, or rounded to steps, in every scan."""
    ranges, steps = [], []
    for index, name in enumerate(cohort.channels):
        channels = [image.channels[index] for image in images]
        ends = {(channel.low, channel.high) for channel in channels}
        if len(ends) == 1 and channels[0].low < channels[0].high:
            ranges.append(f"{name} from {channels[0].low:g} to {channels[0].high:g}")
        step = int(np.gcd.reduce([channel.step for channel in channels]))
        if step > 1 and all(channel.step for channel in channels):
            steps.append(f"{name} {step}")
    if ranges:
        yield _note(
            f"every scan runs over exactly the same range: {', '.join(ranges)}.",
            "Scans were cut off or rescaled one by one: values have no unit, nor compare.",
        )
    if steps:
        yield _note(
            f"all values are multiples of a number above 1: {', '.join(steps)}.",
            "They were rounded, or multiplied; finer differences are lost.",
        )


def _check_header(images: Sequence[ImageFacts]) -> Iterator[Finding]:
    origins = {tuple(image.affine[:3, 3].tolist()) for image in images}
    spacings = {image.spacing for image in images}
    if len(origins) == len(spacings) == 1 and len({image.shape for image in images}) > 1:
        yield _note(
            f"scans of many sizes all begin at {lengths(images[0].affine[:3, 3])} mm and have "
            f"voxels of {lengths(images[0].spacing)} mm.",
            "No scanner leaves such headers: the sizes may be nominal. Compare with the source "
            "before believing distances and volumes.",
        )


def _check_squares(images: Sequence[ImageFacts]) -> Iterator[Finding]:
    sizes = Counter(image.shape for image in images)
    for (wide, high), count in sizes.most_common():
        if wide == high and count >= max(SEVERAL, _SHARE * len(images)):
            yield _note(
                f"{count} of {len(images)} pictures are exactly {wide} x {high}.",
                "If they were squeezed into a square, lengths and shapes in them are wrong.",
            )


def _check_long_sides(images: Sequence[ImageFacts]) -> Iterator[Finding]:
    sides = Counter(max(image.shape) for image in images).most_common()
    varied = len({image.shape for image in images}) > len(sides)
    if varied and 1 < len(sides) <= _SIDES and sides[-1][1] >= _SIDE_SHARE * len(images):
        listed = ", ".join(f"{side} ({count})" for side, count in sides)
        yield _note(
            f"pictures of many shapes have only {len(sides)} long sides: {listed}.",
            "They were resampled, and likely differ in sharpness; look at some of each.",
        )


def _note(message: str, remedy: str) -> Finding:
    return whole_set("note", "processing", message, remedy)

"""Checks that suspect mirrored or inverted scans and channels in another order.

Only a person can tell whether they are; the findings say so.
"""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from lamina.data.cohort import Cohort
from lamina.data.doctor import Finding
from lamina.data.doctor.duplicates import thumbnails
from lamina.data.doctor.facts import THUMBNAIL, Examination
from lamina.data.doctor.outliers import ENOUGH, comparable, spread
from lamina.data.sides import SIDE, side_pairs
from lamina.labels import LabelSet

LOPSIDED = 0.05
"""Drop of the correlation with the other scans' mean, when mirrored, that shows a direction."""
AGREED = 0.8
"""Share of the cases that must lie the same way before the others are suspected."""

RESEMBLES = 0.3
"""Least correlation with the others that a suspicion is built on."""

_LEAST_SHAPE = 0.1
"""Spread that what tells channels apart is granted."""
_WORST = 10.0
"""Distances beyond this say no more than this."""
_FITS = 4.0
"""Mean robust z-score up to which a channel may pass for another."""
_BETTER = 1.5
"""Another order of channels must fit so many times better than the declared one."""
_APART_MM = 1.0
_SIZE = (THUMBNAIL[3],) * 3
_AXES = ("left to right", "front to back", "head to foot")


def sided_pairs(labels: LabelSet) -> list[tuple[str, str]]:
    """Return the structures that occur as (left, right), by their names."""
    names = labels.foreground
    found = [(names[low - 1], names[high - 1]) for low, high in side_pairs(labels)]
    return [(a, b) if _is_left(a) else (b, a) for a, b in found]


def _is_left(name: str) -> bool:
    side = SIDE.search(name)
    return side is not None and side[0][0].lower() in "ls"


def check_names(cohort: Cohort, seen: Sequence[Examination]) -> Iterator[Finding]:
    """Suspect cases whose left structures lie to the right of their right ones."""
    pairs = sided_pairs(cohort.labels)
    values = cohort.labels.values
    verdicts: dict[str, tuple[Examination, list[str], int]] = {}
    for one in seen:
        centres = one.label.centres if one.label else {}
        gaps = {  # how far, in mm, the right structure lies to the patient's right
            right: centres[values[right]][0] - centres[values[left]][0]
            for left, right in pairs
            if values[left] in centres and values[right] in centres
        }
        swapped = [name for name, gap in gaps.items() if gap < -_APART_MM]
        if gaps:
            verdicts[one.case_id] = (one, swapped, len(gaps))
    right_way = sum(1 for _, swapped, total in verdicts.values() if 2 * len(swapped) <= total)
    for one, swapped, total in verdicts.values():
        if swapped:
            whole = 2 * len(swapped) > total
            yield one.finding(
                "label",
                "warning",
                "sides",
                f"suspicion: {len(swapped)} of {total} pairs lie the wrong way round, such "
                f"as {swapped[0]}; {right_way} of {len(verdicts)} cases lie as their names say.",
                "Look whether the scan is mirrored or its header wrong."
                if whole
                else "Look whether these two labels are swapped.",
            )


def check_resemblance(seen: Sequence[Examination]) -> Iterator[Finding]:
    """Suspect volumes that resemble the others' mean more when mirrored, or with grey inverted.

    Only where nearly all others lie the same way, so that mirroring must be seen.
    """
    volumes = _alike(seen)
    if len(volumes) < ENOUGH:
        return
    looks = thumbnails(volumes).reshape(len(volumes), -1, *_SIZE)
    # Each is compared with the mean of the others, so that it does not resemble itself.
    others = (looks.sum(axis=0) - looks) / (len(volumes) - 1)
    as_is = _correlations(looks, others)
    turned = np.stack([_correlations(np.flip(looks, 2 + axis), others) for axis in range(3)])
    settled = (as_is - turned > LOPSIDED).mean(axis=1) >= AGREED
    turned[~settled] = -1
    for one, own, each in zip(volumes, as_is, turned.T, strict=True):
        best = int(each.argmax())
        if own < -RESEMBLES:
            message = f"the opposite of the other scans (correlation {own:.2f}): inverted grey?"
        elif each[best] > max(RESEMBLES, own + LOPSIDED):
            message = (
                f"mirrored {_AXES[best]}, it resembles the other scans more (correlation "
                f"{each[best]:.2f} instead of {own:.2f})."
            )
        else:
            continue
        yield one.finding(
            "image",
            "warning",
            "sides" if own >= -RESEMBLES else "intensity",
            f"suspicion: {message}",
            "Look whether its header, or its window, turns it the wrong way.",
        )


def _alike(seen: Sequence[Examination]) -> list[Examination]:
    """Return the volumes with the usual number of channels."""
    volumes = [(one, one.image) for one in seen if one.image and one.image.spatial_dims == 3]
    counts = Counter(len(image.channels) for _, image in volumes)
    return [one for one, image in volumes if len(image.channels) == counts.most_common(1)[0][0]]


def _correlations(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Correlate two stacks case by case; 0 where one is constant."""
    rows = [
        (each - each.mean(axis=1, keepdims=True))
        for each in (a.reshape(len(a), -1), b.reshape(len(b), -1))
    ]
    lengths = np.linalg.norm(rows[0], axis=1) * np.linalg.norm(rows[1], axis=1)
    return np.asarray((rows[0] * rows[1]).sum(axis=1) / np.maximum(lengths, 1e-12), np.float64)


def check_channel_order(cohort: Cohort, seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report cases whose channels look as if they stood in another order.

    Each channel is described by the shape of its distribution of intensities and by its range. A
    case is reported if, in another order, its channels look as usual, and in its own do not.
    """
    images = comparable(cohort, seen)
    if len(images) < ENOUGH or len(cohort.channels) < 2:
        return
    looks = np.array([[_look(c.percentiles) for c in image.channels] for _, image in images])
    usual, apart = np.median(looks, axis=0), spread(looks, _LEAST_SHAPE)
    for (one, _), own in zip(images, looks, strict=True):
        # One row per channel as it stands, one column per channel that it could be.
        z = np.minimum(np.abs(own[:, None] - usual) / apart, _WORST).mean(axis=2)
        rows, order = linear_sum_assignment(z)
        moved = rows != order
        declared, better = z.diagonal()[moved], z[rows, order]
        if (
            moved.any()
            and better.max() < _FITS
            and declared.mean() > _BETTER * max(1.0, better[moved].mean())
        ):
            yield one.finding(
                "image",
                "warning",
                "channel_order",
                "suspicion: the channels look like "
                f"{', '.join(cohort.channels[i] for i in order)}; declared are "
                f"{', '.join(cohort.channels)} (mean robust z of those that differ "
                f"{declared.mean():.1f} as declared, {better[moved].mean():.1f} so).",
                "Look at the channels; put them into the declared order.",
            )


def _look(percentiles: Sequence[float]) -> NDArray[np.float64]:
    """Return the shape of a distribution: its percentiles within its range, and the range."""
    levels = np.array(percentiles)
    width = max(levels[-1] - levels[0], 1e-12)
    ends = levels[[0, -1]]
    return np.concatenate(
        [(levels[1:-1] - levels[0]) / width, np.sign(ends) * np.log1p(np.abs(ends)) / 5]
    )

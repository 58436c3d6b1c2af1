"""Checks for the same scan twice, and for patients on both sides of training and test."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lamina.data.doctor import LEAVE_OUT, Finding
from lamina.data.doctor.facts import Examination
from lamina.data.doctor.groups import folded
from lamina.data.doctor.outliers import ENOUGH
from lamina.data.folds import SIDES, Fold, leaks

ALIKE = 0.93
"""Correlation of two thumbnails from which scans may be near duplicates."""
ALIKE_OF_FEW = 0.98
"""The same among so few scans that it is not known what all share."""
STILL_ALIKE = 0.8
"""Correlation that they must still have after what all scans share is taken away."""

_BLOCK = 512


def check_exact(seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report images that hold the same voxels as an earlier one, and label maps copied on."""
    first: dict[tuple[str, ...], Examination] = {}
    for one in sorted(seen, key=lambda one: not one.held_out):  # the test folder keeps its own
        if one.image is None:
            continue
        earlier = first.setdefault(one.image.digests, one)
        if earlier is not one:
            yield from _exact(one, earlier)
    yield from _copied_labels(seen)


def _exact(one: Examination, earlier: Examination) -> Iterator[Finding]:
    finding = one.finding(
        "image",
        "error",
        "duplicate",
        f"holds the same voxels as {earlier.case_id}",
        "Keep one of them.",
        mend=LEAVE_OUT,
        other=earlier.case_id,
    )
    if one.held_out:
        yield replace(finding, severity="warning", message=f"{finding.message}.", mend="")
    elif earlier.held_out:
        message = f"{finding.message}, which is in the test folder."
        yield replace(finding, check="train_test", message=message)
    elif one.label and earlier.label and one.label.digest != earlier.label.digest:
        for each, other in ((one, earlier), (earlier, one)):
            yield each.finding(
                "image",
                "error",
                "duplicate",
                f"holds the same voxels as {other.case_id}, but another label.",
                "Find out which label is right, and keep that case.",
                other=other.case_id,
            )
    elif one.case.group == earlier.case.group:
        message = f"{finding.message}, of the same patient {one.case.group}."
        yield replace(finding, severity="warning", message=message)
    else:
        yield replace(finding, message=f"{finding.message}, of another patient by name.")


def _copied_labels(seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report label maps that two different images share, unless they are empty."""
    first: dict[str, Examination] = {}
    for one in seen:
        if one.label is None or len(one.label.counts) < 2 or one.image is None:
            continue
        earlier = first.setdefault(one.label.digest, one)
        if earlier.image and earlier.image.digests != one.image.digests:
            yield one.finding(
                "label",
                "warning",
                "duplicate",
                f"the label is the same as that of {earlier.case_id}, the image is not.",
                "Look which image the label belongs to.",
                other=earlier.case_id,
            )


def check_near(seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report images that look the same without being equal, of different patients.

    Thumbnails are correlated, and once more after the mean of all was taken away, since scans of
    one region look alike anyway. The second needs a handful of scans to say something.
    """
    groups: dict[tuple[int, int], list[Examination]] = defaultdict(list)
    for one in seen:
        if one.image and all(c.low < c.high for c in one.image.channels):
            groups[one.image.spatial_dims, len(one.image.channels)].append(one)
    for members in groups.values():
        yield from _near(members)


def _near(seen: Sequence[Examination]) -> Iterator[Finding]:
    looks = _unit(thumbnails(seen))
    few = len(seen) < ENOUGH
    own = looks if few else _unit(looks - looks.mean(axis=0))
    least = ALIKE_OF_FEW if few else ALIKE
    for start in range(0, len(seen), _BLOCK):
        block = slice(start, start + _BLOCK)
        alike, still = looks[block] @ looks.T, own[block] @ own.T
        for i, j in np.argwhere((alike >= least) & (still >= STILL_ALIKE)):
            one, earlier = seen[start + i], seen[j]
            if j < start + i and _strangers(one, earlier):
                yield one.finding(
                    "image",
                    "warning",
                    "near_duplicate" if one.side == earlier.side else "train_test",
                    f"looks like {earlier.case_id}: thumbnails correlate "
                    f"{alike[i, j]:.3f}, and {still[i, j]:.3f} without what all scans share.",
                    "Compare the two; if one patient, give both the same patient name.",
                    other=earlier.case_id,
                )


def _strangers(one: Examination, other: Examination) -> bool:
    """Tell whether two cases are of different patients, and not known to be equal."""
    equal = one.image and other.image and one.image.digests == other.image.digests
    apart = one.held_out != other.held_out
    return not equal and (apart or one.case.group != other.case.group)


def check_split(seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report patients, and images, that the dataset's own split has on two sides."""
    cases = [one.case for one in seen]
    fold = Fold(*(tuple(c.case_id for c in cases if c.side == side) for side in SIDES))
    digests = {one.case_id: one.image.digests for one in seen if one.image}
    patients = leaks((fold,), cases)
    images = [leak for leak in leaks((fold,), cases, digests) if leak not in patients]
    for found in (patients, images):
        split = [replace(f, message=f.message.replace("fold 0", "the split")) for f in found]
        yield from folded(split, len(seen))


def check_patients(seen: Sequence[Examination]) -> Iterator[Finding]:
    """Report patients, by name, that are in the test folder too."""
    tested = {one.case.group: one for one in seen if one.held_out}
    for one in seen:
        if not one.held_out and one.case.group in tested:
            yield one.finding(
                "image",
                "warning",
                "train_test",
                f"patient {one.case.group} is in the test folder too.",
                "Take the patient out of one of the two, unless both number anew.",
                other=tested[one.case.group].case_id,
            )


def thumbnails(seen: Sequence[Examination]) -> NDArray[np.float32]:
    """Return the thumbnails of all channels as rows ``(N, C * 4096)``."""
    return np.stack(
        [
            np.concatenate([c.thumbnail.ravel() for c in one.image.channels])
            for one in seen
            if one.image
        ]
    )


def _unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    centred = rows - rows.mean(axis=1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(length, 1e-12), np.float32)

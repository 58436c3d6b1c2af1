"""All checks over all examinations: pure, and quick beside the reading."""

from collections.abc import Iterable, Iterator, Sequence

from lamina.data.cohort import Cohort
from lamina.data.doctor import (
    SEVERITIES,
    Finding,
    contents,
    declaration,
    duplicates,
    outliers,
    slices,
    suspicions,
    traces,
)
from lamina.data.doctor.facts import WHOLE_TOLERANCE, Examination
from lamina.geometry import GRID_TOLERANCE_MM
from lamina.io import LABEL_TOLERANCE

CHECKS = {
    "unreadable": "Files that are missing, damaged or of an unknown format.",
    "unpaired": "Cases without an image, a channel or the label, or with more channels than "
    "declared.",
    "unlisted": "Scans beside the listed ones that no case uses.",
    "header": "Doubts about where voxels lie: sform and qform that differ, axes not at right "
    "angles, units.",
    "channels": "As many channels as declared, or as most scans have; no two of them equal.",
    "channel_order": "Channels that look as usual in another order, and not in their own "
    f"(from {outliers.ENOUGH} cases on).",
    "not_finite": "Voxels that are NaN or infinite.",
    "constant": "Channels with one value everywhere.",
    "grid": "Image and label of one size whose corners lie within "
    f"{GRID_TOLERANCE_MM:g} mm or 1 % of the smallest spacing.",
    "values": "Label values as declared, whole numbers to "
    f"{LABEL_TOLERANCE:g} (mended to {WHOLE_TOLERANCE:g}), masks of 0 and 255, gaps, "
    "palettes that exchange values; pictures whose masks were merged.",
    "slices": "Slices of an image that are blank or repeated between others; structures that skip "
    f"{slices.LONGEST} or fewer.",
    "structures": "Empty labels; structures missing that "
    f"{contents.USUAL:.0%} of the cases have; structures that never occur.",
    "few": f"Fewer than {outliers.ENOUGH} patients, of which none can be called unusual.",
    "spacing": f"Voxel sizes with a robust z above {outliers.FAR:g}.",
    "size": f"Fields of view with a robust z above {outliers.FAR:g}; images among volumes.",
    "intensity": "Ranges of intensity, and the median's place in them, with a robust z above "
    f"{outliers.FAR:g}; CT among others.",
    "orientation": f"Axis orders other than the one of {outliers.USUAL:.0%} of the cases.",
    "processing": "Traces of earlier processing: one range or step of intensities in all scans, "
    "several types of numbers, one origin and spacing for all sizes, pictures made square.",
    "duplicate": "Images with the same voxels; labels that two images share.",
    "near_duplicate": "Images of different patients whose thumbnails correlate at least "
    f"{duplicates.ALIKE:g}, and {duplicates.STILL_ALIKE:g} without what all share.",
    "train_test": "Patients and images on two sides of the dataset's own split, or in the test "
    "folder too.",
    "sides": "Suspected mirroring: left and right structures, and resemblance to the other scans "
    f"(drop of correlation by {suspicions.LOPSIDED:g}, where {suspicions.AGREED:.0%} lie one way).",
}
"""What is checked and how strictly."""


def diagnose(
    cohort: Cohort, examinations: Sequence[Examination], known: Iterable[Finding] = ()
) -> tuple[Finding, ...]:
    """Run all checks.

    Args:
        cohort: What is declared.
        examinations: Of its cases, and of what lies in the test folder.
        known: Findings to be sorted in.

    Returns:
        Findings about the whole set first, then by case; the gravest first.
    """
    found = (*known, *_all(cohort, examinations))
    ranked = sorted(found, key=lambda f: (f.case, SEVERITIES.index(f.severity)))
    return tuple(dict.fromkeys(ranked))


def _all(cohort: Cohort, examinations: Sequence[Examination]) -> Iterator[Finding]:
    own = [one for one in examinations if not one.held_out]
    for one in examinations:
        yield from one.faults
        yield from contents.check_image(cohort, one)
    for one in own:
        yield from contents.check_grid(one)
        yield from contents.check_label(cohort, one)
    yield from contents.check_structures(cohort, own)
    yield from declaration.check_declaration(cohort, own)
    yield from declaration.check_merged(own)
    yield from declaration.check_palettes(own)
    yield from slices.check_slices(cohort, own)
    yield from outliers.check_dimensions(own)
    yield from outliers.check_spacing(own)
    yield from outliers.check_orientation(own)
    yield from outliers.check_intensity(cohort, own)
    yield from traces.check_traces(cohort, own)
    yield from suspicions.check_channel_order(cohort, own)
    yield from duplicates.check_exact(examinations)
    yield from duplicates.check_near(examinations)
    yield from duplicates.check_patients(examinations)
    yield from duplicates.check_split(own)
    yield from suspicions.check_names(cohort, own)
    yield from suspicions.check_resemblance(own)

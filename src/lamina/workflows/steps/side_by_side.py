"""Scans segmented by an exported model and by the original, for the report of how they differ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.bundle import Bundle
from lamina.data.case import Case
from lamina.errors import LaminaError
from lamina.evaluation.scores import score_case
from lamina.export.parity import paired_dice
from lamina.volume import Volume
from lamina.workflows import Progress

SegmentCase = Callable[[Case, Volume], NDArray[Any]]
"""A case and its image -> its label map ``(1, *S)``, in the values of files."""


@dataclass(frozen=True, kw_only=True)
class SideBySide:
    """What became of the scans."""

    report: Mapping[str, Any] = field(default_factory=dict)
    """``cases``: a row for each scan that was compared, numbered, as names may be those of
    patients; ``dice_between``: mean over their structures; where labels or segmentations of
    labelled scans hold any, also ``dice_original``, ``dice_exported``, and ``dice_drop`` in points.
    """
    case_ids: tuple[str, ...] = ()
    """Of the rows."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """What was wrong with each scan that is left out, by case id."""


def compare_segmentations(
    bundle: Bundle,
    original: SegmentCase,
    exported: SegmentCase,
    scans: Sequence[Case],
    progress: Progress,
) -> SideBySide:
    """Segment scans with both, and compare the segmentations with each other and with labels.

    Raises:
        LaminaError: What was wrong with the first scan, where none could be compared.
    """
    rows: dict[str, dict[str, Any]] = {}
    errors: dict[str, LaminaError] = {}
    for done, case in enumerate(scans, start=1):
        try:
            rows[case.case_id] = _row(bundle, case, original, exported)
        except LaminaError as error:
            errors[case.case_id] = error
        progress(done, len(scans), case.case_id)
    if not rows:
        raise next(iter(errors.values()))
    return SideBySide(
        report=_report(list(rows.values())),
        case_ids=tuple(rows),
        failures={case_id: str(error) for case_id, error in errors.items()},
    )


def _row(
    bundle: Bundle, case: Case, original: SegmentCase, exported: SegmentCase
) -> dict[str, Any]:
    """Return a case's voxels that differ, and Dice of every structure."""
    labels, image = bundle.plan.labels, case.read_image(bundle.plan.channels)
    found = [labels.encode(each(case, image), image.source)[0] for each in (original, exported)]

    def dice(prediction: NDArray[Any], reference: NDArray[Any]) -> list[float]:
        rows = score_case(
            case.case_id, prediction, reference, labels, image.spacing, ("dice",), image.unit
        )
        return [row.value for row in rows]

    reference = case.read_label(labels, image).array[0] if case.label else None
    return {
        "voxels": int(found[0].size),
        "voxels_that_differ": int((found[0] != found[1]).sum()),
        "between": dice(found[1], found[0]),
        "original": [] if reference is None else dice(found[0], reference),
        "exported": [] if reference is None else dice(found[1], reference),
    }


def _report(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    between, *sides = (
        [d for row in rows for d in row[name]] for name in ("between", "original", "exported")
    )
    totals: dict[str, Any] = {"dice_between": _mean(between)}
    if means := paired_dice(*sides):
        before, after = means
        totals |= {"dice_original": before, "dice_exported": after}
        totals["dice_drop"] = 100 * (before - after)
    plain = (
        {name: _mean(v) if isinstance(v, list) else v for name, v in row.items()} for row in rows
    )
    return totals | {"cases": [{"scan": n, **row} for n, row in enumerate(plain, start=1)]}


def _mean(values: Sequence[float]) -> float | None:
    array = np.array(values, np.float64)
    return None if np.isnan(array).all() else float(np.nanmean(array))

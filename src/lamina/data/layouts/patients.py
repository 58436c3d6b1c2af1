"""Challenges that give each patient a folder, or number the files of one, told by their names.

One row of a table here is one way of naming files; :mod:`lamina.data.datasets` says what the
channels and labels are. Of KiTS, the latest challenge's labels are declared, of which the first had
no cysts; a ``dataset.json`` in the folder may declare others. Scans without a label, as challenges
keep them, are left out.
"""

import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lamina.data.case import Case, patient_of
from lamina.data.cohort import Cohort
from lamina.data.datasets import load_description
from lamina.data.layouts import LAYOUTS, Layout
from lamina.data.layouts.nnunet import has_description
from lamina.data.layouts.pairing import Unpaired, check_channels
from lamina.data.layouts.table import make_cohort
from lamina.errors import DatasetError
from lamina.io import is_scan, strip_suffix

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Naming:
    """How the files of a dataset are called."""

    dataset: str
    """Name of its description."""
    pattern: str
    """Regular expression of a path without suffix; the groups are ``case``, ``part``, ``group``."""
    images: tuple[str, ...]
    """The parts that are images, in the order of the described channels."""
    label: str
    """The part that is the label."""
    prefix: str = ""
    """What case ids begin with where a number alone would be left."""


_NAMINGS = (
    _Naming(
        dataset="brats2021",
        pattern=r"(?P<case>BraTS\d+(?:_Training)?_\d+)/(?P=case)_(?P<part>flair|t1ce|t1|t2|seg)",
        images=("flair", "t1ce", "t1", "t2"),
        label="seg",
    ),
    _Naming(
        dataset="brats2023",
        pattern=r"(?P<case>(?P<group>BraTS-[A-Z]+-\d{5})-\d{3})/(?P=case)"
        r"-(?P<part>t2f|t1c|t1n|t2w|seg)",
        images=("t2f", "t1c", "t1n", "t2w"),
        label="seg",
    ),
    _Naming(
        dataset="acdc",
        pattern=r"(?P<group>patient\d{3})/(?P<case>(?P=group)_frame\d{2})(?P<part>|_gt)",
        images=("",),
        label="_gt",
    ),
    _Naming(
        dataset="kits23",
        pattern=r"(?P<case>case_\d{5})/(?P<part>imaging|segmentation)",
        images=("imaging",),
        label="segmentation",
    ),
    _Naming(
        dataset="lits",
        pattern=r"(?P<part>volume|segmentation)-(?P<case>\d+)",
        images=("volume",),
        label="segmentation",
        prefix="volume-",
    ),
    _Naming(
        dataset="btcv",
        pattern=r"(?P<part>img|label)/(?P=part)(?P<case>\d{4})",
        images=("img",),
        label="label",
        prefix="img",
    ),
)


def _matches(folder: Path) -> bool:
    return next(_named(folder), None) is not None and not has_description(folder)


def _read(folder: Path) -> Cohort:
    found = _found(folder)
    if len(found) != 1:
        raise DatasetError(
            f"{folder}: files are called as in {' and '.join(found) or 'no known dataset'}.",
            remedy=f"Known are {', '.join(naming.dataset for naming in _NAMINGS)}; keep to one.",
        )
    ((dataset, parts),) = found.items()
    naming = next(naming for naming in _NAMINGS if naming.dataset == dataset)
    cases, unpaired = _cases(folder, naming, parts)
    known = load_description(dataset)
    return make_cohort(
        folder, cases, channels=known.channels, labels=known.label_set, unpaired=unpaired
    )


Parts = dict[tuple[str, str], dict[str, Path]]
"""(Case, patient) -> part -> file."""


def _found(folder: Path) -> dict[str, Parts]:
    """Return the files of every naming that occurs."""
    found = defaultdict[str, Parts](lambda: defaultdict(dict))
    for path, naming, match in _named(folder):
        case_id = naming.prefix + match["case"]
        group = match.groupdict().get("group") or patient_of(case_id)
        first = found[naming.dataset][case_id, group].setdefault(match["part"], path)
        if first != path:
            raise DatasetError(
                f"{path}: {first.name} has the same name.", remedy="Keep one of them."
            )
    return found


def _named(folder: Path) -> Iterator[tuple[Path, _Naming, re.Match[str]]]:
    for path in sorted([*folder.glob("*"), *folder.glob("*/*")]):
        if is_scan(path):
            name = (path.parent.relative_to(folder) / strip_suffix(path)).as_posix()
            for naming in _NAMINGS:
                if match := re.fullmatch(naming.pattern, name):
                    yield path, naming, match


def _cases(folder: Path, naming: _Naming, parts: Parts) -> tuple[list[Case], Unpaired]:
    """Return the cases, and what others lack."""
    faults = {
        case: f"lacks {', '.join(part or 'the image' for part in lacking)}"
        for (case, _), files in parts.items()
        if (lacking := [part for part in naming.images if part not in files])
    }
    check_channels(folder, faults, len(parts), "Bring the missing files, or move these cases away.")
    whole = {key: files for key, files in parts.items() if key[0] not in faults}
    bare = sorted(case for (case, _), files in whole.items() if naming.label not in files)
    if bare:
        _log.warning("%s: %d scans without a label are left out: %s.", folder, len(bare), bare[:5])
    cases = [
        Case(
            case_id=case_id,
            group=group,
            images=tuple(files[part] for part in naming.images),
            label=files[naming.label],
        )
        for (case_id, group), files in whole.items()
        if naming.label in files
    ]
    return cases, {
        f"{case} {faults[case]}": tuple(files.values())
        for (case, _), files in parts.items()
        if case in faults
    }


LAYOUTS.register("patients")(
    Layout("a folder per patient, called as in BraTS, ACDC, KiTS, LiTS or BTCV", _matches, _read)
)

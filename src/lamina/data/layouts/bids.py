"""Brain Imaging Data Structure: raw scans, and their segmentations among the derivatives.

K. J. Gorgolewski et al., "The brain imaging data structure", Scientific Data 3, 2016; names are
those of its specification: ``sub-01/ses-1/anat/sub-01_ses-1_T1w.nii.gz`` is segmented in
``derivatives/PIPELINE/.../sub-01_ses-1_..._dseg.nii.gz``, whose values ``..._dseg.tsv`` names.

Choices: a case is a subject's session. Its channels are the anatomical contrasts, one with a
contrast agent (``ce-``) apart; of several runs or acquisitions, the one that the segmentation's
name tells, else the one without such a mark. Everything else, functional scans among it, is not
looked at, and sessions without a segmentation are left out. Where most sessions have all channels,
those that lack one are no cases.
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lamina.data.case import Case
from lamina.data.cohort import Cohort
from lamina.data.layouts import LAYOUTS, Layout
from lamina.data.layouts.msd import label_set
from lamina.data.layouts.nnunet import has_description
from lamina.data.layouts.pairing import check_channels
from lamina.data.layouts.table import make_cohort, read_table
from lamina.errors import DatasetError
from lamina.files import read_json
from lamina.io import is_scan, strip_suffix
from lamina.labels import LabelSet

_CONTRASTS = ("T1w", "T2w", "FLAIR", "PDw", "T2starw", "UNIT1")
"""Suffixes of images that can be channels, in the order in which they are."""
_NUMBER = re.compile(r"[0-9]{1,18}")
_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9]+)")


@dataclass(frozen=True)
class _Scan:
    path: Path
    entities: dict[str, str]
    suffix: str

    @property
    def case_id(self) -> str:
        return "_".join(f"{k}-{self.entities[k]}" for k in ("sub", "ses") if k in self.entities)

    @property
    def channel(self) -> str:
        return f"{self.suffix} {self.entities['ce']}" if "ce" in self.entities else self.suffix


def _matches(folder: Path) -> bool:
    subjects = any(path.is_dir() for path in folder.glob("sub-*"))
    return subjects and (folder / "derivatives").is_dir() and not has_description(folder)


def _read(folder: Path) -> Cohort:
    images = defaultdict[str, dict[str, list[_Scan]]](lambda: defaultdict(list))
    for scan in _scans([*folder.glob("sub-*/anat/*"), *folder.glob("sub-*/ses-*/anat/*")]):
        if scan.suffix in _CONTRASTS:
            images[scan.case_id][scan.channel].append(scan)
    labels = _labels(folder)
    channels = _channels({name for case_id in labels for name in images[case_id]})
    if not channels:
        raise DatasetError(
            f"{folder}: no segmentation belongs to an anatomical scan.",
            remedy=f"Scans in anat/ end in {', '.join(_CONTRASTS)}; segmentations lie in "
            "derivatives/PIPELINE/ and end in _dseg.",
        )
    found = {
        case_id: [_chosen(images[case_id][channel], label) for channel in channels]
        for case_id, label in labels.items()
    }
    faults = {
        case_id: f"lacks {', '.join(lacking)}"
        for case_id, scans in found.items()
        if (lacking := [c for c, scan in zip(channels, scans, strict=True) if scan is None])
    }
    check_channels(
        folder,
        faults,
        len(found),
        "Move the segmentations of these, or all scans of what they lack, elsewhere, or list in "
        "cases.csv what to take.",
    )
    cases = [
        Case(
            case_id=case_id,
            group=f"sub-{labels[case_id].entities['sub']}",
            images=tuple(scan.path for scan in scans if scan),
            label=labels[case_id].path,
        )
        for case_id, scans in found.items()
        if case_id not in faults
    ]
    unpaired = {
        f"{case_id} {fault}": tuple(s.path for s in (*found[case_id], labels[case_id]) if s)
        for case_id, fault in faults.items()
    }
    names = _names({folder / "derivatives" / _pipeline(folder, s.path) for s in labels.values()})
    known = {"labels": names} if names else {}
    about = _about(folder)
    return make_cohort(folder, cases, channels=channels, unpaired=unpaired, **about, **known)


def _scans(paths: Iterable[Path]) -> list[_Scan]:
    found = []
    for path in sorted(path for path in paths if is_scan(path)):
        *marks, suffix = strip_suffix(path).split("_")
        matches = [match for mark in marks if (match := _ENTITY.fullmatch(mark))]
        entities = {match[1]: match[2] for match in matches}
        if "sub" in entities:
            found.append(_Scan(path, entities, suffix))
    return found


def _labels(folder: Path) -> dict[str, _Scan]:
    """Return the one segmentation of each case."""
    found = defaultdict[str, list[_Scan]](list)
    for scan in _scans((folder / "derivatives").glob("*/**/sub-*_dseg.*")):
        found[scan.case_id].append(scan)
    for case_id, scans in found.items():
        if len(scans) > 1:
            names = [str(scan.path.relative_to(folder)) for scan in scans]
            raise DatasetError(
                f"{folder}: {case_id} has {len(names)} segmentations: {names[:5]}.",
                remedy="Move all but one elsewhere, or list in cases.csv which to take.",
            )
    return {case_id: scans[0] for case_id, scans in sorted(found.items())}


def _channels(found: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(found, key=lambda name: (_CONTRASTS.index(name.split()[0]), name)))


def _chosen(scans: list[_Scan], label: _Scan) -> _Scan | None:
    """Return the scan that was segmented, or none."""
    marks = label.entities
    fitting = [s for s in scans if all(marks.get(k, v) == v for k, v in s.entities.items())]
    plain = [s for s in fitting if s.entities.keys() <= {*marks, "ce"}]
    candidates = plain or fitting
    if len(candidates) > 1:
        names = [scan.path.name for scan in candidates]
        raise DatasetError(
            f"{label.path}: does not tell which scan it is of: {names[:5]}.",
            remedy="Move all but one elsewhere, or list in cases.csv which to take.",
        )
    return candidates[0] if candidates else None


def _pipeline(folder: Path, path: Path) -> str:
    return path.relative_to(folder / "derivatives").parts[0]


def _names(pipelines: Iterable[Path]) -> LabelSet | None:
    """Return the labels that the tables of the pipelines name, if there are any."""
    names: dict[int, str] = {}
    for table in sorted(t for pipeline in pipelines for t in pipeline.rglob("*dseg.tsv")):
        for row in read_table(table):
            if not _NUMBER.fullmatch(row.get("index", "")) or not row.get("name"):
                raise DatasetError(
                    f"{table}: {list(row.values())} is no label.",
                    remedy="It needs the columns index (a whole number) and name.",
                )
            value, name = int(row["index"]), row["name"]
            if names.setdefault(value, name) != name:
                raise DatasetError(
                    f"{table}: calls {value} {name!r}; another table calls it {names[value]!r}.",
                    remedy="Correct one of them.",
                )
    if not names:
        return None
    return label_set({str(value): name for value, name in ({**names, 0: "background"}).items()})


def _about(folder: Path) -> dict[str, str]:
    path = folder / "dataset_description.json"
    about = read_json(path) if path.is_file() else {}
    if not isinstance(about, dict):
        raise DatasetError(f"{path}: not a description.", remedy="Mend or remove it.")
    return {
        "name": str(about.get("Name") or folder.name),
        "licence": str(about.get("License") or ""),
    }


LAYOUTS.register("bids")(
    Layout("sub-*/ with anatomical scans and derivatives/ with *_dseg", _matches, _read)
)

"""Repairs that leave no doubt, written as a copy of the dataset; its own files are never touched.

What only a person can decide is not guessed: a case with an error that no repair mends is left out,
and said so.
"""

import csv
import io
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from shutil import copyfile
from typing import Any

import numpy as np

from lamina.data.case import Case
from lamina.data.cohort import Cohort
from lamina.data.doctor import LEAVE_OUT, Finding
from lamina.data.doctor.reading import read_label_map
from lamina.data.intensity import finite
from lamina.data.workers import run_over
from lamina.errors import DatasetError, LaminaError
from lamina.files import atomic_path, write_json, write_text
from lamina.io import read_volume, strip_suffix, write_volume
from lamina.io.structures import has_structures
from lamina.labels import LabelSet
from lamina.volume import Volume

REPAIRS = {
    "take_grid": "The label takes the image's header; its voxels stay.",
    "round": "Label values are rounded to whole numbers.",
    "renumber": "255 in a mask becomes the structure's value.",
    "replace_nan": "NaN and infinite voxels become the smallest and largest finite value.",
    LEAVE_OUT: "The case is not copied.",
}
"""What can be mended, and how."""

_SUFFIXES = {"mm": ".nii.gz", "px": ".png"}
"""Of files that are written anew, by the unit of space."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """One difference between a dataset and its mended copy."""

    case: str
    """Case id; empty for what is done to every case."""
    file: str
    repair: str
    """One of ``REPAIRS``."""
    why: str
    """The fault that is mended, or that cannot be."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


def plan_mending(findings: Sequence[Finding]) -> list[Change]:
    """Say what mending would change, without doing it.

    Whatever else a case that is left out suffers from is not listed, and the duplicate of a case
    that cannot be mended is kept. That a split divides a patient is no fault of the file.
    """
    hopeless = {
        f.case
        for f in findings
        if f.case and f.severity == "error" and not f.mend and f.check != "train_test"
    }
    planned: dict[tuple[str, str], Change] = {}
    for finding in findings:
        if finding.case in hopeless:
            if finding.mend or finding.severity != "error" or finding.check == "train_test":
                continue
            repair = LEAVE_OUT
        elif finding.mend == LEAVE_OUT and finding.other in hopeless:
            continue
        else:
            repair = finding.mend
        if repair:
            change = Change(
                case=finding.case, file=finding.file, repair=repair, why=finding.message
            )
            planned.setdefault((finding.case, repair), change)
    out = {case for case, repair in planned if repair == LEAVE_OUT}
    return [c for c in planned.values() if c.repair == LEAVE_OUT or c.case not in out]


def check_outside(dataset: Path, out: Path, option: str) -> None:
    """Refuse to write into a dataset.

    Raises:
        DatasetError: ``out``, which the option names, is the dataset or lies in it.
    """
    here, there = dataset.resolve(), out.resolve()
    if here == there or here in there.parents:
        raise DatasetError(
            f"{out}: lies in the dataset {dataset}, which is never changed.",
            remedy=f"Choose a folder elsewhere for {option}.",
        )


def check_room(dataset: Path, out: Path) -> None:
    """Refuse to mend in place, or over anything.

    Raises:
        DatasetError: ``out`` lies in the dataset, or holds files, as does one that the dataset is
            in.
    """
    check_outside(dataset, out, "--fix")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DatasetError(f"{out}: is there already.", remedy="Choose a new folder for --fix.")


def mend(cohort: Cohort, changes: Sequence[Change], out: Path, workers: int = 0) -> Cohort:
    """Write a mended copy, whole or not at all.

    ``cases.csv`` lists its cases with their patients, sides of the split and sizes of pixels, and
    ``dataset.json`` the channels and labels. Files that need no repair are copied byte for byte;
    channels, and objects, in files of their own are joined, and series and structures of DICOM
    become volumes. ``changes.json`` lists every change.

    Args:
        cohort: The dataset as it is.
        changes: What :func:`plan_mending` planned.
        out: Folder to write; it must not hold anything.
        workers: Processes; 0 for none.

    Returns:
        The cohort as it stands in ``out``.

    Raises:
        DatasetError: No case remains.
        FileError: A file cannot be written, or was changed meanwhile.
    """
    left_out = {change.case for change in changes if change.repair == LEAVE_OUT}
    cases = tuple(case for case in cohort.cases if case.case_id not in left_out)
    if not cases:
        raise DatasetError(
            f"{cohort.name}: no case would remain of {len(cohort.cases)}.",
            remedy="Mend what the findings say by hand first.",
        )
    repairs: dict[str, set[str]] = defaultdict(set)
    for change in changes:
        repairs[change.case].add(change.repair)
    labels = cohort.labels
    if "renumber" in repairs[""]:  # nobody declared the values: they were named as they were found
        labels = replace(labels, values={"label_1": 1})
    todo = [(case, frozenset(repairs[case.case_id] | repairs[""])) for case in cases]
    with atomic_path(out) as part:
        written = []
        for _, outcome in run_over(partial(_mend_case, labels=labels, folder=part), todo, workers):
            if isinstance(outcome, LaminaError):
                raise outcome
            written.append(outcome)
        write_text(part / "cases.csv", _table(written))
        write_json(part / "dataset.json", _description(cohort, labels))
        write_json(part / "changes.json", [change.as_dict() for change in changes])
    return replace(
        cohort, labels=labels, cases=tuple(_placed(case, out, names) for case, names in written)
    )


Names = tuple[str, str]
"""Where image and label lie in the copy."""


def _mend_case(
    todo: tuple[Case, frozenset[str]], *, labels: LabelSet, folder: Path
) -> tuple[Case, Names]:
    case, repairs = todo
    assert case.label is not None
    anew = len(case.images) > 1 or case.images[0].is_dir() or "replace_nan" in repairs
    image = None
    if anew or "take_grid" in repairs:
        parts = [read_volume(path, case.series) for path in case.images]
        array = parts[0].array
        if len(parts) > 1:
            array = np.concatenate([part.array for part in parts])
        image = replace(parts[0], array=array)
    if image is not None and "replace_nan" in repairs:
        channels = [finite(channel, image.source) for channel in image.array]
        image = replace(image, array=np.stack(channels))
    label = _mended_label(case, image, repairs, labels)
    return case, (
        _put(image if anew else None, case.images[0], folder, f"imagesTr/{case.case_id}"),
        _put(label, case.label, folder, f"labelsTr/{case.case_id}"),
    )


def _mended_label(
    case: Case, image: Volume | None, repairs: frozenset[str], labels: LabelSet
) -> Volume | None:
    """Return the label with its repairs, None where its file can be copied."""
    repaired = case.objects or repairs & {"round", "renumber", "take_grid"}
    if not repaired and not has_structures(case.label_files[0]):
        return None
    unsized = replace(case, spacing=None)  # the copy's own list tells the size of pixels
    label = read_label_map(unsized, labels)
    assert label is not None
    if "round" in repairs:
        label = replace(label, array=np.rint(label.array).astype(np.int64))
    if "renumber" in repairs:
        (value,) = labels.values.values()
        label = replace(label, array=np.where(label.array == 255, value, label.array))
    if "take_grid" in repairs and image is not None:
        label = replace(label, affine=image.affine)
    return label


def _put(volume: Volume | None, source: Path, folder: Path, name: str) -> str:
    """Write a volume, or copy its file if there is none; return its name with the suffix."""
    if volume is not None:
        name += _SUFFIXES[volume.unit]
        write_volume(volume, folder / name)
        return name
    suffix = source.name.removeprefix(strip_suffix(source))
    target = folder / f"{name}{suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    copyfile(source, target)
    return f"{name}{suffix}"


def _table(written: Sequence[tuple[Case, Names]]) -> str:
    text = io.StringIO()
    columns = ["case_id", "image", "label", "patient", "split", "pixel_size_mm"]
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    for case, names in written:
        size = case.spacing[0] if case.spacing else ""
        writer.writerow([case.case_id, *names, case.group, case.side, size])
    return text.getvalue()


def _description(cohort: Cohort, labels: LabelSet) -> dict[str, Any]:
    values = {str(labels.background): "background"}
    values |= {str(value): name for name, value in labels.values.items()}
    if labels.ignore is not None:
        values[str(labels.ignore)] = "ignore"
    return {
        "name": cohort.name,
        "licence": cohort.licence,
        "reference": cohort.source,
        "modality": {str(i): name for i, name in enumerate(cohort.channels)},
        "labels": values,
        "regions": {name: list(members) for name, members in labels.regions.items()},
        "region_based": cohort.region_based,
        "terms": {name: term.as_dict() for name, term in labels.terms.items()},
    }


def _placed(case: Case, out: Path, names: Names) -> Case:
    image, label = names
    return replace(case, images=(out / image,), label=out / label, objects=(), series="")

"""Export to nnU-Net v2: a folder that it takes as it is.

What it asks for is said in the project's own documentation, "nnU-Net dataset format", version 2:
values 0, 1, 2, ... without gaps, the background 0 and ignore last, one ending for all files. It
reads scans one channel per file, and pictures that are not compressed with losses.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import copyfile
from typing import Any

from lamina.data.case import Case, read_merged
from lamina.data.cohort import Cohort
from lamina.data.layouts.nnunet import PICTURES, read
from lamina.errors import DatasetError
from lamina.files import atomic_path, write_json
from lamina.io import is_scan, read_volume, strip_suffix, write_volume
from lamina.io.structures import has_structures
from lamina.labels import LabelSet

_FOLDER = re.compile(r"Dataset\d{3}_.+")
_SCANS = (".nii.gz", ".nrrd", ".mha")
_OTHER_PICTURES = (".jpg", ".jpeg", ".tiff")


@dataclass(frozen=True, kw_only=True)
class Export:
    """What :func:`write_nnunet` wrote."""

    out: Path
    cohort: Cohort
    """The cases as they stand in the new folder."""
    revalued: Mapping[int, int]
    """Value in the original label files -> another value in the new ones; often empty."""
    num_rewritten: int
    """Files that could be neither linked nor copied as they are."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.out),
            "num_cases": len(self.cohort.cases),
            "num_rewritten": self.num_rewritten,
            "revalued": {str(old): new for old, new in self.revalued.items()},
        }


def write_nnunet(cohort: Cohort, folder: Path, *, copy: bool = False) -> Export:
    """Write a cohort so that nnU-Net v2 takes it, whole or not at all.

    Files are linked where nnU-Net reads them as they are. The others are written anew: images that
    hold several channels as one file for each, labels with other values than 0, 1, 2, ... with
    these (ignore comes last), files that do not share one ending as ``.nii.gz``, or pictures as
    ``.png``. Regions become lists of values; nnU-Net then has no place for the structures' names.

    Args:
        cohort: Labelled scans.
        folder: New folder, called such as ``Dataset101_Liver``.
        copy: Copy files rather than link to them.

    Raises:
        DatasetError: The folder is called otherwise or holds files, or files of the cohort are
            missing or hold another number of channels.
        FileError, GeometryError, LabelError: A file cannot be read or written, or holds values that
            are not declared; or regions cannot be turned into labels.
    """
    _check_target(cohort, folder)
    ending = _ending(cohort)
    labels, revalued = _consecutive(cohort.labels)
    num_rewritten = 0
    with atomic_path(folder) as part:
        for case in cohort.cases:
            num_rewritten += _put_images(case, cohort.channels, part / "imagesTr", ending, copy)
            labels_tr = part / "labelsTr" / f"{case.case_id}{ending}"
            num_rewritten += _put_label(case, cohort.labels, labels, labels_tr, copy)
        write_json(part / "dataset.json", _description(cohort, labels, ending))
    return Export(out=folder, cohort=read(folder), revalued=revalued, num_rewritten=num_rewritten)


def _check_target(cohort: Cohort, folder: Path) -> None:
    if not _FOLDER.fullmatch(folder.name):
        raise DatasetError(
            f"{folder}: nnU-Net wants another name.", remedy="Call it such as Dataset101_Liver."
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DatasetError(f"{folder}: is there already.", remedy="Choose a new folder.")
    lacking = [
        case.case_id
        for case in cohort.cases
        if not case.label or not all(path.exists() for path in (*case.images, *case.label_files))
    ]
    if lacking:
        raise DatasetError(
            f"{cohort.name}: {len(lacking)} cases lack an image or the label: {lacking[:5]}.",
            remedy="Bring the files, or leave these cases out.",
        )


def _ending(cohort: Cohort) -> str:
    """Return the ending that the files share if nnU-Net reads such files, or else a common one."""
    images = {_suffix(path) for case in cohort.cases for path in case.images}
    if images <= {*PICTURES, *_OTHER_PICTURES}:
        return next(iter(images)) if len(images) == 1 and images <= {*PICTURES} else ".png"
    found = images | {_suffix(case.label) for case in cohort.cases if case.label}
    return next(iter(found)) if len(found) == 1 and found <= {*_SCANS} else ".nii.gz"


def _suffix(path: Path) -> str:
    return path.name[len(strip_suffix(path)) :].lower() if is_scan(path) else ""


def _consecutive(labels: LabelSet) -> tuple[LabelSet, dict[int, int]]:
    """Return the labels with the values 0, 1, 2, ..., and which values that changes."""
    ranked = sorted(labels.values, key=lambda name: labels.values[name])
    values = {name: 1 + ranked.index(name) for name in labels.values}
    ignore = None if labels.ignore is None else labels.num_classes
    new = replace(labels, values=values, background=0, ignore=ignore)
    moved = {labels.background: 0} | {labels.values[name]: values[name] for name in values}
    if labels.ignore is not None:
        moved[labels.ignore] = labels.num_classes
    return new, {old: value for old, value in moved.items() if old != value}


def _put_images(
    case: Case, channels: tuple[str, ...], folder: Path, ending: str, copy: bool
) -> int:
    """Put the images of a case in place; return how many files had to be written anew."""
    ready = all(_suffix(path) == ending for path in case.images)
    if ready and (len(case.images) == len(channels) or ending in PICTURES):
        for number, path in enumerate(case.images):
            _put(path, folder / f"{case.case_id}_{number:04d}{ending}", copy)
        return 0
    volumes = [read_volume(path, case.series) for path in case.images]
    if sum(volume.num_channels for volume in volumes) != len(channels):
        raise DatasetError(
            f"{case.images[0]}: does not hold the {len(channels)} channels declared.",
            remedy="Correct the file, or leave this case out.",
        )
    if ending not in PICTURES:
        volumes = [replace(v, array=channel[None]) for v in volumes for channel in v.array]
    for number, volume in enumerate(volumes):
        write_volume(volume, folder / f"{case.case_id}_{number:04d}{ending}")
    return len(volumes)


def _put_label(case: Case, old: LabelSet, new: LabelSet, target: Path, copy: bool) -> bool:
    """Put a label in place; tell whether it had to be written anew."""
    assert case.label is not None
    ending = _suffix(target)
    # nnU-Net takes a palette's colours for the values, which are its indices
    ready = _suffix(case.label) == ending and not case.objects
    if ready and ending not in PICTURES and old == new:
        _put(case.label, target, copy)
        return False
    if has_structures(case.label):
        volume = case.read_label(old, read_volume(case.images[0], case.series))
    else:
        volume = read_merged(case.label_files, old)
    write_volume(replace(volume, array=new.decode(volume.array)), target)
    return True


def _put(path: Path, target: Path, copy: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if copy:
        copyfile(path, target)
    else:
        target.symlink_to(path.resolve())


def _description(cohort: Cohort, labels: LabelSet, ending: str) -> dict[str, Any]:
    named: dict[str, Any] = {"background": labels.background}
    drawn: list[int] = []
    regions = list(labels.regions.items())
    for position, index in labels.region_drawing:
        name, members = regions[position]
        values = [labels.values[member] for member in members]
        named[name] = values if len(values) > 1 else values[0]
        drawn.append(labels.values[labels.foreground[index - 1]])
    united = {member for members in labels.regions.values() for member in members}
    alone = {name: value for name, value in labels.values.items() if name not in united}
    named |= alone
    drawn += alone.values()
    if labels.ignore is not None:
        named["ignore"] = labels.ignore
    return {
        "name": cohort.name,
        "licence": cohort.licence,
        "reference": cohort.source,
        "channel_names": {str(number): name for number, name in enumerate(cohort.channels)},
        "labels": named,
        **({"regions_class_order": drawn} if regions else {}),
        "numTraining": len(cohort.cases),
        "file_ending": ending,
    }

"""nnU-Net v2, raw: ``imagesTr/CASE_0000.nii.gz``, ``labelsTr/CASE.nii.gz`` and ``dataset.json``.

F. Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical image
segmentation", Nature Methods 18, 2021; the layout is that of the project's own documentation,
"nnU-Net dataset format", version 2.

Choices: where labels are regions (lists of values), the values themselves have no names; they are
called ``label_1``, ``label_2``, ... and every declared name is a region. Entries of ``dataset``
stay in the folder; nnU-Net itself also follows them elsewhere.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import replace
from operator import index
from pathlib import Path
from typing import Any

from lamina.data.case import Case, patient_of
from lamina.data.cohort import Cohort
from lamina.data.layouts import LAYOUTS, Layout
from lamina.data.layouts.listing import check_listed, inside
from lamina.data.layouts.msd import draws_regions, label_set, lists_cases
from lamina.data.layouts.pairing import Unpaired, check_channels, find_unpaired
from lamina.data.layouts.table import has_table
from lamina.errors import DatasetError, LabelError, LaminaError
from lamina.files import read_json
from lamina.io import is_scan
from lamina.labels import LabelSet
from lamina.terminology import read_terms

_REQUIRED = ("channel_names", "labels", "file_ending")
CHANNEL = re.compile(r"(.+)_(\d{4})")
"""Name of a file that holds one channel of a case: the case's, and the channel's number."""
PICTURES = (".png", ".bmp", ".tif")
"""Endings whose files hold all channels at once."""


def has_description(folder: Path) -> bool:
    """Tell whether a file in the folder says what its cases are, so that nobody needs to guess."""
    return lists_cases(folder) or has_table(folder) or _matches(folder)


def _matches(folder: Path) -> bool:
    if not (folder / "dataset.json").is_file() or lists_cases(folder):
        return False
    return "file_ending" in read_json(folder / "dataset.json")


def read(folder: Path) -> Cohort:
    """List the cases; see :class:`~lamina.data.layouts.Layout`."""
    path = folder / "dataset.json"
    data = read_json(path)
    if not isinstance(data, dict) or any(key not in data for key in _REQUIRED):
        raise DatasetError(
            f"{path}: not an nnU-Net description.", remedy=f"It needs {', '.join(_REQUIRED)}."
        )
    try:
        channels = _channels(data["channel_names"])
        labels = labels_of(data["labels"], data.get("regions_class_order"))
        labels = replace(labels, terms=read_terms(data.get("terms", {})))
    except LaminaError as error:
        raise type(error)(f"{path}: {error.message}", remedy=error.remedy) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be understood: {error!r}.") from error
    unpaired: Unpaired = {}
    if "dataset" in data:
        cases = _listed(path, data["dataset"])
    else:
        cases, unpaired = _found(folder, data["file_ending"], channels)
    expected = data.get("numTraining", len(cases))
    if expected != len(cases) and not unpaired:
        raise DatasetError(
            f"{path}: numTraining is {expected}, {len(cases)} cases are there.",
            remedy="Bring the missing files, or correct the number.",
        )
    return Cohort(
        name=str(data.get("name") or folder.name),
        channels=channels,
        labels=labels,
        region_based="regions_class_order" in data and draws_regions(labels, path),
        cases=cases,
        licence=str(data.get("licence") or data.get("license") or ""),
        source=str(data.get("reference") or ""),
        unpaired=unpaired,
    )


def _channels(names: Mapping[str, Any]) -> tuple[str, ...]:
    numbers = sorted(names, key=int)
    if not numbers or [int(number) for number in numbers] != list(range(len(numbers))):
        raise DatasetError(
            f"channel_names has the keys {numbers[:5]}.", remedy="They count from 0 without gaps."
        )
    return tuple(str(names[number]) for number in numbers)


def labels_of(labels: Mapping[str, Any], drawn: list[int] | None) -> LabelSet:
    """Read labels; where some are lists, all but background and ignore are regions.

    Args:
        labels: The value of each, or the values of which it is made.
        drawn: ``regions_class_order``, where there is one.

    Raises:
        LabelError, DatasetError: They contradict each other.
        TypeError: A value is no number.
    """
    members = {
        str(name): tuple(map(index, value)) if isinstance(value, list) else (index(value),)
        for name, value in labels.items()
    }
    special = {
        name: value[0] for name, value in members.items() if name in ("background", "ignore")
    }
    if special.get("background") != 0:
        raise LabelError("labels: the background is not declared as 0.")
    regions = {name: values for name, values in members.items() if name not in special}
    if all(len(values) == 1 for values in regions.values()):
        return label_set({name: values[0] for name, values in members.items()})
    _check_drawn(regions, drawn)
    names = {value: f"label_{value}" for value in sorted({v for r in regions.values() for v in r})}
    return LabelSet(
        values={name: value for value, name in names.items()},
        regions={name: tuple(names[v] for v in values) for name, values in regions.items()},
        ignore=special.get("ignore"),
    )


def _check_drawn(regions: Mapping[str, tuple[int, ...]], drawn: list[int] | None) -> None:
    if drawn is None:
        return
    fits = len(drawn) == len(regions)
    if not fits or any(v not in r for v, r in zip(drawn, regions.values(), strict=True)):
        raise DatasetError(
            f"regions_class_order {drawn} does not fit the regions {dict(regions)}.",
            remedy="It has one value for each region, one of its own.",
        )


def _listed(path: Path, entries: Mapping[str, Mapping[str, Any]]) -> tuple[Case, ...]:
    try:
        cases = tuple(
            Case(
                case_id=case_id,
                group=patient_of(case_id),
                images=tuple(inside(path, image) for image in entry["images"]),
                label=inside(path, entry["label"]),
            )
            for case_id, entry in entries.items()
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: dataset cannot be understood: {error!r}.",
            remedy="It gives each case images (a list of files) and a label.",
        ) from error
    check_listed(path, cases)
    return cases


def _found(
    folder: Path, ending: str, channels: tuple[str, ...]
) -> tuple[tuple[Case, ...], Unpaired]:
    """Pair up the files of imagesTr and labelsTr; tell why others belong to no case too."""
    labels, images = _files(folder / "labelsTr", ending), _images(folder, ending)
    numbers = {number for found in images.values() for number in found}
    needed = channels[:1] if ending in PICTURES and numbers == {0} else channels
    faults = {
        case_id: fault for case_id, found in images.items() if (fault := _fault(found, needed))
    }
    check_channels(
        folder / "imagesTr",
        faults,
        len(images),
        f"Bring a file for each of the {len(channels)} channels of dataset.json, numbered from "
        "_0000, or correct channel_names there.",
    )
    cases = tuple(
        Case(
            case_id=case_id,
            group=patient_of(case_id),
            images=tuple(found[number] for number in sorted(found)),
            label=labels[case_id],
        )
        for case_id, found in images.items()
        if case_id in labels and case_id not in faults
    )
    scans = {case_id: [found[n] for n in sorted(found)] for case_id, found in images.items()}
    return cases, find_unpaired(scans, {name: [path] for name, path in labels.items()}, faults)


def _images(folder: Path, ending: str) -> dict[str, dict[int, Path]]:
    """Return the files of imagesTr by case and number of the channel."""
    images: dict[str, dict[int, Path]] = defaultdict(dict)
    for name, path in _files(folder / "imagesTr", ending).items():
        match = CHANNEL.fullmatch(name)
        if match is None:
            raise DatasetError(
                f"{path}: does not tell which channel it is.",
                remedy=f"Call it {name}_0000{ending} if it is the first.",
            )
        images[match[1]][int(match[2])] = path
    return images


def _fault(found: Collection[int], channels: tuple[str, ...]) -> str:
    """Tell what is wrong with the numbers of a case's channels; empty where nothing is."""
    if {*found} - {*range(len(channels))}:
        return f"has channels {', '.join(map(str, sorted(found)))}; {len(channels)} are declared"
    lacking = [f"{name} (_{n:04d})" for n, name in enumerate(channels) if n not in found]
    return f"lacks {', '.join(lacking)}" if lacking else ""


def _files(folder: Path, ending: str) -> dict[str, Path]:
    """Return the scans of a folder by their name without the ending."""
    if not is_scan(f"scan{ending}"):
        raise DatasetError(
            f"{folder.parent / 'dataset.json'}: file_ending {ending!r} is no known scan format."
        )
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder.", remedy="nnU-Net's layout has it.")
    shown = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    paths = [path for path in shown if path.name.endswith(ending)]
    if not paths:
        raise DatasetError(
            f"{folder}: holds no files that end in {ending}.",
            remedy="Correct file_ending in dataset.json.",
        )
    return {path.name[: -len(ending)]: path for path in paths}


LAYOUTS.register("nnunet")(
    Layout("imagesTr/, labelsTr/ and dataset.json with file_ending", _matches, read)
)

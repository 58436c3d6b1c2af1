"""Two plain folders, ``images/`` and ``labels/``, whose files pair up by name."""

from pathlib import Path

import numpy as np

from lamina.data.case import Case, Cohort, patient_of
from lamina.data.layouts import LAYOUTS, Layout
from lamina.data.layouts.msd import label_set
from lamina.errors import DatasetError
from lamina.files import read_json
from lamina.io import is_scan, read_labels, read_volume, strip_suffix
from lamina.labels import LabelSet

_IMAGES = ("images", "imagesTr")
_LABELS = ("labels", "labelsTr", "masks")


def _matches(folder: Path) -> bool:
    return all(any((folder / name).is_dir() for name in names) for names in (_IMAGES, _LABELS))


def _read(folder: Path) -> Cohort:
    images, labels = (_scans(folder, names) for names in (_IMAGES, _LABELS))
    lonely = sorted(images.keys() ^ labels.keys())
    if lonely:
        raise DatasetError(
            f"{folder}: {len(lonely)} files have no partner of the same name: {lonely[:5]}.",
            remedy="Give image and label the same name, or move the others away.",
        )
    if not images:
        raise DatasetError(f"{folder}: holds no scans.")
    cases = tuple(
        Case(case_id=case_id, group=patient_of(case_id), images=(path,), label=labels[case_id])
        for case_id, path in images.items()
    )
    description = folder / "dataset.json"
    data = read_json(description) if description.is_file() else {}
    channels = data.get("modality") or data.get("channel_names")
    return Cohort(
        name=str(data.get("name") or folder.name),
        channels=tuple(channels.values()) if channels else _guess_channels(cases[0]),
        labels=label_set(data["labels"]) if "labels" in data else _found_labels(cases),
        cases=cases,
        licence=str(data.get("licence") or data.get("license") or ""),
    )


def _scans(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    home = next((folder / name for name in names if (folder / name).is_dir()), None)
    if home is None:
        raise DatasetError(f"{folder}: has none of the folders {', '.join(names)}.")
    return {strip_suffix(path): path for path in sorted(home.iterdir()) if is_scan(path)}


def _guess_channels(case: Case) -> tuple[str, ...]:
    count = sum(read_volume(path).num_channels for path in case.images)
    return tuple(f"channel_{i}" for i in range(count))


def _found_labels(cases: tuple[Case, ...]) -> LabelSet:
    """Name labels after the values that occur, since nobody declared them."""
    found: set[int] = set()
    for case in cases:
        if case.label is not None:
            found |= {int(value) for value in np.unique(read_labels(case.label).array)}
    return LabelSet(values={f"label_{value}": value for value in sorted(found - {0})})


LAYOUTS.register("folders")(
    Layout("images/ and labels/ with files of the same names", _matches, _read)
)

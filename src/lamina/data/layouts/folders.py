"""Two plain folders, ``images/`` and ``labels/``, whose files pair up by name."""

from pathlib import Path
from typing import Any

from lamina.data.case import Case, Cohort, patient_of
from lamina.data.layouts import LAYOUTS, Layout
from lamina.data.layouts.msd import lists_cases, read_task
from lamina.data.layouts.pairing import no_pairs
from lamina.data.layouts.undeclared import found_labels, guess_channels
from lamina.errors import DatasetError
from lamina.io import is_scan, strip_suffix

_IMAGES = ("images", "imagesTr")
_LABELS = ("labels", "labelsTr", "masks")


def _matches(folder: Path) -> bool:
    both = all(any((folder / name).is_dir() for name in names) for names in (_IMAGES, _LABELS))
    return both and not lists_cases(folder)


def _read(folder: Path) -> Cohort:
    images, labels = (_scans(folder, names) for names in (_IMAGES, _LABELS))
    unpaired = tuple((images | labels)[name] for name in sorted(images.keys() ^ labels.keys()))
    if not images.keys() & labels.keys():
        raise no_pairs(folder, [*images.values()], [*labels.values()])
    cases = tuple(
        Case(case_id=case_id, group=patient_of(case_id), images=(path,), label=labels[case_id])
        for case_id, path in images.items()
        if case_id in labels
    )
    description = folder / "dataset.json"
    task: dict[str, Any] = {"name": folder.name}
    if description.is_file():
        task = read_task(description)
    if "channels" not in task:
        task["channels"] = guess_channels(cases)
    if "labels" not in task:
        task["labels"] = found_labels(cases)
    return Cohort(cases=cases, unpaired=unpaired, **task)


def _scans(folder: Path, names: tuple[str, ...]) -> dict[str, Path]:
    home = next((folder / name for name in names if (folder / name).is_dir()), None)
    if home is None:
        raise DatasetError(f"{folder}: has none of the folders {', '.join(names)}.")
    scans: dict[str, Path] = {}
    for path in sorted(path for path in home.iterdir() if is_scan(path)):
        first = scans.setdefault(strip_suffix(path), path)
        if first != path:
            raise DatasetError(
                f"{home}: {first.name} and {path.name} have one name.",
                remedy="Keep one of them, or rename it.",
            )
    return scans


LAYOUTS.register("folders")(
    Layout("images/ and labels/ with files of the same names", _matches, _read, fallback=True)
)

"""Two plain folders, ``images/`` and ``labels/``, whose files pair up by name."""

from pathlib import Path

from lamina.data.case import Case, patient_of
from lamina.data.cohort import Cohort
from lamina.data.layouts import LAYOUTS, Layout
from lamina.data.layouts.msd import lists_cases
from lamina.data.layouts.pairing import find_unpaired, no_pairs
from lamina.data.layouts.table import make_cohort
from lamina.errors import DatasetError
from lamina.io import is_scan, strip_suffix

_IMAGES = ("images", "imagesTr")
_LABELS = ("labels", "labelsTr", "masks")


def _matches(folder: Path) -> bool:
    both = all(any((folder / name).is_dir() for name in names) for names in (_IMAGES, _LABELS))
    return both and not lists_cases(folder)


def _read(folder: Path) -> Cohort:
    images, labels = (_scans(folder, names) for names in (_IMAGES, _LABELS))
    if not images.keys() & labels.keys():
        raise no_pairs(folder, [*images.values()], [*labels.values()])
    cases = tuple(
        Case(case_id=case_id, group=patient_of(case_id), images=(path,), label=labels[case_id])
        for case_id, path in images.items()
        if case_id in labels
    )
    files = [{name: [path] for name, path in scans.items()} for scans in (images, labels)]
    return make_cohort(folder, cases, unpaired=find_unpaired(files[0], files[1], {}))


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

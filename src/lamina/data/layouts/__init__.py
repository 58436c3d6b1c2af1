"""How people lay out labelled scans in folders; each layout is one file here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lamina.data.cohort import Cohort
from lamina.data.layouts.undeclared import RESIZED
from lamina.errors import DatasetError, LabelError, some
from lamina.registry import Registry


@dataclass(frozen=True)
class Layout:
    """One way of laying out a dataset."""

    description: str
    """What the folder looks like, for messages."""
    matches: Callable[[Path], bool]
    """Tells from file names alone whether a folder is laid out so."""
    read: Callable[[Path], Cohort]
    """Lists the cases, or raises a ``DatasetError`` when the folder contradicts itself."""
    fallback: bool = False
    """Taken only where no other layout matches."""


LAYOUTS: Registry[Layout] = Registry("layout", __name__)


def read_cohort(folder: Path, layout: str | None = None, *, partial: bool = False) -> Cohort:
    """List the labelled scans of a dataset folder.

    Args:
        folder: The dataset.
        layout: A registered layout; by default the one that matches.
        partial: List the whole cases, although others lack files or have too many.

    Raises:
        DatasetError: No folder, no known layout or several, or one that contradicts itself; cases
            that lack files or have too many, unless ``partial``.
        LabelError: Masks that seem resized, unless ``partial``.
        UnknownNameError: ``layout`` is not registered.
    """
    if folder.is_file():
        raise DatasetError(
            f"{folder}: is a file.", remedy="Give the dataset's folder; a list is cases.csv in it."
        )
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder.", remedy="Give the dataset's folder.")
    folder = folder.resolve()  # the cohort is used later, from wherever the user then is
    cohort = LAYOUTS.get(layout or _recognise(folder)).read(folder)
    if cohort.unpaired and not partial:
        total = len(cohort.unpaired) + len(cohort.cases)
        raise DatasetError(
            f"{folder}: {len(cohort.unpaired)} of {total} cases cannot be used: "
            f"{some(cohort.unpaired, 5, separator='; ')}.",
            remedy="Bring what is missing under the same name, and move away what is too much; "
            "lamina doctor --fix copies the others.",
        )
    if cohort.odd_labels and not partial:
        names = (path.relative_to(folder).as_posix() for path in cohort.odd_labels)
        raise LabelError(
            f"{folder}: masks of many values, where nobody declared any: {some(names)}. Resized?",
            remedy=RESIZED,
        )
    return cohort


def _recognise(folder: Path) -> str:
    names = [name for name in LAYOUTS if LAYOUTS.get(name).matches(folder)]
    names = [name for name in names if not LAYOUTS.get(name).fallback] or names
    if len(names) > 1:
        raise DatasetError(
            f"{folder}: could be laid out as {' or as '.join(names)}.",
            remedy=f"Say which with --layout, such as --layout {names[0]}.",
        )
    if names:
        return names[0]
    if not any(folder.iterdir()):
        raise DatasetError(f"{folder}: is empty.", remedy="Give the dataset's folder.")
    known = "".join(f"\n  {name}: {LAYOUTS.get(name).description}" for name in LAYOUTS)
    raise DatasetError(f"{folder}: layout not recognised.", remedy=f"Known layouts:{known}")

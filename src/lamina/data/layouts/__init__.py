"""How people lay out labelled scans in folders; each layout is one file here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lamina.data.case import Cohort
from lamina.errors import DatasetError
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


LAYOUTS: Registry[Layout] = Registry("layout", __name__)


def read_cohort(folder: Path, layout: str | None = None) -> Cohort:
    """List the labelled scans of a dataset folder.

    Args:
        folder: The dataset.
        layout: A registered layout; by default the first that matches.

    Raises:
        DatasetError: No folder, no known layout, or a layout that contradicts itself.
        UnknownNameError: ``layout`` is not registered.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}: no such folder.", remedy="Give the dataset's folder.")
    folder = folder.resolve()  # the cohort is used later, from wherever the user then is
    if layout:
        return LAYOUTS.get(layout).read(folder)
    for name in LAYOUTS:
        if LAYOUTS.get(name).matches(folder):
            return LAYOUTS.get(name).read(folder)
    known = "; ".join(f"{name}: {LAYOUTS.get(name).description}" for name in LAYOUTS)
    raise DatasetError(f"{folder}: layout not recognised.", remedy=f"Known layouts: {known}.")

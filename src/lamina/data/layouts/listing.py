"""Files that a list names: where they may lie, and that each is there once."""

from collections.abc import Sequence
from pathlib import Path

from lamina.data.case import Case
from lamina.errors import DatasetError, repeated


def inside(source: Path, name: str) -> Path:
    """Return the path of a file that ``source`` names, relative to the folder of ``source``.

    It is judged as it is written: the folder itself may well hold links to where the scans are.

    Raises:
        DatasetError: It lies outside the folder.
    """
    if Path(name).anchor or ".." in Path(name).parts:
        raise DatasetError(
            f"{source}: {name} lies outside the dataset.",
            remedy="Bring the file, or a link to it, into the folder and give its relative path.",
        )
    return source.parent / name


def check_listed(source: Path, cases: Sequence[Case]) -> None:
    """Check that the files of cases that ``source`` lists exist, and that none is listed twice.

    Raises:
        DatasetError: Otherwise; five of them are named.
    """
    files = [path for case in cases for path in (*case.images, *case.label_files)]
    if missing := [str(path.relative_to(source.parent)) for path in files if not path.is_file()]:
        raise DatasetError(
            f"{source}: {len(missing)} files that it lists do not exist: {missing[:5]}.",
            remedy="Bring the files, or correct the list.",
        )
    if twice := repeated(str(path.relative_to(source.parent)) for path in files):
        raise DatasetError(
            f"{source}: files are listed more than once: {twice}.",
            remedy="Correct the list: each image has a label of its own.",
        )

"""A table of paths: ``cases.csv`` or ``cases.json`` says which files belong together.

One row, or one object of a JSON list, is one case. Columns: ``image``, or one column per channel
called ``image_T1``, ``image_FLAIR``, ...; ``label``; and, where wanted, ``case_id`` (by default the
name of the first image), ``patient`` or ``group`` (by default taken from the case id), ``split``
(train, val or test) and ``pixel_size_mm`` of pictures, which cannot tell it. Other columns are not
looked at. Paths are relative to the table and stay in its folder. A ``dataset.json`` beside it may
name the labels, and the channels of images that hold several.
"""

import csv
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from lamina.data.case import Case, patient_of
from lamina.data.cohort import Cohort
from lamina.data.layouts import LAYOUTS, Layout
from lamina.data.layouts.listing import check_listed, inside
from lamina.data.layouts.msd import read_task
from lamina.data.layouts.undeclared import found_labels, guess_channels
from lamina.errors import DatasetError, FileError, repeated
from lamina.files import read_json
from lamina.io import strip_suffix

Row = dict[str, str]
"""Column -> cell, without blanks around it."""

_TABLES = ("cases.csv", "cases.json")
_DELIMITERS = ",;\t"
_SIDES = {"": "", "train": "train", "val": "val", "validation": "val", "test": "test"}


def has_table(folder: Path) -> bool:
    """Tell whether the folder holds a table of its cases."""
    return any((folder / name).is_file() for name in _TABLES)


def read_table(path: Path) -> list[Row]:
    """Read a table whose first line names its columns, split by commas, semicolons or tabs.

    Raises:
        FileError: It is missing, unreadable, or no text.
        DatasetError: Two columns share a name, a row has too many cells, or there are no rows.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        delimiter = max(_DELIMITERS, key=text.partition("\n")[0].count)
        lines = list(csv.reader(StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise FileError(
            f"{path}: not a table: {error}.", remedy="Save it again as CSV in UTF-8."
        ) from error
    rows = [[cell.strip() for cell in line] for line in lines if any(map(str.strip, line))]
    header = rows[0] if rows else []
    if twice := repeated(header):
        raise DatasetError(f"{path}: columns are named twice: {twice}.", remedy="Rename one.")
    if long := [number for number, row in enumerate(rows, 1) if len(row) > len(header)]:
        raise DatasetError(
            f"{path}: rows have more cells than there are columns: {long[:5]}.",
            remedy="Put cells that hold the separator between quotation marks.",
        )
    if len(rows) < 2:
        raise DatasetError(f"{path}: has no rows.")
    return [dict.fromkeys(header, "") | dict(zip(header, row, strict=False)) for row in rows[1:]]


def told_of(source: Path, row: Row, case_id: str) -> dict[str, Any]:
    """Return what a row tells of a case besides its files: fields of a ``Case``.

    Raises:
        DatasetError: The side of the split or the size of a pixel makes no sense.
    """
    group = row.get("group") or row.get("patient") or patient_of(case_id)
    split, size = row.get("split", ""), row.get("pixel_size_mm", "")
    if split.lower() not in _SIDES:
        raise DatasetError(
            f"{source}: {case_id}: split is {split!r}.", remedy="It is train, val or test."
        )
    told: dict[str, Any] = {"case_id": case_id, "group": group, "side": _SIDES[split.lower()]}
    if size:
        try:
            told["spacing"] = (float(size), float(size))
        except ValueError as error:
            raise DatasetError(f"{source}: {case_id}: pixel_size_mm is {size!r}.") from error
    return told


def make_cohort(folder: Path, cases: Sequence[Case], **known: Any) -> Cohort:
    """Gather cases; what neither is known nor stands in ``dataset.json`` is found in the files.

    Args:
        folder: The dataset, after which it is named.
        cases: Labelled scans.
        known: Fields of a :class:`~lamina.data.cohort.Cohort`; ``dataset.json`` overrules them.

    Raises:
        DatasetError: There are no cases, or nothing can be read.
        LabelError: No label occurs, or those declared contradict themselves.
    """
    if not cases:
        raise DatasetError(
            f"{folder}: holds no scans with a label.", remedy="Bring the labels beside the scans."
        )
    description = folder / "dataset.json"
    declared = read_task(description) if description.is_file() else {}
    task: dict[str, Any] = {"name": folder.name} | known | declared
    if "channels" not in task:
        task["channels"] = guess_channels(cases)
    if "labels" not in task:
        task["labels"], task["odd_labels"] = found_labels(cases)
    return Cohort(cases=tuple(cases), **task)


def _read(folder: Path) -> Cohort:
    found = [folder / name for name in _TABLES if (folder / name).is_file()]
    if len(found) != 1:
        raise DatasetError(
            f"{folder}: has {len(found)} of the tables {' and '.join(_TABLES)}.",
            remedy="Keep one.",
        )
    table = found[0]
    rows = _read_json_rows(table) if table.suffix == ".json" else read_table(table)
    columns = _image_columns(table, rows[0])
    cases = [_case(table, number, row, columns) for number, row in enumerate(rows, 1)]
    check_listed(table, cases)
    if columns == ["image"]:
        return make_cohort(folder, cases)
    names = tuple(column.removeprefix("image_") for column in columns)
    return make_cohort(folder, cases, channels=names)


def _read_json_rows(path: Path) -> list[Row]:
    data = read_json(path)
    rows = data if isinstance(data, list) else []
    if not rows or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(
            f"{path}: not a list of cases.",
            remedy='It needs the form [{"image": "a.nii.gz", "label": "a_label.nii.gz"}, ...].',
        )
    for number, row in enumerate(rows, 1):
        if odd := [key for key, cell in row.items() if isinstance(cell, (list, dict))]:
            raise DatasetError(
                f"{path}: row {number}: {odd[:5]} must be plain text or numbers.",
                remedy="Give channels in separate files as image_T1, image_T2 and so on.",
            )
    return [
        {key: "" if cell is None else str(cell).strip() for key, cell in row.items()}
        for row in rows
    ]


def _image_columns(table: Path, row: Row) -> list[str]:
    columns = [name for name in row if name == "image" or name.startswith("image_")]
    if not columns or "label" not in row or ("image" in columns and len(columns) > 1):
        raise DatasetError(
            f"{table}: has the columns {', '.join(row)}.",
            remedy="It needs label, and either image or one column per channel such as image_T1.",
        )
    return columns


def _case(table: Path, number: int, row: Row, columns: Sequence[str]) -> Case:
    if empty := [name for name in (*columns, "label") if not row.get(name)]:
        raise DatasetError(
            f"{table}: row {number} has no {' and no '.join(empty)}.",
            remedy="Every case needs all its images and a label; take the row out otherwise.",
        )
    images = tuple(inside(table, row[name]) for name in columns)
    case_id = row.get("case_id") or strip_suffix(images[0])
    label = inside(table, row["label"])
    return Case(images=images, label=label, **told_of(table, row, case_id))


LAYOUTS.register("table")(
    Layout("cases.csv or cases.json with the columns image and label", has_table, _read)
)

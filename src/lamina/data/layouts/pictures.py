"""Pictures and masks of them: PNG, JPEG, TIFF or BMP.

Either ``images/`` and ``masks/`` (or ``labels/``) with files of the same names, or any folders in
which the mask of ``x.jpg`` is called ``x_mask.png`` or ``x_segmentation.png``; ``x_mask_1.png`` and
so on are further objects, laid over one another. A ``split.csv`` with the columns ``image`` and
``mask`` lists the pairs instead; ``group`` (or ``patient``), ``split`` and ``pixel_size_mm`` are as
in ``cases.csv``. Values are those of the files: the structure of a mask of 0 and 255 has the value
255.
"""

import re
from collections import defaultdict
from dataclasses import replace
from itertools import chain
from pathlib import Path

from lamina.data.case import Case, patient_of
from lamina.data.cohort import Cohort
from lamina.data.layouts import LAYOUTS, Layout
from lamina.data.layouts.listing import check_listed, inside
from lamina.data.layouts.nnunet import has_description
from lamina.data.layouts.pairing import Unpaired, find_unpaired, no_pairs
from lamina.data.layouts.table import make_cohort, read_table, told_of
from lamina.errors import DatasetError
from lamina.io import is_scan, strip_suffix

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_IMAGES = ("images",)
_MASKS = ("masks", "labels")
_MASK = re.compile(r"(.+)_(?:mask|segmentation)(?:_\d+)?", re.IGNORECASE)
_COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}
_SPLIT = "split.csv"


def _matches(folder: Path) -> bool:
    if has_description(folder):
        return False
    found = _pictures(folder)
    return bool(found) and ((folder / _SPLIT).is_file() or any(_is_mask(path) for path in found))


def _read(folder: Path) -> Cohort:
    table = folder / _SPLIT
    cases, unpaired = (_listed(table), {}) if table.is_file() else _paired(folder)
    cohort = make_cohort(folder, cases, unpaired=unpaired)
    if cohort.channels[0] != "channel_0":
        return cohort
    return replace(cohort, channels=_COLOURS.get(len(cohort.channels), cohort.channels))


def _pictures(folder: Path) -> list[Path]:
    """Return the pictures in ``images/`` and ``masks/``, or else in the folder and those in it."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    pair = [name for name in names if name in (*_IMAGES, *_MASKS)]
    both = not {*pair}.isdisjoint(_IMAGES) and not {*pair}.isdisjoint(_MASKS)
    homes = [folder / name for name in pair] if both else [folder, *(folder / n for n in names)]
    found = [path for home in homes for path in sorted(home.iterdir()) if is_scan(path)]
    return [path for path in found if path.suffix.lower() in _SUFFIXES]


def _is_mask(path: Path) -> bool:
    return path.parent.name in _MASKS or _MASK.fullmatch(strip_suffix(path)) is not None


def _listed(table: Path) -> list[Case]:
    rows = read_table(table)
    if strange := [name for name in ("image", "mask") if not all(row.get(name) for row in rows)]:
        raise DatasetError(
            f"{table}: not every row has {' and '.join(strange)}.",
            remedy="It needs the columns image and mask, and if wanted group and split.",
        )
    cases = [
        Case(
            images=(inside(table, row["image"]),),
            label=inside(table, row["mask"]),
            **told_of(table, row, strip_suffix(row["image"])),
        )
        for row in rows
    ]
    check_listed(table, cases)
    return cases


def _paired(folder: Path) -> tuple[list[Case], Unpaired]:
    """Return the cases, and why other pictures and masks belong to none."""
    images, masks = defaultdict[str, list[Path]](list), defaultdict[str, list[Path]](list)
    for path in _pictures(folder):
        name = strip_suffix(path)
        match = _MASK.fullmatch(name)
        (masks if _is_mask(path) else images)[match[1] if match else name].append(path)
    if not images.keys() & masks.keys():
        raise no_pairs(folder, [*chain(*images.values())], [*chain(*masks.values())])
    if twice := [name for name, paths in images.items() if len(paths) > 1]:
        raise DatasetError(
            f"{folder}: pictures have one name: {twice[:5]}.", remedy="Rename one of them."
        )
    cases = [
        Case(
            case_id=name,
            group=patient_of(name),
            images=tuple(paths),
            label=masks[name][0],
            objects=tuple(masks[name][1:]),
        )
        for name, paths in images.items()
        if name in masks
    ]
    return cases, find_unpaired(images, masks, {})


LAYOUTS.register("pictures")(Layout("images/ and masks/, or x.png and x_mask.png", _matches, _read))

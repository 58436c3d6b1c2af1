"""Scans to segment: a file, a series, or a folder of such, as cases."""

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path

from lamina.data.case import Case
from lamina.data.layouts.nnunet import CHANNEL
from lamina.errors import ConfigError, DatasetError
from lamina.io import FORMATS, is_scan, strip_suffix
from lamina.io.dicom_series import (
    has_dicom_suffix,
    holds_series,
    images_in,
    is_about_images,
    is_about_others,
    is_series,
)

_log = logging.getLogger(__name__)


def scans_in(inputs: Path, num_channels: int) -> tuple[Case, ...]:
    """Return a scan, or those of a folder, as cases named after their files or series' folders.

    Args:
        inputs: The scan or folder.
        num_channels: How many the model takes; files that hold one each are put together, be it
            that the first alone is given.

    Raises:
        DatasetError: There are none.
    """
    if not inputs.exists():
        raise DatasetError(f"{inputs}: no such file or folder.", remedy="Give a scan or a folder.")
    if inputs.is_dir() and _is_series(inputs):
        return (Case(case_id=inputs.resolve().name, group="", images=(inputs,)),)
    paths = _files_in(inputs) if inputs.is_dir() else _with_channels(inputs, num_channels)
    files = [Case(case_id=strip_suffix(p), group="", images=(p,)) for p in paths]
    cases = _by_channel(files, num_channels)
    if inputs.is_dir():
        cases += _series_in(inputs, {case.case_id for case in cases})
    if not cases:
        raise _no_scans(inputs)
    return cases


def scan_of(images: Sequence[str | Path], num_channels: int) -> Case:
    """Return a scan that is given as files.

    Args:
        images: One per channel, one that holds them all, or the folder of a DICOM series.
        num_channels: As for :func:`scans_in`.

    Raises:
        DatasetError: There are none.
        FileError: The suffix is of no known format.
    """
    files = [Path(image) for image in images]
    if not files:
        raise DatasetError("images: none are given.", remedy="Give a scan.")
    if len(files) == 1 and files[0].is_file():
        files = _with_channels(files[0], num_channels)
    return Case(case_id="scan", group="", images=tuple(files))


def _named_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_scan(path))


def _is_series(folder: Path) -> bool:
    return all(map(has_dicom_suffix, _named_in(folder))) and is_series(folder)


def _files_in(folder: Path) -> list[Path]:
    """Return the files in a folder that are a scan each.

    Where there is nothing but DICOM, those without a suffix count too, and objects that are about
    the scans do not.
    """
    named = _named_in(folder)
    if not all(map(has_dicom_suffix, named)):
        return named
    return sorted({*images_in(folder), *(path for path in named if not is_about_images(path))})


def _no_scans(inputs: Path) -> DatasetError:
    folders = (p for depth in ("*/*", "*/*/*") for p in sorted(inputs.glob(depth)) if p.is_dir())
    if deeper := next(filter(holds_series, folders), None):
        return DatasetError(
            f"{inputs}: holds no scans itself; {deeper} holds a DICOM series.",
            remedy=f"Give {deeper.parent}, or another folder that holds series.",
        )
    return DatasetError(
        f"{inputs}: holds no scans.",
        remedy="Give a scan, a folder of scans, the folder of a DICOM series, or one of such.",
    )


def _series_in(inputs: Path, taken: Collection[str]) -> tuple[Case, ...]:
    """Return the folders in a folder that hold a DICOM series, as cases.

    Where there is nothing but folders, all were meant to hold one, but for those of objects about
    the series. Beside files, one of the same name is taken for another form of that scan.
    """
    folders = sorted(p for p in inputs.iterdir() if p.is_dir() and not p.name.startswith("."))
    chosen = list(filter(holds_series, folders))
    if chosen and not taken:
        chosen = [p for p in folders if p in chosen or not is_about_others(p)]
    for twin in (folder for folder in chosen if folder.name in taken):
        _log.warning("%s: left out beside the file of that name.", twin)
    names = (folder for folder in chosen if folder.name not in taken)
    return tuple(Case(case_id=folder.name, group="", images=(folder,)) for folder in names)


def _by_channel(cases: Sequence[Case], num_channels: int) -> tuple[Case, ...]:
    """Put together files that hold one channel of a scan each, as nnU-Net numbers them.

    Pictures hold all their colours, and numbers at their end are those of frames.

    Args:
        cases: Of one file each; those of which a channel is missing stay as they are.
        num_channels: How many the model takes.
    """
    files: dict[str, dict[int, Path]] = defaultdict(dict)
    for case in cases:
        name, number = _numbered(case.images[0])
        files[name][number] = case.images[0]
    numbers = range(num_channels if num_channels > 1 else 0)
    whole = {name for name, found in files.items() if found.keys() == {*numbers}}
    joined = []
    for case in cases:
        name, number = _numbered(case.images[0])
        if name not in whole:
            joined.append(case)
        elif number == 0:
            images = tuple(files[name][number] for number in numbers)
            joined.append(replace(case, case_id=name, images=images))
    return tuple(joined)


def _with_channels(file: Path, num_channels: int) -> list[Path]:
    """Return a file with those of the other channels, if just these are numbered on from it."""
    name, number = _numbered(file)
    ending = file.name.removeprefix(f"{name}_0000")
    files = [file.with_name(f"{name}_{each:04d}{ending}") for each in range(num_channels + 1)]
    beside = [path.is_file() for path in files]
    return files[:-1] if number == 0 and all(beside[:-1]) and not beside[-1] else [file]


def _numbered(file: Path) -> tuple[str, int]:
    """Return the scan that a file is of, and the channel; -1 where its name tells none."""
    stem = strip_suffix(file)
    match = CHANNEL.fullmatch(stem)
    if match is None or file.suffix.lower() in FORMATS.get("picture").suffixes:
        return stem, -1
    return match[1], int(match[2])


def sized(cases: Sequence[Case], pixel_size: float) -> tuple[Case, ...]:
    """Tell the cases that do not know it how large the pixels of pictures are.

    Raises:
        ConfigError: It is no length above 0.
    """
    if not 0 < pixel_size < inf:
        raise ConfigError(f"pixel_size = {pixel_size}: must be a length above 0, in mm.")
    spacing = (pixel_size, pixel_size)
    return tuple(replace(case, spacing=case.spacing or spacing) for case in cases)

"""Scans to segment: a file, a series, or a folder of such, as cases."""

import logging
from collections import defaultdict
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path

from lamina.data.case import Case
from lamina.data.layouts.nnunet import CHANNEL
from lamina.errors import ConfigError, DatasetError, LaminaError
from lamina.io import claim_of, dicom_series, is_scan, strip_suffix
from lamina.io.dicom_series import has_dicom_suffix, holds_series, is_about_others
from lamina.io.pictures import is_picture

_log = logging.getLogger(__name__)


def scans_in(inputs: Path, num_channels: int) -> tuple[Case, ...]:
    """Return a scan, or those of a folder, as cases named after their files or series' folders.

    Args:
        inputs: The scan or folder.
        num_channels: How many the model takes; files that hold one each are put together, be it
            that the first alone is given. Numbered files that hold them all are not.

    Raises:
        DatasetError: There are none.
    """
    if not inputs.exists():
        raise DatasetError(f"{inputs}: no such file or folder.", remedy="Give a scan or a folder.")
    paths = _scans_of(inputs) if inputs.is_dir() else _with_channels(inputs, num_channels)
    if inputs.is_dir() and paths == [inputs]:
        return (Case(case_id=inputs.resolve().name, group="", images=(inputs,)),)
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


def _scans_of(folder: Path) -> list[Path]:
    """Return the files in a folder that are a scan each, or the folder if it is one itself.

    Where there is nothing but DICOM, files without a suffix count too.
    """
    named = sorted(filter(is_scan, folder.iterdir()))
    return dicom_series.scans_in(folder) if all(map(has_dicom_suffix, named)) else named


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
        num_channels: How many the model takes. A file of the only one loses its number, too.
    """
    files: dict[str, list[tuple[int, Path]]] = defaultdict(list)
    for case in cases:
        name, number = _numbered(case.case_id, case.images[0])
        files[name].append((number, case.images[0]))
    keeps_name = _is_followed if num_channels == 1 else partial(_holds, num_channels=num_channels)
    channels: dict[str, tuple[Path, ...]] = {}
    for name, found in files.items():
        numbers, images = zip(*sorted(found), strict=True)
        if numbers == tuple(range(num_channels)) and not keeps_name(images[0]):
            channels[name] = images
    joined = []
    for case in cases:
        name, number = _numbered(case.case_id, case.images[0])
        if name not in channels:
            joined.append(case)
        elif number == 0:
            joined.append(replace(case, case_id=name, images=channels[name]))
    return tuple(joined)


def _with_channels(file: Path, num_channels: int) -> list[Path]:
    """Return a file with those of the other channels, if just these are numbered on from it."""
    name, number = _numbered(strip_suffix(file), file)
    ending = file.name.removeprefix(f"{name}_0000")
    files = [file.with_name(f"{name}_{each:04d}{ending}") for each in range(num_channels + 1)]
    beside = [path.is_file() for path in files]
    if number != 0 or not all(beside[:-1]) or beside[-1] or _holds(file, num_channels):
        return [file]
    return files[:-1]


def _is_followed(file: Path) -> bool:
    """Tell whether the file of a second channel lies beside that of the first."""
    return file.with_name(file.name.replace("_0000.", "_0001.")).is_file()


def _holds(file: Path, num_channels: int) -> bool:
    """Tell by its header whether a file holds so many channels, if it can be read."""
    with suppress(LaminaError, OSError):
        return claim_of(file).num_channels == num_channels
    return False


def _numbered(stem: str, file: Path) -> tuple[str, int]:
    """Return the scan that a file is of, and the channel; -1 where its name tells none."""
    match = CHANNEL.fullmatch(stem)
    if match is None or is_picture(file):
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

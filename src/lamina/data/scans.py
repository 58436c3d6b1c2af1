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
from lamina.io.dicom_series import has_dicom_suffix, holds_series, is_series

_log = logging.getLogger(__name__)


def scans_in(inputs: Path, num_channels: int = 1) -> tuple[Case, ...]:
    """Return a scan, or those of a folder, as cases named after their files or series' folders.

    Args:
        inputs: The scan or folder.
        num_channels: How many the model takes; files that hold one each are put together.

    Raises:
        DatasetError: There are none.
    """
    if not inputs.exists():
        raise DatasetError(f"{inputs}: no such file or folder.", remedy="Give a scan or a folder.")
    paths = sorted(p for p in inputs.iterdir() if is_scan(p)) if inputs.is_dir() else [inputs]
    if inputs.is_dir() and all(map(has_dicom_suffix, paths)) and is_series(inputs):
        return (Case(case_id=inputs.resolve().name, group="", images=(inputs,)),)
    files = [Case(case_id=strip_suffix(p), group="", images=(p,)) for p in paths]
    cases = _by_channel(files, num_channels)
    if inputs.is_dir():
        cases += _series_in(inputs, {case.case_id for case in cases})
    if not cases:
        raise DatasetError(
            f"{inputs}: holds no scans.",
            remedy="Give a scan, a folder of scans, the folder of a DICOM series, or one of such.",
        )
    return cases


def _series_in(inputs: Path, taken: Collection[str]) -> tuple[Case, ...]:
    """Return the folders in a folder that hold a DICOM series, as cases.

    Where there is nothing but folders, all were meant to hold one. Beside files, one of the same
    name is taken for another form of that scan.
    """
    folders = sorted(p for p in inputs.iterdir() if p.is_dir() and not p.name.startswith("."))
    found = list(filter(holds_series, folders))
    chosen = folders if found and not taken else found
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
        name, number = _numbered(case)
        files[name][number] = case.images[0]
    numbers = range(num_channels if num_channels > 1 else 0)
    whole = {name for name, found in files.items() if found.keys() == {*numbers}}
    joined = []
    for case in cases:
        name, number = _numbered(case)
        if name not in whole:
            joined.append(case)
        elif number == 0:
            images = tuple(files[name][number] for number in numbers)
            joined.append(replace(case, case_id=name, images=images))
    return tuple(joined)


def _numbered(case: Case) -> tuple[str, int]:
    """Return the scan that a file is of, and the channel; -1 where its name tells none."""
    match = CHANNEL.fullmatch(case.case_id)
    if match is None or case.images[0].suffix.lower() in FORMATS.get("picture").suffixes:
        return case.case_id, -1
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

"""Prepared cases on disk: plain arrays that are mapped into memory, whole or absent."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.data.case import Case
from lamina.data.intensity import normalise
from lamina.data.plan import Plan
from lamina.data.preprocess import Alignment
from lamina.data.straighten import straightened
from lamina.errors import DatasetError, FileError
from lamina.files import atomic_path, read_json, sha256, write_json
from lamina.geometry import spacing_of
from lamina.io import files_of
from lamina.labels import IGNORE_INDEX

_VERSION = 4
_POSITIONS = 20_000
_ARRAYS = ("image.npy", "label.npy", "positions.npy")
MAPS = "maps.npy"
"""Attention maps ``(h, *S)``, uint8, which ``attention-maps`` adds to a case."""


@dataclass(frozen=True)
class PreparedCase:
    """One case as training reads it.

    Arrays are mapped, not loaded, and anew at each access: a map that is kept holds a file open,
    and a process may open fewer files than a cohort has.
    """

    folder: Path
    with_maps: bool = False
    """Whether attention maps are read as further channels of the image."""
    blank_maps: int = 0
    """Channels of zeros read in their place, to rehearse what they cost before any is drawn."""

    @property
    def case_id(self) -> str:
        """The case's id, which is the name of its folder."""
        return self.folder.name

    @property
    def image(self) -> NDArray[np.float32]:
        """Normalised image ``(C, *S)`` on the prepared grid."""
        return self._map("image.npy")

    @property
    def num_maps(self) -> int:
        """Channels that attention maps add to the image."""
        return len(self._map(MAPS)) if self.with_maps else self.blank_maps

    def read(self, box: Sequence[slice | int] = ()) -> NDArray[np.float32]:
        """Return what a network sees of a box, or of all: image, then any maps, in memory."""
        place = (slice(None), *box)
        image = np.array(self.image[place])
        if self.with_maps:
            return append_maps(image, self._map(MAPS)[place])
        blank = np.zeros((self.blank_maps, *image.shape[1:]), np.uint8)
        return append_maps(image, blank) if self.blank_maps else image

    @property
    def label(self) -> NDArray[np.uint8]:
        """Class indices ``(1, *S)``; 255 is to be ignored."""
        return self._map("label.npy")

    @property
    def positions(self) -> dict[int, NDArray[np.int32]]:
        """Class index -> voxel positions ``(n, dims)`` drawn from that class, where it occurs."""
        rows = self._map("positions.npy")
        first = np.flatnonzero(np.diff(rows[:, 0], prepend=0))
        parts = np.split(rows[:, 1:], first)[1:]
        return dict(zip(rows[first, 0].tolist(), parts, strict=True))

    @cached_property
    def spacing(self) -> tuple[float, ...]:
        """Voxel size in mm of the prepared grid."""
        return tuple(read_json(self.folder / "case.json")["spacing"])

    @property
    def in_colour(self) -> bool:
        """Whether it was one picture in colour; not told of cases that older versions prepared."""
        return bool(read_json(self.folder / "case.json").get("in_colour"))

    def check(self) -> None:
        """Open the arrays once.

        Raises:
            FileError: One of them is missing or damaged.
        """
        for name in (*_ARRAYS, *[MAPS] * self.with_maps):
            self._map(name)

    def _map(self, name: str) -> NDArray[Any]:
        path = self.folder / name
        try:
            mapped: NDArray[Any] = np.load(path, mmap_mode="r")
        except (OSError, EOFError, ValueError) as error:
            raise FileError(
                f"{path}: missing or damaged ({type(error).__name__}).",
                remedy=f"Remove {self.folder} and run lamina prepare again.",
            ) from error
        return mapped


def prepare_case(
    case: Case, plan: Plan, cache: Path, *, resample_oblique: bool = False
) -> PreparedCase:
    """Store one case on the plan's grid and scale, unless that has been done already.

    Args:
        case: Its files.
        plan: Grid and scale.
        cache: Folder of prepared cases.
        resample_oblique: As for :func:`lamina.data.fingerprint.survey`.

    Raises:
        LaminaError: The case cannot be read or does not fit the plan; nothing is stored.
    """
    folder = cache / case.case_id
    key = _key(case, plan, resample_oblique)
    if _key_of(folder) == key:
        return PreparedCase(folder)
    image = case.read_image(plan.channels)
    label = case.read_label(plan.labels, image)
    image, label = straightened(image, label, resample_oblique)
    alignment = Alignment.of(image, plan, label.array)
    prepared = alignment.prepare_image(image.array)
    normalise(prepared, plan.normalisation, image.source, out=prepared)
    indices = alignment.prepare_label(label.array)
    spacing = spacing_of(alignment.prepared_affine, plan.spatial_dims)
    with atomic_path(folder) as part:
        part.mkdir()
        np.save(part / "image.npy", prepared)
        np.save(part / "label.npy", indices)
        np.save(part / "positions.npy", _positions(indices[0]))
        write_json(
            part / "case.json", {"key": key, "spacing": spacing, "in_colour": image.in_colour}
        )
    return PreparedCase(folder)


def append_maps(image: NDArray[np.float32], maps: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return ``(C + h, *S)``: an image and its attention maps, 0 to 1, as a network sees them."""
    return np.concatenate([image, maps.astype(np.float32) / 255])


def open_cases(
    cache: Path, case_ids: tuple[str, ...], with_maps: bool = False
) -> list[PreparedCase]:
    """Return prepared cases by id.

    Raises:
        DatasetError: Some of them were not prepared, or have no attention maps where these are
            asked for.
        FileError: One of them is damaged.
    """
    cases = [PreparedCase(cache / case_id, with_maps) for case_id in case_ids]
    absent = [case.case_id for case in cases if not (case.folder / "case.json").is_file()]
    if absent:
        raise DatasetError(
            f"{cache}: {len(absent)} cases are not prepared: {absent[:5]}.",
            remedy="Run lamina prepare again; it goes on where it stopped.",
        )
    unmapped = [case.case_id for case in cases if not (case.folder / MAPS).is_file()]
    if with_maps and unmapped:
        raise DatasetError(
            f"{cache}: {len(unmapped)} cases have no attention maps: {unmapped[:5]}.",
            remedy="Run lamina attention-maps again; it goes on where it stopped.",
        )
    for case in cases:
        case.check()
    return cases


def preparation_of(plan: Plan) -> str:
    """Return the part of a plan that the prepared arrays depend on, as text to compare."""
    record = plan.as_dict()
    names = (
        "channels",
        "labels",
        "orientation",
        "target_spacing",
        "slice_axis",
        "normalisation",
    )
    # Keys stay in their order, which for labels is the order of the classes.
    return json.dumps([record[name] for name in names])


def _key(case: Case, plan: Plan, resample_oblique: bool) -> str:
    """Hash everything the prepared arrays depend on: the files' content and the plan's geometry."""
    files = [*case.image_files, *chain.from_iterable(map(files_of, case.label_files))]
    hashes = [sha256(path) for path in files if path.is_file()]
    parts = [_VERSION, hashes, case.spacing, case.series, resample_oblique, preparation_of(plan)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _key_of(folder: Path) -> str | None:
    """Return the key of a stored case; none where there is no such case, or a damaged one."""
    with suppress(FileError):
        record = read_json(folder / "case.json")
        return str(record.get("key")) if isinstance(record, dict) else None
    return None


def _positions(label: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Draw rows of class and position, so that a patch can be centred on a class at once."""
    rng = np.random.default_rng(0)
    drawn = [np.empty((0, 1 + label.ndim), np.int32)]
    for index in np.unique(label):
        if index in (0, IGNORE_INDEX):
            continue
        flat = np.flatnonzero(label == index)
        if flat.size > _POSITIONS:
            flat = np.sort(rng.choice(flat, _POSITIONS, replace=False))
        positions = np.stack(np.unravel_index(flat, label.shape), axis=1)
        drawn.append(np.insert(positions, 0, index, axis=1).astype(np.int32))
    return np.concatenate(drawn)

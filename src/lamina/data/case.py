"""One labelled scan, as files; voxels are read when asked for."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.errors import DatasetError, LabelError
from lamina.io import files_of, read_labels, read_volume
from lamina.io.structures import has_structures, read_structures
from lamina.labels import LabelSet
from lamina.volume import Volume

# A name without a digit before the visit, such as ct_scan_01, is a data set's, not a patient's.
_VISIT = re.compile(
    r"(.*?\d.*?)[_-](?:frame|ses(?:sion)?|visit|timepoint|tp|phase|scan)(?:[_-]|\d|$)",
    re.IGNORECASE,
)

_REMEDY = (
    "Give exactly these in this order, in one file or in {}, or correct the list in dataset.json."
)
_REMEDIES = {(1, 3, 3): "It is grey: give it in colour.", (3, 1, 3): "Save it in grey."}
"""For images of two axes, by the channels that they have and should have."""

_LONGEST_NAME = 255
"""Bytes of a file's name that most file systems take."""
_LONGEST_ID = 200
"""Bytes of a case id, which the names of files add to."""


def patient_of(case_id: str) -> str:
    """Return the patient in a case id: what stands before a visit, session or frame suffix."""
    match = _VISIT.match(case_id)
    return match.group(1) if match else case_id


def read_merged(files: Sequence[Path], labels: LabelSet) -> Volume:
    """Read label files of one scan as class indices; what a later one marks is laid over.

    Raises:
        FileError, GeometryError, LabelError: A file is missing or damaged, lies on another grid
            than the first, or holds values that are not declared.
    """
    first, *others = [read_labels(path) for path in files]
    merged = labels.encode(first.array, first.source)
    for other in others:
        first.check_grid_of(other)
        indices = labels.encode(other.array, other.source)
        merged = np.where(indices, indices, merged)
    return replace(first, array=merged)


def _is_grey(array: NDArray[Any]) -> bool:
    """Tell whether a picture ``(3, i, j)`` is in colour by its form alone."""
    return array.ndim == 3 and len(array) == 3 and bool((array == array[:1]).all())


def _fits(name: str, limit: int) -> bool:
    try:
        return len(os.fsencode(name)) <= limit
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True, kw_only=True)
class Case:
    """Where the image and the label of one scan lie.

    Raises:
        DatasetError: The id could not be the name of a file or folder.
    """

    case_id: str
    group: str
    """The patient; cases of one group never stand on both sides of a split."""
    images: tuple[Path, ...]
    """One file per channel, one file that holds them all, or the folder of a DICOM series."""
    label: Path | None = None
    objects: tuple[Path, ...] = ()
    """Further label files of the scan, one per object; what they mark is laid over ``label``."""
    spacing: tuple[float, ...] | None = None
    """Size in mm of a pixel along each array axis, where only a list beside the pictures tells."""
    side: str = ""
    """Side of the dataset's own split: ``train``, ``val`` or ``test``; empty where it has none."""
    series: str = ""
    """SeriesInstanceUID of the image, where its folder may hold others."""

    def __post_init__(self) -> None:
        if self.case_id[:1] in ("", ".") or set(self.case_id) & set("/\\\0"):
            raise DatasetError(
                f"case id {self.case_id!r}: is empty, hidden, or leads to another folder.",
                remedy="Rename the file.",
            )
        parts = {part for path in (*self.images, *self.label_files) for part in path.parts}
        if not _fits(self.case_id, _LONGEST_ID) or not all(_fits(p, _LONGEST_NAME) for p in parts):
            raise DatasetError(
                f"case {self.case_id[:40]!r}: no file system takes a name of that length or these "
                "characters.",
                remedy="Give case and files shorter names, in letters that can be stored.",
            )
        if self.spacing and not all(0 < size < inf for size in self.spacing):
            raise DatasetError(
                f"{self.case_id}: pixels of {self.spacing} mm.", remedy="Correct the list."
            )

    @property
    def image_files(self) -> tuple[Path, ...]:
        """Return ``images`` with all that is read with them, and what is in a folder."""
        return tuple(
            file
            for path in self.images
            for file in (sorted(path.iterdir()) if path.is_dir() else files_of(path))
        )

    @property
    def label_files(self) -> tuple[Path, ...]:
        """Return ``label`` and ``objects``."""
        return (*([self.label] if self.label else []), *self.objects)

    def read_image(self, channels: tuple[str, ...]) -> Volume:
        """Read the image as :meth:`read_stored_image` does; in mm where ``spacing`` tells them."""
        return self.sized(self.read_stored_image(channels))

    def read_stored_image(self, channels: tuple[str, ...]) -> Volume:
        """Read the image ``(C, *S)`` as its files hold it.

        Args:
            channels: The names of the channels it must have; a picture in red, green and blue that
                are the same everywhere is grey.

        Raises:
            FileError, GeometryError: A file is damaged, or two channels lie on different grids.
            DatasetError: The number of channels is not the declared one.
        """
        parts = [read_volume(path, self.series) for path in self.images]
        first = parts[0]
        for part in parts[1:]:
            first.check_grid_of(part)
        array = np.concatenate([part.array for part in parts]) if len(parts) > 1 else first.array
        if len(channels) == 1 and _is_grey(array):
            array = array[:1]
        found, needed = len(array), len(channels)
        if found != needed:
            name = self.images[0].name.rpartition("_0000")[0] or "x"
            files = ", ".join(f"{name}_{number:04d}" for number in range(needed))
            raise DatasetError(
                f"{first.source}: {found} channels, {needed} are declared ({', '.join(channels)}).",
                remedy=_REMEDIES.get((found, needed, array.ndim), _REMEDY.format(files)),
            )
        return replace(first, array=array)

    def read_part(self, path: Path) -> Volume:
        """Read one file of the image; in mm where ``spacing`` tells them.

        Raises:
            FileError, GeometryError: As :func:`lamina.io.read_volume`.
        """
        return self.sized(read_volume(path, self.series))

    def read_label(self, labels: LabelSet, image: Volume) -> Volume:
        """Read the label map as class indices ``(1, *S)`` on the grid of ``image``.

        Raises:
            FileError, GeometryError, LabelError: The file is missing or damaged, lies on another
                grid, or holds values that are not declared.
        """
        if self.label is None:
            raise LabelError(f"{self.case_id}: has no label file.")
        if has_structures(self.label):
            masks = chain.from_iterable(read_structures(path, image) for path in self.label_files)
            indices = labels.draw(masks, image.spatial_shape, str(self.label))
            return replace(image, array=indices[None], source=str(self.label))
        label = self.sized(read_merged(self.label_files, labels))
        image.check_grid_of(label)
        return replace(image, array=label.array, source=label.source)

    def sized(self, volume: Volume) -> Volume:
        """Return a picture in mm where ``spacing`` tells how large its pixels are."""
        return volume if self.spacing is None else volume.sized(self.spacing)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; :meth:`from_dict` reads it back."""
        return {
            "case_id": self.case_id,
            "group": self.group,
            "images": [str(path) for path in self.images],
            "label": str(self.label) if self.label else None,
            "objects": [str(path) for path in self.objects],
            "spacing": list(self.spacing) if self.spacing else None,
            "side": self.side,
            "series": self.series,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Case":
        """Read what :meth:`as_dict` wrote.

        Raises:
            DatasetError: It is not what that wrote.
        """
        try:
            return cls(
                case_id=data["case_id"],
                group=data["group"],
                images=tuple(Path(path) for path in data["images"]),
                label=Path(data["label"]) if data["label"] else None,
                objects=tuple(Path(path) for path in data.get("objects", ())),
                spacing=tuple(data["spacing"]) if data.get("spacing") else None,
                side=data.get("side", ""),
                series=data.get("series", ""),
            )
        except (AttributeError, KeyError, TypeError) as error:
            raise DatasetError(f"case {data!r:.80}: cannot be read: {error!r}.") from error

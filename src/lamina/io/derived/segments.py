"""The structures of a segmentation, as DICOM objects name them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lamina.errors import LabelError
from lamina.labels import IGNORE_INDEX, LabelSet
from lamina.terminology import Term, is_text
from lamina.volume import Volume

LONGEST_NAME = 64
"""Letters that DICOM has for a name."""
DESCRIPTION = "Automatic segmentation"
"""What series of objects are called."""
SERIES_OFFSET = 1000
"""Added to the number of the series, so that the object is listed after the scans."""


@dataclass(frozen=True, kw_only=True)
class Producer:
    """What made a segmentation."""

    name: str
    version: str
    model: str = ""
    """What tells the model from others, such as its SHA-256."""

    @property
    def serial(self) -> str:
        """Return a short number of what stands in for a device, which DICOM wants."""
        return self.model[:16] or self.version


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Structures numbered from 1, then regions; those that are absent are among them."""

    indices: NDArray[np.uint8]
    """Class index of each voxel ``(i, j, k)``, each slice in one piece of memory."""
    terms: Mapping[str, Term]
    members: Mapping[str, tuple[int, ...]]
    """Class indices that belong to each; a region has those of its structures."""
    producer: Producer

    @property
    def overlap(self) -> bool:
        """Whether a voxel may belong to several."""
        return len(self.members) > len({i for own in self.members.values() for i in own})

    def masks(self) -> Iterator[tuple[str, NDArray[np.bool_]]]:
        """Yield one mask after the other, to spare memory."""
        for name, own in self.members.items():
            belongs = np.zeros(256, np.bool_)
            belongs[list(own)] = True
            yield name, belongs[self.indices.T].T


def segments_of(
    segmentation: Volume, labels: LabelSet, producer: Producer, *, regions: bool
) -> Segments:
    """Return the structures of a label map, and the regions that they make.

    Args:
        segmentation: A label map ``(1, i, j, k)`` of file values.
        labels: What they stand for.
        producer: What made it.
        regions: Whether to add the regions.

    Raises:
        LabelError: A value is not declared.
    """
    indices = labels.encode(segmentation.array[0], segmentation.source)
    members: dict[str, tuple[int, ...]] = {
        name: (number,) for number, name in enumerate(labels.values, start=1)
    }
    if regions:
        for region, names in labels.regions.items():
            members[region] = tuple(number for name in names for number in members[name])
    return Segments(
        indices=np.asfortranarray(np.where(indices == IGNORE_INDEX, 0, indices), np.uint8),
        terms={name: labels.term(name) for name in members},
        members=members,
        producer=producer,
    )


def check_names(labels: LabelSet) -> None:
    """Check that DICOM can hold the names of all structures and regions.

    Raises:
        LabelError: One is too long, or has letters that cannot be written.
    """
    for name in labels.names:
        if not is_text(name, LONGEST_NAME):
            raise LabelError(
                f"labels: {name!r:.80} cannot be written as a name in DICOM.",
                remedy=f"Names have up to {LONGEST_NAME} printable letters and no backslash.",
            )

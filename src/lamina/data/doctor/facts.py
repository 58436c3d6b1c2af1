"""What is kept of a case when it has been read: small enough to hold thousands at once."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lamina.data.case import Case
from lamina.data.doctor import Finding, Severity
from lamina.geometry import Affine

PERCENTILES = (0.5, 10, 25, 50, 75, 90, 99.5)
WHOLE_TOLERANCE = 0.1
"""Label values this near to a whole number can only mean that number."""
THUMBNAIL = {2: 64, 3: 16}
"""Pixels along each side of a thumbnail, by the number of axes; 4096 in all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ChannelFacts:
    """What one channel of an image holds."""

    digest: str
    """Of the finite values in canonical axis order: the same voxels however they are stored."""
    broken: int
    """Number of voxels that are NaN or infinite."""
    size: int
    """Number of all voxels."""
    low: float
    """Smallest finite value; NaN if there is none."""
    high: float
    percentiles: tuple[float, ...]
    """At ``PERCENTILES``."""
    step: int
    """Greatest number that all values are multiples of; 0 where they are no whole numbers."""
    thumbnail: NDArray[np.float32]
    """Means over 16^3 (64^2) equal parts of the box, axes canonical, mean 0 and deviation 1."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFacts:
    """What one image is."""

    affine: Affine
    spatial_shape: tuple[int, ...]
    """In the file's axis order, as the affine."""
    shape: tuple[int, ...]
    """In canonical order, as the spacing."""
    spacing: tuple[float, ...]
    unit: str
    orientation: str
    dtype: str
    """Type of the numbers, such as ``int16``."""
    lost_slices: tuple[tuple[int, ...], ...]
    """Of each channel, the slices in the file's order that are blank or repeat the one before."""
    channels: tuple[ChannelFacts, ...]

    @property
    def spatial_dims(self) -> int:
        """2 for an image, 3 for a volume."""
        return len(self.shape)

    @property
    def digests(self) -> tuple[str, ...]:
        """What is equal for images that show the same."""
        return tuple(channel.digest for channel in self.channels)


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelFacts:
    """What one label map holds."""

    affine: Affine
    spatial_shape: tuple[int, ...]
    num_channels: int
    deviation: float
    """How far values lie from whole numbers at most; infinite where they are no numbers at all."""
    counts: dict[int, int]
    """Number of voxels of each value; empty where values are no whole numbers, or in colour."""
    centres: dict[int, tuple[float, ...]]
    """World position in mm, RAS+, of the middle of each value that was asked for."""
    interruptions: dict[int, tuple[int, ...]]
    """Slices, in the file's order, that a value skips."""
    colours: frozenset[tuple[int, str]]
    """Values of pictures with a palette and what they look like there, such as ``#800000``."""
    digest: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Examination:
    """What looking at one case yields."""

    case: Case
    held_out: bool = False
    """It lies in the test folder: compared with the others, but not one of them."""
    image: ImageFacts | None = None
    """None where it cannot be read."""
    label: LabelFacts | None = None
    """None where there is none, or it cannot be read."""
    faults: tuple[Finding, ...] = ()
    """What came up while reading."""

    @property
    def case_id(self) -> str:
        """Name of the case."""
        return self.case.case_id

    @property
    def side(self) -> str:
        """Where it stands when networks are compared: ``train``, ``val`` or ``test``."""
        return "test" if self.held_out else self.case.side or "train"

    @property
    def image_file(self) -> str:
        """The image, or its first channel."""
        return str(self.case.images[0])

    @property
    def label_file(self) -> str:
        """The label map, or its first object; empty without one."""
        return str(self.case.label or "")

    def finding(
        self,
        of: Literal["image", "label"],
        severity: Severity,
        check: str,
        message: str,
        remedy: str,
        *,
        mend: str = "",
        other: str = "",
    ) -> Finding:
        """Make a finding about the image, or about the label map."""
        return Finding(
            severity=severity,
            check=check,
            case=self.case_id,
            file=self.image_file if of == "image" else self.label_file,
            message=message,
            remedy=remedy,
            mend=mend,
            other=other,
        )

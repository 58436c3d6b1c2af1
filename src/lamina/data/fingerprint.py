"""What the scans of a cohort are: sizes, spacings, intensities, label statistics, oddities."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from lamina.data.case import Case
from lamina.data.cohort import Cohort
from lamina.data.intensity import finite
from lamina.data.preprocess import foreground_box
from lamina.data.straighten import straightened
from lamina.errors import DatasetError
from lamina.geometry import Reorientation, is_sheared, orientation_of, reorientation, spacing_of
from lamina.labels import IGNORE_INDEX, LabelSet
from lamina.volume import Volume

CANONICAL = "RAS"
"""Array order in which the sizes and spacings of volumes are compared."""

_SAMPLES = 10_000


@dataclass(frozen=True, kw_only=True)
class CaseFacts:
    """What one scan is; sizes and spacings stand in canonical order."""

    case_id: str
    shape: tuple[int, ...]
    """Of what is kept: the box around everything but background."""
    spacing: tuple[float, ...]
    orientation: str
    """Of the file's own array axes."""
    unit: Literal["mm", "px"] = "mm"
    """What spacings are measured in: pixels where a picture does not say how large they are."""
    intensity: tuple[dict[str, float], ...]
    """Per channel of the whole scan: ``min``, ``p00_5``, ``median``, ``mean``, ``std``, ``p99_5``,
    ``max``."""
    voxels: dict[str, int]
    """Number of voxels of each structure."""
    oddities: tuple[str, ...]
    """What a person should look at, in words."""


@dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """What the scans of a cohort are; it holds no choices."""

    spatial_dims: int
    orientation: str
    """Canonical for volumes; the most frequent one for images, which keep their plane."""
    channels: tuple[str, ...]
    cases: tuple[CaseFacts, ...]
    foreground_intensity: tuple[dict[str, float], ...]
    """Per channel, over the labelled voxels of all cases; the names are those of a case."""

    @property
    def unit(self) -> Literal["mm", "px"]:
        """What all spacings are measured in."""
        return self.cases[0].unit

    @property
    def median_spacing(self) -> tuple[float, ...]:
        """Median voxel size in mm along each canonical axis."""
        return tuple(float(x) for x in np.median([case.spacing for case in self.cases], axis=0))

    def spacing_percentile(self, axis: int, percentile: float) -> float:
        """Return a percentile of the voxel size in mm along one canonical axis."""
        return float(np.percentile([case.spacing[axis] for case in self.cases], percentile))

    def median_shape(self, spacing: Sequence[float]) -> tuple[int, ...]:
        """Return the median size in voxels after resampling every case to ``spacing`` in mm."""
        return tuple(int(x) for x in np.round(np.median(self._sizes(spacing), axis=0)))

    def shapes(self, spacing: Sequence[float]) -> tuple[tuple[int, ...], ...]:
        """Return the size in voxels of every case after resampling to ``spacing`` in mm."""
        rounded = np.maximum(1, np.round(self._sizes(spacing)).astype(int))
        return tuple(tuple(int(n) for n in shape) for shape in rounded)

    def _sizes(self, spacing: Sequence[float]) -> NDArray[np.float64]:
        return np.array([np.array(c.shape) * c.spacing / np.array(spacing) for c in self.cases])

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Survey:
    """What looking at one case yields: its facts, and intensities drawn from its foreground."""

    facts: CaseFacts
    spatial_dims: int
    foreground: NDArray[np.float32]
    """Intensities ``(C, up to 10000)`` at labelled voxels."""


def survey(
    case: Case, channels: tuple[str, ...], labels: LabelSet, *, resample_oblique: bool = False
) -> Survey:
    """Read one case, check that image and label belong together, and describe it.

    Args:
        case: Its files.
        channels: The names of the channels it must have.
        labels: The structures.
        resample_oblique: Whether a scan whose axes are not at right angles is resampled, rather
            than refused.

    Raises:
        LaminaError: The case cannot be used; the message says why.
    """
    stored = case.read_image(channels)
    image, label = straightened(stored, case.read_label(labels, stored), resample_oblique)
    dims = image.spatial_dims
    array = np.stack([finite(c.astype(np.float32), image.source) for c in image.array])
    voxels = {name: int(mask.sum()) for name, mask in labels.masks(label.array).items()}
    intensity = tuple(describe(channel) for channel in array)
    shape, spacing = canonical_size(image, foreground_box(image.array, label.array))
    facts = CaseFacts(
        case_id=case.case_id,
        shape=shape,
        spacing=spacing,
        orientation=orientation_of(image.affine, dims),
        unit=image.unit,
        intensity=intensity,
        voxels=voxels,
        oddities=tuple(_oddities(stored, intensity, label.array, voxels)),
    )
    return Survey(facts, dims, _foreground_sample(array, label.array[0]))


def make_fingerprint(cohort: Cohort, surveys: Sequence[Survey]) -> Fingerprint:
    """Put the cases' facts together.

    Raises:
        DatasetError: No case has a labelled voxel, so there is nothing to learn.
    """
    if not any(survey.foreground.size for survey in surveys):
        raise DatasetError(
            f"{cohort.name}: all labels are empty.", remedy="Give at least one scan with a label."
        )
    pooled = np.concatenate([survey.foreground for survey in surveys], axis=1)
    dims = surveys[0].spatial_dims
    frequent = Counter(s.facts.orientation for s in surveys).most_common(1)[0][0]
    return Fingerprint(
        spatial_dims=dims,
        orientation=CANONICAL if dims == 3 else frequent,
        channels=cohort.channels,
        cases=tuple(s.facts for s in surveys),
        foreground_intensity=tuple(describe(channel) for channel in pooled),
    )


def canonical_size(
    image: Volume, box: Sequence[slice]
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return the size of a box in voxels, and that of a voxel in mm, in canonical order."""
    turn = canonical(image)
    affine = turn.affine(image.affine, image.spatial_shape)
    shape = tuple(box[axis].stop - box[axis].start for axis in turn.axes)
    return shape, spacing_of(affine, image.spatial_dims)


def canonical(volume: Volume) -> Reorientation:
    """Return how to reorder the axes of volumes; images keep their plane as it is stored."""
    return reorientation(
        volume.affine, CANONICAL if volume.spatial_dims == 3 else volume.orientation
    )


def describe(values: NDArray[np.float32]) -> dict[str, float]:
    """Return least, greatest, mean, deviation and percentiles of intensities."""
    low, median, high = np.percentile(values, (0.5, 50, 99.5))
    return {
        "min": float(values.min()),
        "p00_5": float(low),
        "median": float(median),
        "mean": float(values.mean(dtype=np.float64)),
        "std": float(values.std(dtype=np.float64)),
        "p99_5": float(high),
        "max": float(values.max()),
    }


def _foreground_sample(array: NDArray[np.float32], label: NDArray[np.uint8]) -> NDArray[np.float32]:
    inside = np.flatnonzero((label > 0) & (label != IGNORE_INDEX))
    if inside.size > _SAMPLES:
        inside = np.random.default_rng(0).choice(inside, _SAMPLES, replace=False)
    return array.reshape(array.shape[0], -1)[:, inside]


def _oddities(
    image: Volume,
    intensity: Sequence[dict[str, float]],
    label: NDArray[np.uint8],
    voxels: dict[str, int],
) -> list[str]:
    found = []
    broken = int((~np.isfinite(image.array)).sum())
    if broken:
        found.append(f"{broken} voxels are NaN or infinite")
    found += [f"channel {i} is constant" for i, c in enumerate(intensity) if c["min"] == c["max"]]
    if is_sheared(image.affine):
        found.append("axes are not at right angles: resampled")
    if not label.any():
        found.append("the label is empty")
    else:
        found += [f"no {name}" for name, count in voxels.items() if count == 0]
    return found

"""Views of slices for training without labels: crops whose grey values are changed at random.

The changes are those of Caron et al.: *Emerging Properties in Self-Supervised Vision Transformers*
(DINO), ICCV 2021, less those of colour.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from typing import Literal

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from lamina.data.cache import PreparedCase
from lamina.data.plan import Plan
from lamina.data.sampling import in_rounds, random_for
from lamina.data.slices import intensity_range, slice_axis, to_unit
from lamina.errors import ConfigError, DatasetError

Tone = Literal["solarise", "gamma"]

_EMPTY_SHARE = 0.95
_EVEN = 0.05
"""Pixels this close to a slice's median, of a range of 1, count as its background."""
_LARGEST_ASPECT = 4 / 3


@dataclass(frozen=True, kw_only=True)
class Views:
    """Which views are drawn of a slice; ``p_`` is the probability that a change is made.

    Raises:
        ConfigError: Values out of range, all of them at once.
    """

    global_size: int = 256
    """Sides in pixels of the two large views, which the teacher sees too."""
    global_scale: tuple[float, float] | None = None
    """Least and largest share of the slice in a large view; ``None``: 0.14 to 1, and with
    ``multicrop`` 0.4 to 1."""
    multicrop: bool = False
    """Whether the student sees small views as well."""
    local_crops_number: int = 8
    """Small views of each slice, with ``multicrop``."""
    local_size: int = 96
    """Their sides in pixels."""
    local_scale: tuple[float, float] = (0.05, 0.4)
    """Least and largest share of the slice in a small view."""
    p_flip: float = 0.5
    """Left and right change places, where a slice shows both."""
    p_jitter: float = 0.8
    """Brightness and contrast together."""
    jitter: float = 0.4
    """Largest relative change of each."""
    p_blur: tuple[float, float, float] = (1.0, 0.1, 0.5)
    """Gaussian smoothing of the first large view, the second, and small ones."""
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """Least and largest deviation in pixels of the view."""
    p_tone: float = 0.2
    """A change of the second view's grey scale."""
    tone: Tone | None = None
    """``"solarise"`` turns the brighter half around, ``"gamma"`` bends the scale; ``None``: the
    second for CT, whose grey values have a meaning, else the first."""
    gamma: tuple[float, float] = (0.7, 1.5)
    """Least and largest exponent."""

    def __post_init__(self) -> None:
        chances = (self.p_flip, self.p_jitter, *self.p_blur, self.p_tone)
        sizes = (self.global_size, self.local_size, self.local_crops_number)
        constraints = {
            "sizes and local_crops_number must be above 0": min(sizes) > 0,
            "scales must be pairs in order, above 0 and at most 1": all(
                0 < low <= high <= 1 for low, high in (self.large_scale, self.local_scale)
            ),
            "probabilities must be 0 to 1": all(0 <= p <= 1 for p in chances),
            "jitter must be 0 to 1": 0 <= self.jitter <= 1,
            "blur_sigma and gamma must be pairs in order, above 0": all(
                0 < low <= high for low, high in (self.blur_sigma, self.gamma)
            ),
        }
        if faults := [fault for fault, holds in constraints.items() if not holds]:
            raise ConfigError(f"views: {'; '.join(faults)}.")

    @property
    def large_scale(self) -> tuple[float, float]:
        """Least and largest share of the slice in a large view."""
        return self.global_scale or ((0.4, 1.0) if self.multicrop else (0.14, 1.0))

    @property
    def kinds(self) -> tuple[tuple[int, tuple[float, float], float, float], ...]:
        """Size, scale, probability of blur and of a changed tone of each view, large ones first."""
        first, second, small = self.p_blur
        large = self.global_size, self.large_scale
        local = (self.local_size, self.local_scale, small, 0.0)
        number = self.local_crops_number if self.multicrop else 0
        return ((*large, first, 0.0), (*large, second, self.p_tone), *(local,) * number)


def side_axis(plan: Plan) -> int | None:
    """Return the axis of a slice, 0 or 1, that runs between left and right; ``None``: neither."""
    through = slice_axis(plan)
    codes = [code for axis, code in enumerate(plan.orientation) if axis != through]
    return next((axis for axis, code in enumerate(codes) if code in "LR"), None)


@dataclass(frozen=True, kw_only=True, eq=False)
class Slices:
    """The slices of prepared cases that show something, numbered from 0."""

    cases: tuple[PreparedCase, ...]
    axis: int | None
    """Across the slices; ``None`` where each case is one."""
    limits: NDArray[np.float32]
    """Black and white of each case and channel, ``(cases, C, 2)``."""
    places: NDArray[np.int32]
    """Case and position along the axis of each slice, ``(slices, 2)``."""
    mean: float
    """Of all pixels, 0 to 1."""
    std: float
    """Their deviation."""

    def __len__(self) -> int:
        return len(self.places)

    def read(self, number: int) -> NDArray[np.float32]:
        """Return a slice ``(C, H, W)``, 0 to 1."""
        case, position = self.places[number]
        image = self.cases[case].image
        flat = image if self.axis is None else np.take(image, position, axis=1 + self.axis)
        return to_unit(flat, self.limits[case])


def find_slices(
    cases: Sequence[PreparedCase],
    axis: int | None,
    progress: Callable[[float, int, str], None] = lambda done, total, what: None,
) -> Slices:
    """Look through prepared cases; slices of which over 95 % are background are left out.

    Raises:
        DatasetError: No slice is left.
        FileError: A case cannot be read.
    """
    limits, places, moments = [], [], np.zeros(3)
    for number, case in enumerate(cases):
        image = case.image
        limits.append(intensity_range(image))
        unit = to_unit(image, limits[-1])
        stack = unit[None] if axis is None else np.moveaxis(unit, 1 + axis, 0)
        for position, flat in enumerate(stack):
            if not _is_empty(flat):
                places.append((number, position))
                moments += flat.size, flat.sum(dtype=float), np.square(flat).sum(dtype=float)
        progress(number + 1, len(cases), "Looking for slices")
    if not places:
        raise DatasetError(f"None of {len(cases)} cases has a slice that shows anything.")
    mean, square = moments[1:] / moments[0]
    return Slices(
        cases=tuple(cases),
        axis=axis,
        limits=np.stack(limits),
        places=np.array(places, np.int32),
        mean=float(mean),
        std=sqrt(square - mean**2),
    )


def _is_empty(flat: NDArray[np.float32]) -> bool:
    middle = np.median(flat, axis=(1, 2), keepdims=True)
    return bool((np.abs(flat - middle) < _EVEN).all(axis=0).mean() > _EMPTY_SHARE)


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewDataset(Dataset[list[Tensor]]):
    """Views numbered ``step * batch_size + slot``; each number always means the same views.

    Slices come in shuffled rounds, so that each is seen equally often.
    """

    slices: Slices
    views: Views
    """With a ``tone``."""
    batch_size: int
    seed: int
    mean: tuple[float, ...]
    """Of each channel that the transformer takes, 0 to 1; subtracted."""
    std: tuple[float, ...]
    """Divisor of each."""
    side_axis: int | None = None
    """Axis of a slice between left and right."""

    def __getitem__(self, number: int) -> list[Tensor]:
        """Return the views of a slice, large ones first, each with the transformer's channels."""
        step, slot = divmod(number, self.batch_size)
        flat = self.slices.read(in_rounds(self.seed, number, len(self.slices)))
        rng = random_for(self.seed, step, slot)
        views = (self._view(flat, *kind, rng) for kind in self.views.kinds)
        return [normalised(view, self.mean, self.std) for view in views]

    def _view(
        self,
        flat: NDArray[np.float32],
        size: int,
        scale: tuple[float, float],
        p_blur: float,
        p_tone: float,
        rng: Generator,
    ) -> NDArray[np.float32]:
        view = _resized_crop(flat, size, scale, rng)
        if self.side_axis is not None and rng.random() < self.views.p_flip:
            view = np.flip(view, 1 + self.side_axis)
        if rng.random() < self.views.p_jitter:
            view = _jitter(view, self.views.jitter, rng)
        if rng.random() < p_blur:
            sigma = rng.uniform(*self.views.blur_sigma)
            view = ndimage.gaussian_filter(view, (0, sigma, sigma), mode="nearest", truncate=3)
        if rng.random() < p_tone:
            view = _toned(view, self.views, rng)
        return view


def normalised(flat: NDArray[np.float32], mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Return a slice ``(C, H, W)``, 0 to 1, as a transformer takes it, ``(len(mean), H, W)``.

    A slice with another number of channels than the transformer is averaged to one grey channel.
    """
    if len(flat) != len(mean):
        flat = np.repeat(flat.mean(axis=0, keepdims=True), len(mean), axis=0)
    middle, spread = torch.tensor([mean, std], dtype=torch.float32)[..., None, None]
    return torch.from_numpy(np.ascontiguousarray(flat)).sub(middle).div(spread)


def _resized_crop(
    flat: NDArray[np.float32], size: int, scale: tuple[float, float], rng: Generator
) -> NDArray[np.float32]:
    """Cut a share of a slice, a square of it stretched by at most 4/3, and resize it to a square.

    A slice that is no square counts as squeezed to one, as it is for the attention maps.
    """
    share = rng.uniform(*scale)
    aspect = exp(rng.uniform(-log(_LARGEST_ASPECT), log(_LARGEST_ASPECT)))
    parts = min(1.0, sqrt(share * aspect)), min(1.0, sqrt(share / aspect))
    box = []
    for whole, part in zip(flat.shape[1:], parts, strict=True):
        length = max(1, round(whole * part))
        start = int(rng.integers(0, whole - length + 1))
        box.append(slice(start, start + length))
    crop = torch.from_numpy(np.ascontiguousarray(flat[:, box[0], box[1]]))
    resized = functional.interpolate(crop[None], (size, size), mode="bicubic", antialias=True)
    return np.asarray(resized[0].clamp(0, 1).numpy())


def _jitter(view: NDArray[np.float32], most: float, rng: Generator) -> NDArray[np.float32]:
    brightness, contrast = rng.uniform(1 - most, 1 + most, 2).astype(np.float32)
    brighter = np.clip(view * brightness, 0, 1)
    middle = brighter.mean()
    return np.asarray(np.clip(middle + contrast * (brighter - middle), 0, 1), np.float32)


def _toned(view: NDArray[np.float32], how: Views, rng: Generator) -> NDArray[np.float32]:
    if how.tone == "gamma":
        return view ** np.float32(rng.uniform(*how.gamma))
    return np.where(view < 0.5, view, 1 - view)

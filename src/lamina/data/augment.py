"""Random changes to a training patch: every one drawn from the patch's own generator.

How a patch lies in its case is drawn first, by :mod:`lamina.data.motion`, so that cutting can
follow it; grey values are changed afterwards.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lamina.data.intensity import normalise
from lamina.data.plan import Normalisation
from lamina.errors import ConfigError

_NO_FOLD = 0.4
"""Shifts of control points below this share of their distance cannot fold a cubic spline's field.

Choi and Lee, "Injectivity conditions of 2D and 3D uniform cubic B-spline functions", 2000.
"""
_LIMITS = {
    "rotation_deg": (0.0, 180.0),
    "scale": (0.0, 0.9),
    "elastic_mm": (0.0, 400.0),
    "elastic_grid_mm": (5.0, 1000.0),
    "low_resolution": (0.0, 0.9),
    "noise_std": (0.0, 10.0),
    "gamma": (0.0, 10.0),
}


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Probabilities and ranges; ``p_`` is the probability that a change is made to a patch.

    Lengths in mm are in pixels for pictures that do not say how large their pixels are.
    """

    p_affine: float = 0.5
    """Rotation and scaling together."""
    rotation_deg: float = 20.0
    """Largest rotation about each axis, in degrees of real space."""
    scale: float = 0.2
    """Largest relative zoom in or out."""
    p_elastic: float = 0.0
    """Smooth bending by a cubic spline through a coarse grid of control points."""
    elastic_mm: float = 6.0
    """Largest shift of a control point along each axis; at most 0.4 of their distance."""
    elastic_grid_mm: float = 32.0
    """Distance of the control points."""
    p_mirror: float = 0.5
    """Along each of the mirror axes."""
    mirror_axes: tuple[int, ...] | None = None
    """Prepared axes to mirror along; ``None``: those where the plan finds it plausible."""
    p_quarter_turn: float = 0.0
    """Rotation by 90, 180 or 270 degrees in a plane where the patch is square in voxels and mm."""
    rescale: bool = False
    """Whether each channel's voxels that are not 0 are brought to mean 0 and deviation 1 in every
    patch, before grey values are changed; validation sees those of whole scans."""
    p_blur: float = 0.15
    """Smoothing by averaging with the neighbours."""
    p_low_resolution: float = 0.0
    """Loss of detail as from larger voxels."""
    low_resolution: float = 0.5
    """Largest share of the voxels that is lost along each axis."""
    p_noise: float = 0.15
    """Gaussian noise with a deviation of at most ``noise_std``."""
    noise_std: float = 0.2
    """In units of the normalised image."""
    p_brightness: float = 0.3
    """Scaling and shifting of a channel by up to ``brightness``."""
    brightness: float = 0.25
    """Largest relative scaling, and shift in units of the normalised image."""
    p_gamma: float = 0.3
    """Bending of a channel's grey scale."""
    gamma: float = 0.4
    """Largest change of the logarithm of the exponent."""

    def __post_init__(self) -> None:
        values = {name: value for name, value in asdict(self).items() if name != "mirror_axes"}
        limits = dict.fromkeys(values, (0.0, 1.0)) | _LIMITS
        faults = [
            f"{name} = {value}: must be {limits[name][0]:g} to {limits[name][1]:g}"
            for name, value in values.items()
            if not limits[name][0] <= value <= limits[name][1]
        ]
        if self.elastic_mm > _NO_FOLD * self.elastic_grid_mm:
            faults.append(f"elastic_mm = {self.elastic_mm}: above 0.4 of elastic_grid_mm it folds")
        axes = self.mirror_axes or ()
        if len(set(axes)) < len(axes) or any(axis < 0 for axis in axes):
            faults.append(f"mirror_axes = {axes}: must be different and 0 or more")
        if faults:
            raise ConfigError(f"augmentation: {'; '.join(faults)}.")

    @classmethod
    def named(cls, name: str) -> "Augmentation":
        """Return one of :data:`AUGMENTATIONS`; ``ConfigError`` where there is none of that name."""
        if name not in AUGMENTATIONS:
            raise ConfigError(f"{name!r} is unknown; known: {', '.join(AUGMENTATIONS)}.")
        return AUGMENTATIONS[name]


NO_AUGMENTATION = Augmentation(
    p_affine=0, p_mirror=0, p_blur=0, p_noise=0, p_brightness=0, p_gamma=0
)
"""Patches as they are."""

AUGMENTATIONS = {
    "default": Augmentation(),
    "strong": Augmentation(p_affine=0.8, rotation_deg=30.0, scale=0.3, p_elastic=0.2),
    "none": NO_AUGMENTATION,
    "glims": replace(
        NO_AUGMENTATION,
        p_mirror=0.5,
        mirror_axes=(0, 1, 2),
        p_blur=0.2,
        p_noise=0.2,
        noise_std=0.1,
        p_brightness=0.2,
        brightness=0.2,
        p_gamma=0.2,
        gamma=1.5,
    ),
    "lightmedseg": replace(
        NO_AUGMENTATION,
        p_mirror=1 / 6,
        mirror_axes=(0, 1, 2),
        p_quarter_turn=0.5,
        p_noise=0.3,
        noise_std=0.01,
    ),
    "lgmsnet_2d": replace(
        NO_AUGMENTATION, p_mirror=1 / 3, mirror_axes=(0, 1), p_quarter_turn=0.375
    ),
    "lgmsnet_kvasir": replace(
        NO_AUGMENTATION,
        p_affine=0.5,
        rotation_deg=90.0,
        scale=0.5,
        p_elastic=0.5,
        p_mirror=0.5,
        mirror_axes=(0, 1),
        p_brightness=0.5,
        brightness=0.4,
    ),
    "unetr": replace(
        NO_AUGMENTATION,
        p_mirror=0.2,
        mirror_axes=(0, 1, 2),
        p_quarter_turn=0.2,
        p_brightness=0.1,
        brightness=0.1,
    ),
    "dainet": replace(
        NO_AUGMENTATION,
        p_affine=0.25,
        scale=0,
        p_mirror=0.25,
        mirror_axes=(0, 1),
        p_quarter_turn=0.375,
    ),
    "mpunet": replace(NO_AUGMENTATION, p_mirror=0.5, mirror_axes=(0, 1)),
}
"""Ours and the published recipes' lists, each change as often and as strong as there.
Where a recipe draws one change among several, each is drawn by itself here, with its own share;
GLIMS' exponents 0.5 to 4.5 are 0.22 to 4.5 here, even on the logarithm.
"""


def change_intensities(
    image: Tensor, how: Augmentation, rng: Generator, untouched_channels: int = 0
) -> Tensor:
    """Change the grey values of a patch at random.

    Args:
        image: Normalised patch ``(C, *S)``, float32.
        how: Probabilities and ranges.
        rng: The patch's own generator.
        untouched_channels: How many channels at the end keep their values, such as attention maps.

    Returns:
        An image of the same shape.
    """
    touched = image.shape[0] - untouched_channels
    image, rest = image[:touched], image[touched:]
    if how.rescale:
        tissue = [Normalisation(scheme="zscore_nonzero")] * touched
        image = torch.from_numpy(normalise(image.numpy(), tissue, "patch"))
    if rng.random() < how.p_blur:
        image = _blur(image)
    if rng.random() < how.p_low_resolution:
        image = _coarsen(image, how.low_resolution * rng.random())
    if rng.random() < how.p_noise:
        deviation = how.noise_std * rng.random()
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image = image + deviation * torch.from_numpy(noise)
    if rng.random() < how.p_brightness:
        factor, shift = rng.uniform(-how.brightness, how.brightness, (2, touched))
        image = image * _per_channel(1 + factor, image) + _per_channel(shift, image)
    if rng.random() < how.p_gamma:
        image = _bend(image, float(np.exp(rng.uniform(-how.gamma, how.gamma))))
    return torch.cat([image, rest]) if untouched_channels else image


def _blur(image: Tensor) -> Tensor:
    pool = functional.avg_pool3d if image.ndim == 4 else functional.avg_pool2d
    smooth = pool(image[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    return (image + smooth) / 2


def _coarsen(image: Tensor, lost: float) -> Tensor:
    """Interpolate to fewer voxels and back."""
    size = image.shape[1:]
    fewer = [max(1, round(side * (1 - lost))) for side in size]
    mode = "trilinear" if image.ndim == 4 else "bilinear"
    small = functional.interpolate(image[None], size=fewer, mode=mode)
    return functional.interpolate(small, size=size, mode=mode)[0]


def _bend(image: Tensor, exponent: float) -> Tensor:
    """Raise each channel, scaled to 0..1, to a power; its range stays."""
    axes = tuple(range(1, image.ndim))
    low = image.amin(axes, keepdim=True)
    reach = (image.amax(axes, keepdim=True) - low).clamp_min(1e-6)
    return ((image - low) / reach).pow(exponent) * reach + low


def _per_channel(values: NDArray[np.float64], image: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).reshape(-1, *[1] * (image.ndim - 1))

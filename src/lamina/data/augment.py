"""Random changes to a training patch: every one drawn from the patch's own generator."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional

from lamina.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """Probabilities and ranges; ``p_`` is the probability that a change is made to a patch."""

    p_affine: float = 0.5
    """Rotation and scaling together."""
    rotation_deg: float = 20.0
    """Largest rotation about each axis, in degrees of real space."""
    scale: float = 0.2
    """Largest relative zoom in or out."""
    p_mirror: float = 0.5
    """Along each of the plan's mirror axes."""
    p_noise: float = 0.15
    """Gaussian noise with a deviation of at most ``noise_std``."""
    noise_std: float = 0.2
    """In units of the normalised image."""
    p_blur: float = 0.15
    """Smoothing by averaging with the neighbours."""
    p_brightness: float = 0.3
    """Scaling and shifting of a channel by up to ``brightness``."""
    brightness: float = 0.25
    """Largest relative scaling, and shift in units of the normalised image."""
    p_gamma: float = 0.3
    """Bending of a channel's grey scale."""
    gamma: float = 0.4
    """Largest change of the logarithm of the exponent."""

    def __post_init__(self) -> None:
        wider = {"rotation_deg": 180.0, "noise_std": 10.0, "gamma": 10.0, "scale": 0.9}
        highest = dict.fromkeys(asdict(self), 1.0) | wider
        faults = [
            f"{name} = {getattr(self, name)}: must be 0 to {high:g}"
            for name, high in highest.items()
            if not 0 <= getattr(self, name) <= high
        ]
        if faults:
            raise ConfigError(f"augmentation: {'; '.join(faults)}.")


def augment(
    image: Tensor,
    label: Tensor,
    how: Augmentation,
    spacing: Sequence[float],
    mirror_axes: Sequence[int],
    rng: Generator,
) -> tuple[Tensor, Tensor]:
    """Change a patch at random.

    Args:
        image: Normalised patch ``(C, *S)``, float32.
        label: Class indices ``(1, *S)``, uint8.
        how: Probabilities and ranges.
        spacing: Voxel size in mm, so that rotations keep anatomy in shape on anisotropic grids.
        mirror_axes: Spatial axes along which mirrored anatomy is plausible.
        rng: The patch's own generator.

    Returns:
        Image and label of the same shapes.
    """
    if rng.random() < how.p_affine:
        image, label = _affine(image, label, how, spacing, rng)
    flips = [1 + axis for axis in mirror_axes if rng.random() < how.p_mirror]
    if flips:
        image, label = image.flip(flips), label.flip(flips)
    if rng.random() < how.p_blur:
        image = _blur(image)
    if rng.random() < how.p_noise:
        deviation = how.noise_std * rng.random()
        noise = rng.standard_normal(image.shape, dtype=np.float32)
        image = image + deviation * torch.from_numpy(noise)
    if rng.random() < how.p_brightness:
        factor, shift = rng.uniform(-how.brightness, how.brightness, (2, image.shape[0]))
        image = image * _per_channel(1 + factor, image) + _per_channel(shift, image)
    if rng.random() < how.p_gamma:
        image = _bend(image, float(np.exp(rng.uniform(-how.gamma, how.gamma))))
    return image, label


def _affine(
    image: Tensor, label: Tensor, how: Augmentation, spacing: Sequence[float], rng: Generator
) -> tuple[Tensor, Tensor]:
    """Rotate and scale about the patch's centre in mm, continuing the patch at its edges."""
    dims = len(spacing)
    rotation = _rotation(np.deg2rad(rng.uniform(-how.rotation_deg, how.rotation_deg, 3)), dims)
    zoom = 1 + how.scale * rng.uniform(-1, 1)
    # grid_sample maps output to input in units of half the patch's extent, last axis first.
    extent = np.array(image.shape[1:]) * np.array(spacing)
    matrix = (rotation / zoom * extent[None, :] / extent[:, None])[::-1, ::-1]
    theta = torch.from_numpy(np.concatenate([matrix, np.zeros((dims, 1))], axis=1)).float()[None]
    grid = functional.affine_grid(theta, [1, 1, *image.shape[1:]], align_corners=False)
    moved = functional.grid_sample(
        image[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    classes = functional.grid_sample(
        label[None].float(), grid, mode="nearest", padding_mode="border", align_corners=False
    )
    return moved[0], classes[0].to(label.dtype)


def _rotation(angles: np.ndarray, dims: int) -> np.ndarray:
    """Return the rotation by angles in radians about the axes; 2D has the last one only."""
    matrix = np.eye(dims)
    planes = ((1, 2), (0, 2), (0, 1)) if dims == 3 else ((0, 1),)
    for angle, (a, b) in zip(angles[-len(planes) :], planes, strict=True):
        turn = np.eye(dims)
        turn[a, a] = turn[b, b] = np.cos(angle)
        turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
        matrix = matrix @ turn
    return matrix


def _blur(image: Tensor) -> Tensor:
    pool = functional.avg_pool3d if image.ndim == 4 else functional.avg_pool2d
    smooth = pool(image[None], 3, stride=1, padding=1, count_include_pad=False)[0]
    return (image + smooth) / 2


def _bend(image: Tensor, exponent: float) -> Tensor:
    """Raise each channel, scaled to 0..1, to a power; its range stays."""
    axes = tuple(range(1, image.ndim))
    low = image.amin(axes, keepdim=True)
    reach = (image.amax(axes, keepdim=True) - low).clamp_min(1e-6)
    return ((image - low) / reach).pow(exponent) * reach + low


def _per_channel(values: np.ndarray, image: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).reshape(-1, *[1] * (image.ndim - 1))

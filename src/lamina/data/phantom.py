"""Phantoms: CT-like scans of an abdomen with exact labels, made from nothing but a seed.

The anatomy is evaluated at each voxel's own world position, so that any grid, oblique or
anisotropic, shows the same patient. What the scanner adds comes after: shading, texture, noise.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, zoom
from scipy.spatial.transform import Rotation

from lamina.data.anatomy import Anatomy, Ellipsoid, Triple, Warp, draw_anatomy
from lamina.files import write_json
from lamina.geometry import Affine, reorientation, spacing_of
from lamina.io import write_volume
from lamina.labels import LabelSet
from lamina.volume import Volume

Field = NDArray[np.float32]

PHANTOM_LABELS = LabelSet(
    values={"liver": 1, "spleen": 2, "kidneys": 5, "aorta": 7, "lesion": 20},
    regions={"liver_with_lesion": ("liver", "lesion")},
)
"""What the phantoms are labelled with; the file values leave gaps on purpose."""

ORIENTATIONS = {2: ("RA", "LP", "LA", "AL"), 3: ("RAS", "LPS", "LAS", "RPI", "PIR", "SAL")}
"""Directions that the axes of the scans may run to."""

AIR_HU = -1000.0
NOISE_HU = 10.0
TEXTURE_HU = 5.0
SHADING_HU = 6.0
CUPPING_HU = 12.0
LARGE_MM = (384.0, 384.0, 375.0)
LARGE_STEPS = (4, 4, 2)
PSF_MM = 2.0
"""Width of the scanner's point spread, which adds to the voxel's own size."""


def make_phantom(seed: int, *, spatial_dims: int = 3, lesion: bool = True) -> tuple[Volume, Volume]:
    """Make one patient's scan and its reference label.

    Args:
        seed: Decides everything; the same seed gives the same voxels.
        spatial_dims: 3 for a volume of about 54x48x32 voxels of 4.9x4.9x6.7 mm; 2 for an axial
            image of about 112x96 pixels of 2.4 mm at the height of the lesion.
        lesion: Whether the liver has one.

    Returns:
        The image, int16 HU, and the label, uint8 values of ``PHANTOM_LABELS``, both ``(1, *S)`` on
        one grid, which is oblique and whose axes run in one of several orientations.
    """
    rng = np.random.default_rng((seed, spatial_dims))
    anatomy = draw_anatomy(rng, lesion=lesion)
    affine, spatial_shape = _draw_grid(rng, spatial_dims, _scan_centre(anatomy, spatial_dims))
    clean, label = paint(anatomy, affine, spatial_shape)
    name = f"phantom {seed}"
    image = Volume(_scan(rng, clean)[None], affine, name)
    return image, Volume(label[None], affine, f"{name} label")


def make_large_scan(seed: int, spatial_shape: tuple[int, int, int]) -> Volume:
    """Make one patient's scan of as many voxels as a clinical one, without a label, in seconds.

    The anatomy is painted on a coarser grid and interpolated; noise repeats along the axis.

    Args:
        seed: Decides everything.
        spatial_shape: Voxels of an upright grid in RAS order that covers 384x384x375 mm.

    Returns:
        int16 HU ``(1, *spatial_shape)``.
    """
    rng = np.random.default_rng(seed)
    anatomy = draw_anatomy(rng, lesion=True)
    coarse = np.maximum(1, np.array(spatial_shape) // LARGE_STEPS)
    corner = anatomy.centre_of("fat") - np.array(LARGE_MM) / 2
    grids = []
    for shape in (coarse, np.array(spatial_shape)):
        grids.append(np.diag([*(np.array(LARGE_MM) / shape), 1.0]))
        grids[-1][:3, 3] = corner + np.diag(grids[-1])[:3] / 2
    clean, _ = paint(anatomy, grids[0], coarse.tolist())
    factors = [full / few for full, few in zip(spatial_shape, coarse, strict=True)]
    hu = zoom(clean, factors, order=1, mode="nearest", grid_mode=True)
    depth = min(spatial_shape[2], 16)
    noise = NOISE_HU * _smooth_noise(rng, (*spatial_shape[:2], depth), 0.6)
    for first in range(0, spatial_shape[2], depth):
        slab = hu[..., first : first + depth]
        slab += noise[..., : slab.shape[-1]]
    return Volume(np.round(hu).astype(np.int16)[None], grids[1], f"large phantom {seed}")


def paint(
    anatomy: Anatomy, affine: Affine, spatial_shape: Sequence[int]
) -> tuple[Field, NDArray[np.uint8]]:
    """Evaluate an anatomy at every voxel of a grid.

    Args:
        anatomy: The patient.
        affine: Voxel indices to world mm.
        spatial_shape: Size of the grid, two or three axes.

    Returns:
        HU with partial volume but free of noise, and label values, both of ``spatial_shape``.
    """
    points = _bend(_world_points(affine, spatial_shape), anatomy.warp)
    blur_mm = np.float32(np.hypot(np.prod(spacing_of(affine)) ** (1 / 3), PSF_MM))
    hu = np.full(points.shape[1], AIR_HU, dtype=np.float32)
    label = np.zeros(points.shape[1], dtype=np.uint8)
    for shape in anatomy.shapes:
        depth = _depth(shape, points)
        share = np.clip(depth / blur_mm + np.float32(0.5), 0, 1)
        hu += share * (np.float32(anatomy.hu[shape.tissue]) - hu)
        label[depth > 0] = PHANTOM_LABELS.values.get(shape.tissue, 0)
    return hu.reshape(spatial_shape), label.reshape(spatial_shape)


def write_phantom_dataset(
    folder: Path, num_cases: int, *, spatial_dims: int = 3, seed: int = 0, num_test: int = 0
) -> None:
    """Write a dataset of phantoms in the layout of the Medical Segmentation Decathlon.

    ``imagesTr`` and ``labelsTr`` hold the labelled scans, ``imagesTs`` and ``labelsTs`` those kept
    out; every eighth patient has no lesion. The same arguments give the same bytes.

    Args:
        folder: Made where it is missing.
        num_cases: Number of labelled scans.
        spatial_dims: 2 or 3.
        seed: Another seed gives other patients.
        num_test: Number of scans kept out.

    Raises:
        FileError: The folder cannot be written, or the disk is full.
    """
    names = [f"phantom_{index:03d}.nii.gz" for index in range(num_cases + num_test)]
    for index, name in enumerate(names):
        part = "Tr" if index < num_cases else "Ts"
        case_seed, lesion = 100_000 * seed + index, index % 8 != 7
        image, label = make_phantom(case_seed, spatial_dims=spatial_dims, lesion=lesion)
        write_volume(image, folder / f"images{part}" / name)
        write_volume(label, folder / f"labels{part}" / name)
    header = _msd_header(names[:num_cases], names[num_cases:], spatial_dims)
    write_json(folder / "dataset.json", header)


def _msd_header(training: list[str], test: list[str], spatial_dims: int) -> dict[str, Any]:
    structures = {str(value): name for name, value in PHANTOM_LABELS.values.items()}
    return {
        "name": "Lamina phantoms",
        "description": "Synthetic abdominal CT with exact labels, made by lamina.data.phantom",
        "licence": "Apache-2.0",
        "tensorImageSize": f"{spatial_dims}D",
        "modality": {"0": "CT"},
        "labels": {"0": "background"} | structures,
        "regions": {name: list(parts) for name, parts in PHANTOM_LABELS.regions.items()},
        "numTraining": len(training),
        "numTest": len(test),
        "training": [
            {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"} for name in training
        ],
        "test": [f"./imagesTs/{name}" for name in test],
    }


def _scan_centre(anatomy: Anatomy, spatial_dims: int) -> NDArray[np.float64]:
    """Return a scan's centre in world mm: the body's; in 2D at the lesion's or liver's height."""
    centre = anatomy.centre_of("fat")
    if spatial_dims == 2:
        tissues = {shape.tissue for shape in anatomy.shapes}
        centre[2] = anatomy.centre_of("lesion" if "lesion" in tissues else "liver")[2]
    return centre


def _draw_grid(
    rng: np.random.Generator, spatial_dims: int, centre: NDArray[np.float64]
) -> tuple[Affine, tuple[int, ...]]:
    """Draw the spacing, size, obliquity and orientation of a scan round ``centre`` (world mm)."""
    if spatial_dims == 3:
        spacing = np.array([rng.uniform(4.6, 5.2)] * 2 + [rng.uniform(6.2, 7.2)])
        shape = np.array((54, 48, 32)) + rng.integers(-3, 4, 3)
    else:
        spacing = np.array([rng.uniform(2.2, 2.6)] * 2 + [5.0])
        shape = np.array((112, 96, 1)) + (*rng.integers(-6, 7, 2), 0)
    affine = np.eye(4)
    affine[:3, :3] = _rotation(rng.uniform((-5, -5, -14), (5, 5, 14))) * spacing
    affine[:3, 3] = centre - affine[:3, :3] @ ((shape - 1) / 2)
    turn = reorientation(affine, str(rng.choice(ORIENTATIONS[spatial_dims])))
    return turn.affine(affine, shape.tolist()), tuple(int(shape[axis]) for axis in turn.axes)


def _rotation(degrees: NDArray[np.float64] | Triple) -> NDArray[np.float64]:
    """Return the rotation about x, then y, then z, ``(3, 3)``."""
    return np.asarray(Rotation.from_euler("xyz", degrees, degrees=True).as_matrix())


def _world_points(affine: Affine, spatial_shape: Sequence[int]) -> NDArray[np.float64]:
    """Return the world mm of every voxel centre, ``(3, N)``."""
    shape = (*spatial_shape, *[1] * (3 - len(spatial_shape)))
    return np.asarray(affine[:3, :3] @ np.indices(shape).reshape(3, -1) + affine[:3, 3:])


def _bend(points: NDArray[np.float64], warp: Warp) -> Field:
    waves = np.sin(warp.vectors @ points + warp.phases[:, None])
    return np.asarray(points + warp.displacements.T @ waves, dtype=np.float32)


def _depth(shape: Ellipsoid, points: Field) -> Field:
    """Return mm below the surface, negative outside, to first order: f / |grad f| (Taubin 1991)."""
    radii = np.array(shape.radii, dtype=np.float32)[:, None]
    axes = _rotation(shape.tilt).T.astype(np.float32)
    unit = axes @ (points - np.array(shape.centre, dtype=np.float32)[:, None]) / radii
    radius, slope = np.sqrt((unit**2).sum(axis=0)), np.sqrt(((unit / radii) ** 2).sum(axis=0))
    return np.asarray((1 - radius) * radius / np.maximum(slope, np.float32(1e-6)))


def _scan(rng: np.random.Generator, clean: Field) -> NDArray[np.int16]:
    """Add what a scanner adds: cupping and shading, tissue texture, correlated noise; int16 HU."""
    extent = min(clean.shape)
    body = (clean > AIR_HU / 2).astype(np.float32)
    within = -CUPPING_HU * gaussian_filter(body, extent / 6)
    for amplitude, width in ((SHADING_HU, extent / 4), (TEXTURE_HU, 1.8)):
        within += amplitude * _smooth_noise(rng, clean.shape, width)
    hu = clean + body * within + NOISE_HU * _smooth_noise(rng, clean.shape, 0.6)
    return np.asarray(np.clip(np.round(hu), -1024, 3071), dtype=np.int16)


def _smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], width: float) -> Field:
    """Return noise of unit variance, correlated over ``width`` voxels."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), width, mode="wrap")
    return np.asarray(noise / noise.std(), dtype=np.float32)

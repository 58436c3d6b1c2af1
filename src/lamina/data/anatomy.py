"""The anatomy of the phantoms: ellipsoids in world millimetres, painted back to front.

A later shape replaces an earlier one, so that fat carves the liver's lower face and the renal sinus
hollows the kidney. One smooth low-frequency warp bends them all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import inf

import numpy as np
from numpy.typing import NDArray

Triple = tuple[float, float, float]
Array = NDArray[np.float64]

_NUM_WAVES = 8
"""Of which a warp is the sum."""

HU: Mapping[str, float] = {
    "fat": -95,
    "muscle": 62,
    "bone": 240,
    "lung": -820,
    "marrow": 165,
    "disc": 90,
    "cord": 35,
    "stomach": 75,
    "bowel": 50,
    "opacified bowel": 115,
    "gas": -700,
    "bile": 12,
    "vein": 122,
    "liver": 104,
    "lesion": 48,
    "spleen": 132,
    "kidneys": 185,
    "aorta": 155,
}
"""Mean of each tissue in the portal venous phase, in HU."""

ENHANCING = ("vein", "liver", "lesion", "spleen", "kidneys", "aorta", "stomach", "opacified bowel")
"""Tissues whose HU follow the scan's own contrast timing."""


@dataclass(frozen=True)
class Ellipsoid:
    """One piece of tissue; a radius may be infinite, which makes a cylinder."""

    tissue: str
    centre: Triple
    """mm, RAS+; relative to the body's centre until the body is placed."""
    radii: Triple
    """mm along the ellipsoid's own axes."""
    tilt: Triple = (0, 0, 0)
    """Degrees about x, then y, then z."""


@dataclass(frozen=True)
class Warp:
    """A displacement of space: a sum of plane waves."""

    vectors: Array
    """Radians per mm, ``(K, 3)``."""
    phases: Array
    """Radians, ``(K,)``."""
    displacements: Array
    """mm, ``(K, 3)``."""


@dataclass(frozen=True)
class Anatomy:
    """One patient: shapes in world mm and painting order, HU of each tissue, and the warp."""

    shapes: tuple[Ellipsoid, ...]
    hu: Mapping[str, float]
    warp: Warp

    def centre_of(self, tissue: str) -> Array:
        """Return the world mm where the first shape of a tissue is centred."""
        return np.array(next(shape.centre for shape in self.shapes if shape.tissue == tissue))


FRAME = (
    Ellipsoid("fat", (0, 0, 0), (126, 94, inf)),
    Ellipsoid("muscle", (0, 0, 0), (115, 83, inf)),
    *(Ellipsoid("bone", (0, 0, z), (110, 78, 5), (-20, 0, 0)) for z in range(-110, 151, 26)),
    Ellipsoid("fat", (0, 2, 0), (103, 71, inf)),
    Ellipsoid("lung", (56, -8, 122), (46, 58, 72)),
    Ellipsoid("lung", (-56, -8, 122), (46, 58, 72)),
    Ellipsoid("muscle", (32, -70, 0), (27, 17, inf)),
    Ellipsoid("muscle", (-32, -70, 0), (27, 17, inf)),
    Ellipsoid("muscle", (36, -50, -75), (16, 17, 62), (0, 8, 0)),
    Ellipsoid("muscle", (-36, -50, -75), (16, 17, 62), (0, -8, 0)),
    Ellipsoid("bone", (0, -76, 0), (14, 12, inf)),
    Ellipsoid("bone", (0, -54, 0), (21, 17, inf)),
    Ellipsoid("marrow", (0, -54, 0), (17, 13, inf)),
    *(Ellipsoid("disc", (0, -54, z), (23, 19, 5)) for z in range(-128, 129, 32)),
    Ellipsoid("cord", (0, -73, 0), (8, 6, inf)),
)
"""What holds the organs, from the skin inwards: rigid parts of the body."""

ORGANS = (
    Ellipsoid("stomach", (-40, 30, 40), (32, 30, 46), (0, 20, 0)),
    Ellipsoid("liver", (52, 2, 32), (50, 64, 64), (0, 6, 0)),
    Ellipsoid("liver", (4, 36, 54), (60, 29, 30), (0, -12, 0)),
    Ellipsoid("fat", (16, 12, -34), (42, 46, 48), (0, 30, 0)),
    Ellipsoid("bile", (34, 34, -10), (12, 14, 22), (20, 0, 0)),
    Ellipsoid("vein", (20, -30, 0), (11, 9, inf)),
    Ellipsoid("spleen", (-80, -24, 32), (20, 38, 44), (0, 0, 20)),
    Ellipsoid("fat", (52, -44, -24), (27, 24, 52), (-8, 10, 0)),
    Ellipsoid("kidneys", (54, -43, -22), (23, 20, 47), (-8, 10, 0)),
    Ellipsoid("fat", (39, -36, -22), (13, 11, 22), (-8, 10, 0)),
    Ellipsoid("kidneys", (-54, -42, -16), (23, 20, 47), (-8, -10, 0)),
    Ellipsoid("fat", (-39, -35, -16), (13, 11, 22), (-8, -10, 0)),
    Ellipsoid("aorta", (-8, -28, 0), (12, 12, inf)),
)
"""Organs and what carves them, varied in size, place and tilt from patient to patient."""


def draw_anatomy(rng: np.random.Generator, *, lesion: bool) -> Anatomy:
    """Draw a patient: where the body lies, every organ's size and place, tissue HU, the warp.

    Args:
        rng: Source of all that varies.
        lesion: Whether the liver has one.
    """
    shapes = [*FRAME, *_draw_bowel(rng), *(_vary(organ, rng) for organ in ORGANS)]
    if lesion:
        liver = next(i for i, shape in enumerate(shapes) if shape.tissue == "liver")
        shapes.insert(liver + 2, _draw_lesion(rng, shapes[liver]))
    size, position = rng.uniform(0.93, 1.05), rng.uniform((-30, -30, -400), (30, 30, 200))
    placed = tuple(
        replace(
            shape,
            centre=_triple(position + size * np.array(shape.centre)),
            radii=_triple(size * np.array(shape.radii)),
        )
        for shape in shapes
    )
    return Anatomy(placed, _draw_hu(rng), _draw_warp(rng))


def _vary(shape: Ellipsoid, rng: np.random.Generator) -> Ellipsoid:
    return replace(
        shape,
        centre=_triple(np.array(shape.centre) + rng.uniform(-5, 5, 3)),
        radii=_triple(np.array(shape.radii) * rng.uniform(0.9, 1.1, 3)),
        tilt=_triple(np.array(shape.tilt) + rng.uniform(-8, 8, 3)),
    )


def _draw_lesion(rng: np.random.Generator, liver: Ellipsoid) -> Ellipsoid:
    """Place a lesion inside the right lobe, at a height that mostly cuts spleen and kidneys too."""
    direction = rng.normal(size=3)
    direction *= rng.uniform(0.1, 0.45) / np.linalg.norm(direction)
    centre = liver.centre + direction * liver.radii * np.array((1, 1, 0.4))
    radii = rng.uniform(16, 23) * rng.uniform(0.85, 1.15, 3)
    return Ellipsoid("lesion", _triple(centre), _triple(radii), _triple(rng.uniform(-90, 90, 3)))


def _draw_bowel(rng: np.random.Generator) -> list[Ellipsoid]:
    """Draw loops, some with gas on top: never labelled, and as bright as the organs."""
    loops = []
    for centre in rng.uniform((-85, -10, -120), (85, 55, 20), (20, 3)):
        tissue = "opacified bowel" if rng.random() < 0.5 else "bowel"
        radii = rng.uniform(12, 24, 3)
        loops.append(Ellipsoid(tissue, _triple(centre), _triple(radii)))
        if rng.random() < 0.3:
            loops.append(Ellipsoid("gas", _triple(centre + (0, 4, 0)), _triple(0.55 * radii)))
    return loops


def _draw_hu(rng: np.random.Generator) -> dict[str, float]:
    """Vary each tissue by a few HU, and all that enhance by the scan's contrast timing."""
    timing = rng.uniform(0.85, 1.15)
    hu = {tissue: mean + rng.uniform(-4, 4) for tissue, mean in HU.items()}
    return hu | {tissue: 40 + timing * (hu[tissue] - 40) for tissue in ENHANCING}


def _draw_warp(rng: np.random.Generator) -> Warp:
    direction = rng.normal(size=(_NUM_WAVES, 3))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    wavelength_mm = rng.uniform(80, 220, (_NUM_WAVES, 1))
    phases = rng.uniform(0, 2 * np.pi, _NUM_WAVES)
    return Warp(2 * np.pi / wavelength_mm * direction, phases, rng.normal(0, 1.3, (_NUM_WAVES, 3)))


def _triple(values: Array) -> Triple:
    x, y, z = (float(value) for value in values)
    return x, y, z

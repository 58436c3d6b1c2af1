"""Surfaces packed for the viewer within a page: a few bytes a triangle, and how far they differ."""

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lamina.report.mesh import Surface, smoothed, thinned

MAX_FACES = 24_000
"""Triangles of one side of a scene, shared by its structures."""
_STEPS = 32767
_FEWEST_FACES = 600


def pack_scene(
    reference: Sequence[Surface], predicted: Sequence[Surface], voxel_mm: float
) -> dict[str, Any]:
    """Return what the viewer draws: two sides of one case in one frame.

    Each vertex carries its distance to the other side's surface of the same structure, so that
    what was missed shows on the reference and what was invented on the prediction.

    Args:
        reference: Surfaces in RAS+ mm, which are smoothed here.
        predicted: Likewise.
        voxel_mm: Longest side of a voxel; colours tell no smaller distances apart.

    Returns:
        Plain data: the middle and the extent in mm, the distance in mm that has the last colour,
        and the surfaces of each side, coordinates as 16-bit and distances as 8-bit whole numbers.
    """
    sides = {
        "reference": [smoothed(surface) for surface in reference],
        "predicted": [smoothed(surface) for surface in predicted],
    }
    every = np.concatenate([s.vertices for side in sides.values() for s in side])
    middle = (every.min(axis=0) + every.max(axis=0)) / 2
    radius = float(np.linalg.norm(every - middle, axis=1).max())
    opposite = {"reference": sides["predicted"], "predicted": sides["reference"]}
    drawn = {
        side: [
            (light, _distances(light, whole, opposite[side]))
            for light, whole in zip(_light(own), own, strict=True)
        ]
        for side, own in sides.items()
    }
    measured = np.concatenate([d for surfaces in drawn.values() for _, d in surfaces])
    known = measured[np.isfinite(measured)]
    usual = float(np.percentile(known, 97)) if known.size else 0.0
    far = float(math.ceil(max(voxel_mm, usual)))
    return {
        "middle": middle.round(2).tolist(),
        "radius": round(radius, 2),
        "far_mm": far,
        **{
            side: [_packed(surface, d, middle, radius, far) for surface, d in surfaces]
            for side, surfaces in drawn.items()
        },
    }


def _light(surfaces: Sequence[Surface]) -> list[Surface]:
    """Thin surfaces, each to its share of the triangles."""
    total = sum(len(surface.faces) for surface in surfaces)
    share = min(1.0, MAX_FACES / total) if total else 1.0
    return [
        thinned(surface, max(_FEWEST_FACES, int(share * len(surface.faces))))
        for surface in surfaces
    ]


def _distances(light: Surface, whole: Surface, others: Sequence[Surface]) -> NDArray[np.float64]:
    """Return mm from each vertex to the same structure of the other side; infinite without it.

    They are those of the nearest vertex of the whole surface: thinning moves vertices to between
    the vertices of the other side, which would seem to be far even where both sides are the same.

    Args:
        light: The surface that is drawn.
        whole: The same, before it was thinned.
        others: Surfaces of the other side, whole.
    """
    nearest = whole.vertices[cKDTree(whole.vertices).query(light.vertices)[1]]
    for other in others:
        if other.name == light.name:
            return np.asarray(cKDTree(other.vertices).query(nearest)[0])
    return np.full(len(nearest), np.inf)


def _packed(
    surface: Surface,
    distances: NDArray[np.float64],
    middle: NDArray[np.float64],
    radius: float,
    far: float,
) -> dict[str, Any]:
    steps = np.rint((surface.vertices - middle) / radius * _STEPS).clip(-_STEPS, _STEPS)
    return {
        "name": surface.name,
        "colour": surface.colour,
        "vertices": _text(steps.astype("<i2")),
        "faces": _text(surface.faces.astype("<u4")),
        "distances": _text(np.rint((distances / far).clip(0, 1) * 255).astype("u1")),
    }


def _text(array: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()

"""Surfaces of segmented structures in patient millimetres, and files that hold them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from lamina.errors import FileError
from lamina.files import atomic_path, file_names
from lamina.geometry import Affine, voxel_volume
from lamina.labels import LabelSet
from lamina.report.drawing import Colour
from lamina.report.overlay import label_colours

Space = Literal["RAS", "LPS"]
"""Where x, y and z run to: right, front, head; or left, back, head, as in DICOM."""

SUFFIXES = (".glb", ".obj", ".stl")

_SMOOTHINGS = 12
_CHANGE = 0.05
_STL_HEADER = 80


@dataclass(frozen=True, eq=False)
class Surface:
    """The closed surface of one structure."""

    name: str
    colour: Colour
    vertices: NDArray[np.float64]
    """``(N, 3)`` in mm."""
    faces: NDArray[np.int64]
    """``(M, 3)`` vertices of each triangle, counter-clockwise as seen from outside."""
    volume_ml: float
    """Of the structure's voxels; its surface cuts their corners, and encloses less."""


def surfaces_of(
    indices: NDArray[np.uint8],
    affine: Affine,
    labels: LabelSet,
    *,
    smooth: bool = False,
    max_faces: int | None = None,
) -> list[Surface]:
    """Return the surface of every structure that occurs, in class order, in RAS+ mm.

    Surfaces run half-way between voxel centres inside and outside, and along the border of the
    grid where a structure is cut off by it.

    Args:
        indices: Class indices ``(*S)`` of three axes.
        affine: Voxel indices -> RAS+ mm.
        labels: Names of the classes.
        smooth: Take the steps of the voxels away, as :func:`smoothed` does.
        max_faces: Triangles that each structure may have.
    """
    boxes = dict(enumerate(find_objects(indices, labels.num_classes - 1), start=1))
    found = []
    for index, (name, colour) in enumerate(label_colours(labels).items(), start=1):
        box = boxes[index]
        if box is not None:
            mask = indices[box] == index
            vertices, faces = _marched(mask)
            vertices = vertices + [side.start for side in box]
            volume_ml = int(mask.sum()) * voxel_volume(affine, 3) / 1000
            surface = _placed(Surface(name, colour, vertices, faces, volume_ml), affine)
            found.append(thinned(smoothed(surface) if smooth else surface, max_faces))
    return found


def write_surfaces(path: Path, surfaces: Sequence[Surface], space: Space = "RAS") -> list[Path]:
    """Write surfaces in mm, with names and colours where the format has them.

    STL has neither: of several structures each gets a file of its own, with its name at the end,
    and a number where another structure has that name already.

    Args:
        path: ``.glb``, ``.obj`` or ``.stl``.
        surfaces: In RAS+ mm.
        space: Axes of the coordinates in the file, which says so itself.

    Returns:
        The files that were written.

    Raises:
        FileError: The suffix is another one, or a file cannot be written.
    """
    check_suffix(path)
    turned = surfaces if space == "RAS" else [_to_lps(surface) for surface in surfaces]
    suffix = path.suffix.lower()
    if suffix != ".stl":
        content = _glb(turned, space) if suffix == ".glb" else _obj(turned, space)
        files = {path: content}
    elif len(turned) == 1:
        files = {path: _stl(turned[0], space)}
    else:
        files = {
            path.with_name(f"{path.stem}_{name}{path.suffix}"): _stl(s, space)
            for s, name in zip(turned, file_names(s.name for s in turned), strict=True)
        }
    for file, content in files.items():
        with atomic_path(file) as part:
            part.write_bytes(content)
    return [*files]


def check_suffix(path: Path) -> None:
    """Refuse a file of a format that surfaces are not written in.

    Raises:
        FileError: It is.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise FileError(
            f"{path}: surfaces are not written as {path.suffix or 'a file without suffix'}.",
            remedy=f"Give one of {', '.join(SUFFIXES)}.",
        )


def _marched(mask: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return vertices in voxels of a mask's surface, closed at its border, and its triangles.

    These are counter-clockwise as seen from inside.
    """
    from skimage.measure import marching_cubes

    vertices, faces, _, _ = marching_cubes(np.pad(mask, 1).astype(np.float32), 0.5)
    return vertices.astype(np.float64) - 1, faces.astype(np.int64)


def _placed(surface: Surface, affine: Affine) -> Surface:
    """Move a surface from voxels to mm; its triangles face outwards whatever way the axes run."""
    vertices = surface.vertices @ affine[:3, :3].T + affine[:3, 3]
    mirrored = np.linalg.det(affine[:3, :3]) < 0
    faces = surface.faces if mirrored else surface.faces[:, ::-1]
    return replace(surface, vertices=vertices, faces=faces)


def smoothed(surface: Surface) -> Surface:
    """Take the steps of the voxels away (Taubin 1995), which keeps the volume of what is large.

    Parts whose volume would change by more than 5 %, such as thin ones, stay as they are.
    """
    from trimesh.graph import connected_component_labels
    from trimesh.smoothing import filter_taubin

    mesh = filter_taubin(_mesh(surface), lamb=0.5, nu=0.53, iterations=_SMOOTHINGS)
    moved = np.asarray(mesh.vertices)
    parts = connected_component_labels(mesh.edges, node_count=len(moved))
    stepped, smooth = (_volumes(v, surface.faces, parts) for v in (surface.vertices, moved))
    kept = np.abs(smooth - stepped) <= _CHANGE * np.abs(stepped)
    return replace(surface, vertices=np.where(kept[parts, None], moved, surface.vertices))


def _volumes(
    vertices: NDArray[np.float64], faces: NDArray[np.int64], parts: NDArray[np.int32]
) -> NDArray[np.float64]:
    """Return the signed volume of each part, given the part ``(N,)`` of each vertex."""
    a, b, c = (vertices[faces[:, corner]] - vertices.mean(axis=0) for corner in range(3))
    cones = np.einsum("ij,ij->i", a, np.cross(b, c)) / 6
    return np.bincount(parts[faces[:, 0]], weights=cones).astype(np.float64)


def thinned(surface: Surface, max_faces: int | None) -> Surface:
    """Return a surface of fewer triangles; where it is thin that may leave gaps."""
    if max_faces is None or len(surface.faces) <= max_faces:
        return surface
    from fast_simplification import simplify

    vertices, faces = simplify(surface.vertices, surface.faces, target_count=max_faces)
    return replace(surface, vertices=vertices.astype(np.float64), faces=faces.astype(np.int64))


def _to_lps(surface: Surface) -> Surface:
    return replace(surface, vertices=surface.vertices * (-1, -1, 1))


def _mesh(surface: Surface) -> Any:
    from trimesh import Trimesh

    return Trimesh(surface.vertices, surface.faces, process=False)


def _glb(surfaces: Sequence[Surface], space: Space) -> bytes:
    from trimesh import Scene
    from trimesh.visual import TextureVisuals
    from trimesh.visual.material import PBRMaterial

    scene = Scene()
    for surface in surfaces:
        mesh = _mesh(surface)
        shade = PBRMaterial(
            name=surface.name,
            baseColorFactor=[*surface.colour, 1.0],
            metallicFactor=0.0,
            roughnessFactor=0.7,
        )
        mesh.visual = TextureVisuals(material=shade)
        scene.add_geometry(mesh, node_name=surface.name, geom_name=surface.name)

    def say_where(tree: dict[str, Any]) -> None:
        tree["asset"]["extras"] = {"space": space, "unit": "mm"}

    exported: bytes = scene.export(
        file_type="glb", include_normals=True, tree_postprocessor=say_where
    )
    return exported


def _obj(surfaces: Sequence[Surface], space: Space) -> bytes:
    """Return named objects with their colour at every vertex, which most programs read."""
    lines = [f"# SPACE={space} UNIT=mm"]
    before = 1
    for surface in surfaces:
        lines.append("o " + " ".join(surface.name.split()))
        colour = " ".join(f"{part:.4f}" for part in surface.colour)
        lines += [f"v {x:.4f} {y:.4f} {z:.4f} {colour}" for x, y, z in surface.vertices]
        lines += [f"f {a} {b} {c}" for a, b, c in (surface.faces + before).tolist()]
        before += len(surface.vertices)
    return ("\n".join(lines) + "\n").encode()


def _stl(surface: Surface, space: Space) -> bytes:
    from trimesh.exchange.stl import export_stl

    header = f"SPACE={space} UNIT=mm".encode().ljust(_STL_HEADER)
    content: bytes = export_stl(_mesh(surface))
    return header + content[_STL_HEADER:]

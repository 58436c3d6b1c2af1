"""Mesh: turn a segmentation into surfaces in patient millimetres."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina.errors import GeometryError, LabelError
from lamina.folders.pairs import declared_labels, found_labels
from lamina.io import read_labels
from lamina.labels import IGNORE_INDEX, LabelSet
from lamina.report.mesh import Space, Surface, check_suffix, surfaces_of, write_surfaces


@dataclass(frozen=True, kw_only=True)
class Meshes:
    """What ``mesh`` wrote."""

    out: Path
    files: tuple[Path, ...]
    """That of ``out``; of STL, one beside it for each of several structures."""
    space: Space
    """Axes of the coordinates, which are mm."""
    surfaces: tuple[Surface, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.out),
            "files": [str(file) for file in self.files],
            "space": self.space,
            "unit": "mm",
            "structures": [
                {
                    "name": surface.name,
                    "vertices": len(surface.vertices),
                    "faces": len(surface.faces),
                    "volume_ml": surface.volume_ml,
                }
                for surface in self.surfaces
            ],
        }


def mesh(
    segmentation: str | Path,
    out: str | Path,
    *,
    structures: Sequence[str] | None = None,
    smooth: bool = False,
    max_faces: int | None = None,
    space: Space = "RAS",
    labels: LabelSet | None = None,
) -> Meshes:
    """Write the surfaces of a segmentation's structures in mm.

    Args:
        segmentation: Label map of three axes.
        out: ``.glb``, ``.obj`` or ``.stl``.
        structures: Names to write; all that occur by default.
        smooth: Take the steps of the voxels away.
        max_faces: Triangles per structure; all by default.
        space: Axes of the coordinates.
        labels: What the values stand for; by default what ``prediction.json`` or ``dataset.json``
            beside the file says, else every value found in it.

    Raises:
        FileError: The segmentation cannot be read, or ``out`` not be written.
        GeometryError: It is a picture, or a single slice without a thickness.
        LabelError: It holds undeclared values, or none of the structures.
    """
    segmentation, out = Path(segmentation), Path(out)
    check_suffix(out)
    volume = read_labels(segmentation)
    if volume.spatial_dims != 3 or volume.unit != "mm":
        raise GeometryError(f"{segmentation}: is a picture, which has no surface in space.")
    known = labels or declared_labels(segmentation, segmentation)
    known = known or found_labels({"": segmentation})
    wanted = set(structures or known.foreground)
    if strange := wanted - set(known.foreground):
        raise LabelError(
            f"{segmentation}: has no structure {min(strange)!r}.",
            remedy=f"Structures are {', '.join(known.foreground)}.",
        )
    indices = known.encode(volume.array[0], volume.source)
    indices[indices == IGNORE_INDEX] = 0
    every = surfaces_of(indices, volume.affine, known, smooth=smooth, max_faces=max_faces)
    found = [surface for surface in every if surface.name in wanted]
    if not found:
        raise LabelError(f"{segmentation}: nothing is segmented of {', '.join(sorted(wanted))}.")
    files = write_surfaces(out, found, space)
    return Meshes(out=out, files=tuple(files), space=space, surfaces=tuple(found))

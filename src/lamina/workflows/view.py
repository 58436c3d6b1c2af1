"""View: look at a scan, and at what was segmented in it, in a browser on this machine."""

import importlib.util
import logging
import threading
import webbrowser
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from lamina.errors import FileError, GeometryError, LabelError, LaminaError
from lamina.folders.pairs import declared_labels
from lamina.io import read_labels, read_volume
from lamina.io.structures import has_structures, read_structures
from lamina.labels import LabelSet
from lamina.report.structures import count_structures
from lamina.report.viewable import write_viewable
from lamina.serve.view_server import ViewServer
from lamina.volume import Volume

_log = logging.getLogger(__name__)

_MOST_STRUCTURES = 254
_MESH_PACKAGES = ("skimage", "trimesh", "fast_simplification")
_MAX_FACES = 200_000
"""Triangles of each structure, as many as a browser turns smoothly."""
_LEADING = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>Lamina</title>'
    '<meta http-equiv="refresh" content="0; url={0}"><a href="{0}">Lamina</a></html>'
)

Make = Callable[[], Path]


def view(
    scan: str | Path,
    segmentation: str | Path | None = None,
    *,
    port: int = 0,
    browser: bool = True,
    ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Show a scan in the browser until interrupted; nobody else can see it.

    Args:
        scan: A file of any known format, or a folder of one DICOM series.
        segmentation: A label map, DICOM SEG or RTSTRUCT.
        port: Of this machine; a free one by default.
        browser: Whether to open one; where there is none, the address must be opened by hand.
        ready: Called with the address, which carries a token, once it is served.

    Raises:
        FileError: A file cannot be read, or the port is taken.
        GeometryError: The segmentation has other axes than the scan, or lies elsewhere.
        LabelError: It is no label map.
    """
    with served(scan, segmentation, port=port) as server:
        ready(server.url)
        with TemporaryDirectory(prefix="lamina-open-") as folder, suppress(KeyboardInterrupt):
            if browser:
                webbrowser.open(_leading(server.url, Path(folder)).as_uri())
            server.serve_forever()


def _leading(url: str, folder: Path) -> Path:
    """Write a page that leads to an address; others can read a browser's command line, not this."""
    page = folder / "open.html"
    page.touch(mode=0o600)
    page.write_text(_LEADING.format(escape(url)), encoding="utf-8")
    return page


@contextmanager
def served(
    scan: str | Path, segmentation: str | Path | None = None, *, port: int = 0
) -> Iterator[ViewServer]:
    """Yield a server of a scan that does not serve yet; what was written for it goes with it.

    Raises:
        FileError, GeometryError, LabelError: As for :func:`view`.
    """
    image = read_volume(scan)
    with TemporaryDirectory(prefix="lamina-view-") as name:
        folder = Path(name)
        write_viewable(image, folder / "scan.nii")
        files = {"scan.nii": _made(folder / "scan.nii")}
        job = _job(Path(scan), image)
        if segmentation:
            marked = _segmented(Path(segmentation), image)
            write_viewable(marked.label, folder / "segmentation.nii")
            files |= {"segmentation.nii": _made(folder / "segmentation.nii")}
            job |= {
                "structures": marked.structures(),
                "overlap": marked.overlap,
                "flags": marked.flags,
            }
            if marked.is_solid and _can_mesh():
                files |= {"segmentation.glb": _mesh(marked, folder)}
        job["files"] = [_listed(name, folder) for name in files]
        try:
            server = ViewServer(job, files, port)
        except OSError as error:
            raise FileError(
                f"port {port}: cannot be served: {error.strerror}.",
                remedy="Give another port, or none to take a free one.",
            ) from error
        with server:
            yield server


def _job(scan: Path, image: Volume) -> dict[str, Any]:
    """Return what the page is told of a scan, in the words of ``lamina serve``."""
    return {
        "id": "local",
        "state": "done",
        "progress": 1.0,
        "stage": "",
        "model": None,
        "name": scan.resolve().name,
        "created": None,
        "started": None,
        "finished": None,
        "error": None,
        "position": None,
        "structures": [],
        "flags": [],
        "affine": image.affine.tolist(),
    }


def _listed(name: str, folder: Path) -> dict[str, Any]:
    kind = "mesh" if name.endswith(".glb") else name.partition(".")[0]
    path = folder / name
    return {"name": name, "kind": kind, "size_bytes": path.stat().st_size if path.exists() else 0}


@dataclass(kw_only=True)
class _Marked:
    """A segmentation, what its values stand for, and what is to be known of it."""

    label: Volume
    labels: LabelSet | None
    """``None`` where nothing is segmented."""
    counts: Mapping[int, int]
    """Value -> voxels, those too that a later structure hides."""
    flags: list[str]
    overlap: bool = False
    """Whether voxels count for several structures."""

    @property
    def is_solid(self) -> bool:
        """Whether it has surfaces in space."""
        return self.label.spatial_dims == 3 and bool(self.label.array.any())

    def structures(self) -> list[dict[str, Any]]:
        """Return what the page lists."""
        return count_structures(self.labels, self.counts, self.label) if self.labels else []


def _segmented(path: Path, image: Volume) -> _Marked:
    if path.is_file() and has_structures(path):
        found = _from_object(path, image)
    else:
        found = _from_map(path)
    label = found.label
    if (label.spatial_dims, label.unit) != (image.spatial_dims, image.unit):
        raise GeometryError(
            f"{path}: has {label.spatial_dims} axes in {label.unit}, the scan "
            f"{image.spatial_dims} in {image.unit}.",
            remedy="Give the segmentation of this scan.",
        )
    try:
        image.check_grid_of(label)
    except GeometryError as error:
        if image.spatial_dims == 2:
            raise
        _log.warning("%s", error.message)
        found.flags.append("The segmentation lies on another grid than the scan.")
    return found


def _from_object(path: Path, image: Volume) -> _Marked:
    """Paint the structures of a DICOM object, later ones over earlier ones."""
    array = np.zeros(image.spatial_shape, np.uint16)
    values: dict[str, int] = {}
    counts: Counter[int] = Counter()
    hidden = False
    for name, mask in read_structures(path, image):
        value = values.setdefault(name, len(values) + 1)
        hidden |= bool(((array != 0) & (array != value) & mask).any())
        counts[value] += int(np.count_nonzero(mask))
        array[mask] = value
    return _Marked(
        label=replace(image, array=array[None], source=str(path)),
        labels=LabelSet(values=values) if values else None,
        counts=counts,
        flags=["Structures overlap; where they do, the later one is shown."] if hidden else [],
        overlap=hidden,
    )


def _from_map(path: Path) -> _Marked:
    label = read_labels(path)
    values, counts = np.unique(label.array, return_counts=True)
    found = dict(zip(values.tolist(), counts.tolist(), strict=True))
    if len(found) > _MOST_STRUCTURES:
        raise LabelError(
            f"{path}: holds {len(found)} different values; a label map holds at most "
            f"{_MOST_STRUCTURES}.",
            remedy="Give the scan first, then its segmentation.",
        )
    labels = _named(path, found)
    flags = [] if labels else ["Nothing is segmented."]
    return _Marked(label=label, labels=labels, counts=found, flags=flags)


def _named(path: Path, found: Iterable[int]) -> LabelSet | None:
    """Return the labels that a file beside the map declares, and a name for each other value."""
    try:
        declared = declared_labels(path, path)
    except LaminaError as error:
        _log.warning("%s; values stand without names.", error.message)
        declared = None
    background = declared.background if declared else 0
    known = dict(declared.values) if declared else {}
    others = sorted(set(found) - {background, *known.values()})
    named = known | {f"label_{value}": value for value in others}
    terms = {n: t for n, t in declared.terms.items() if n in named} if declared else {}
    return LabelSet(values=named, background=background, terms=terms) if named else None


def _made(path: Path) -> Make:
    return lambda: path


def _can_mesh() -> bool:
    return all(importlib.util.find_spec(package) for package in _MESH_PACKAGES)


def _mesh(marked: _Marked, folder: Path) -> Make:
    """Return what makes the surfaces when they are first asked for."""
    path, lock = folder / "segmentation.glb", threading.Lock()

    def make() -> Path:
        from lamina.report.mesh import surfaces_of, write_surfaces

        label, labels = marked.label, marked.labels
        with lock:
            if labels and not path.exists():
                indices = labels.encode(label.array[0], label.source)
                found = surfaces_of(
                    indices, label.affine, labels, smooth=True, max_faces=_MAX_FACES
                )
                write_surfaces(path, found)
        return path

    return make

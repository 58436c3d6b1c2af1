"""The job of a server's worker: one upload in, a segmentation in every form out.

The scan is read, segmented and written as ``predict`` does it, so that both agree voxel by voxel.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from lamina import __version__
from lamina.data.case import Case
from lamina.errors import ConfigError, LaminaError, ResourceError
from lamina.files import sha256
from lamina.folders.model import Model, load
from lamina.inference.memory import held
from lamina.io import claim_of, write_volume
from lamina.io.derived import Kind, Producer, write_structures
from lamina.report.segmentation import save_segmentation_page
from lamina.report.slices import is_ct
from lamina.report.structures import describe_structures
from lamina.report.viewable import write_viewable
from lamina.serve.intake import Scan, find_scan
from lamina.serve.intake.uploads import base_name
from lamina.serve.jobs import Tell, Work
from lamina.volume import Volume
from lamina.workflows.mesh import mesh
from lamina.workflows.steps.quality import CheckedModel

log = logging.getLogger(__name__)

SEGMENTATION = "segmentation.nii.gz"
"""The file of label values."""

_KEPT_MODELS = 4
_MAX_FACES = 60_000
_SHARES = {"reading": 0.0, "segmenting": 0.05, "writing": 0.85, "drawing": 0.92}
"""Progress at which each stage begins."""
_OBJECTS: dict[str, Kind] = {"segmentation.dcm": "seg", "rtstruct.dcm": "rtstruct"}


@dataclass(kw_only=True)
class _Result:
    segmentation: Volume
    scan: Volume
    files: dict[str, str] = field(default_factory=dict)
    """Name -> kind."""
    flags: list[str] = field(default_factory=list)


class Segmenter:
    """Segments uploads with models that it keeps in memory, the last ones used.

    Args:
        models: Name -> ``.lamina`` file.
        threads: For the network.
        loading: As for :func:`~lamina.folders.model.load`.
    """

    def __init__(self, models: Mapping[str, Path], *, threads: int = 1, **loading: Any) -> None:
        import torch

        torch.set_num_threads(threads)
        self.models, self.loading = dict(models), loading
        self._model = lru_cache(_KEPT_MODELS)(self._load)

    def __call__(self, work: Work, tell: Tell) -> Mapping[str, Any]:
        """Do a job; see :data:`lamina.serve.jobs.Job`.

        Raises:
            LaminaError: The upload is no scan for the model; server's paths are not in its message.
        """
        try:
            return self._segment(work, tell)
        except LaminaError as error:
            error.message = _shown(error.message, work, self.models)
            raise

    def _segment(self, work: Work, tell: Tell) -> Mapping[str, Any]:
        tell("reading", _SHARES["reading"])
        model, digest = self._model(work.model)
        plan = model.bundle.plan
        scan = find_scan(work.files, len(plan.channels), ordered=work.ordered)
        _check_room(scan, model.predictor.ram_bytes)
        case = Case(case_id="scan", group="", images=scan.images, series=scan.series)
        stored = case.read_image(plan.channels)
        image = stored.sized((work.pixel_size,) * 2) if work.pixel_size else stored

        def on_window(done: int, in_all: int) -> None:
            first, end = _SHARES["segmenting"], _SHARES["writing"]
            tell("segmenting", first + (end - first) * done / in_all)

        found, quality = CheckedModel.of(model).segment(image, on_window)
        tell("writing", _SHARES["writing"])
        flags = [*scan.flags, *_guessed(scan, work, plan.channels)]
        if image is not stored:
            flags.append(f"Pixels were said to be {work.pixel_size:g} mm wide.")
        flags += [flag["text"] for flag in quality["flags"] or ()]
        result = _Result(segmentation=found, scan=image, flags=flags)
        _write_volumes(result, work.out, stored)
        if scan.is_dicom and image.unit == "mm" and image.spatial_dims == 3:
            _write_objects(result, work.out, scan, model, digest)
        tell("drawing", _SHARES["drawing"])
        structures = describe_structures(found, plan.labels)
        _write_pictures(result, work, model, structures)
        return {
            "structures": structures,
            "flags": result.flags,
            "affine": stored.affine.tolist(),
            "files": result.files,
        }

    def _load(self, name: str) -> tuple[Model, str]:
        """Return a model and the SHA-256 of its file."""
        if name not in self.models:
            raise ConfigError(f"The model {name!r} is not served any more.")
        file = self.models[name]
        return load(file, **self.loading), sha256(file)


def _check_room(scan: Scan, ram_bytes: float | None) -> None:
    """Refuse a scan whose header alone tells that it is too large.

    Raises:
        ResourceError: Reading it takes more memory than is granted.
        FileError: Its header is damaged.
    """
    if ram_bytes is None:
        return
    needed = sum(claim_of(path, scan.series).reading_bytes for path in scan.images)
    program = held()
    if needed > ram_bytes - program:
        raise ResourceError(
            f"{', '.join(map(str, scan.images))}: reading takes {needed / 1e9:.2f} GB of memory; "
            f"{ram_bytes / 1e9:.2f} GB are granted, and the program holds {program / 1e9:.2f} GB "
            "already.",
            remedy="Ask whoever runs the server to grant more."
            if program > ram_bytes
            else "Crop it, or ask whoever runs the server to grant more.",
        )


def _guessed(scan: Scan, work: Work, channels: Sequence[str]) -> Iterable[str]:
    """Say which file was taken for which channel, where nobody but their names told."""
    if len(scan.images) > 1 and not work.ordered:
        pairs = zip(channels, (base_name(work.files[path]) for path in scan.images), strict=True)
        told = ", ".join(f"{name} as {channel}" for channel, name in pairs)
        yield f"Files were taken for channels in the order of their names: {told}."


def _write_volumes(result: _Result, out: Path, stored: Volume) -> None:
    if stored.unit == "mm":
        write_volume(result.scan, out / "scan.nii.gz")
        write_volume(result.segmentation, out / SEGMENTATION)
    else:
        # A told pixel size makes no directions of the body known: they stay pictures.
        placed = result.segmentation.laid_on(stored)
        write_viewable(stored, out / "scan.nii.gz")
        write_viewable(placed, out / SEGMENTATION)
        write_volume(placed, out / "segmentation.png")
        result.files["segmentation.png"] = "picture"
    result.files |= {"scan.nii.gz": "scan", SEGMENTATION: "segmentation"}


def _write_objects(result: _Result, out: Path, scan: Scan, model: Model, digest: str) -> None:
    """Write DICOM objects; one that cannot be made is flagged, the others are there."""
    for name, kind in _OBJECTS.items():
        try:
            write_structures(
                result.segmentation,
                model.bundle.plan.labels,
                out / name,
                kind=kind,
                scan=scan.images[0],
                series_uid=scan.series,
                producer=Producer(name="Lamina", version=__version__, model=digest),
            )
        except LaminaError as error:
            result.flags.append(f"{name} was not made: {_plain(error.message, out)}")
        else:
            result.files[name] = kind


def _write_pictures(
    result: _Result, work: Work, model: Model, structures: list[dict[str, Any]]
) -> None:
    """Write surfaces and a page, as far as the packages for it are installed."""
    labels, out = model.bundle.plan.labels, work.out
    found = any("not found" not in each["flags"] for each in structures)
    try:
        if found and result.segmentation.unit == "mm" and result.segmentation.spatial_dims == 3:
            glb = out / "segmentation.glb"
            mesh(out / SEGMENTATION, glb, smooth=True, max_faces=_MAX_FACES, labels=labels)
            result.files[glb.name] = "mesh"
        save_segmentation_page(
            out / "report.html",
            result.scan,
            result.segmentation,
            labels,
            name=work.name,
            structures=structures,
            flags=result.flags,
            about={"Model": work.model, "Network": model.bundle.network["name"]},
            ct=is_ct(model.bundle.plan),
        )
        result.files["report.html"] = "report"
    except LaminaError as error:
        result.flags.append(f"A result was not made: {_plain(error.message, out)}")
    except ModuleNotFoundError as error:
        log.info("%s is not installed; no surfaces or page.", error.name)


def _shown(message: str, work: Work, models: Mapping[str, Path]) -> str:
    """Return a message that calls files and models what the user calls them."""
    known = {str(path): name for path, name in work.files.items()}
    known |= {str(path): name for name, path in models.items()}
    for path in sorted(known, key=len, reverse=True):
        message = message.replace(path, known[path])
    for folder in {path.parent for path in work.files}:
        message = message.replace(str(folder), work.name)
    return _plain(message, work.out)


def _plain(message: str, out: Path) -> str:
    return message.replace(f"{out}/", "").replace(f"{out.parent}/", "")

"""Explain: maps of what a model looked at in a scan, or of how sure it is of what it says."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lamina.data.case import Case
from lamina.data.ranges import ranges_of
from lamina.data.scans import scans_in, sized
from lamina.errors import ConfigError, DatasetError, FileError
from lamina.explain.quality import Flag, flags, sizes, unit_of
from lamina.files import check_folder, file_names, sha256, write_json
from lamina.folders.bundle import find_bundle
from lamina.folders.model import load
from lamina.io import write_volume
from lamina.report.heat import Heat, save_heat
from lamina.report.slices import is_ct
from lamina.training.device import chosen_device
from lamina.volume import Volume
from lamina.workflows import Progress, no_progress
from lamina.workflows.steps.explanations import METHODS, Found, Method, Subject, explained


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What ``explain`` found out and wrote."""

    case_id: str
    method: Method
    layer: str
    """Layer that was looked at; empty where all were, or none."""
    maps: Mapping[str, Path]
    """Name -> file on the scan's own grid."""
    sheet: Path
    """Picture of all of them."""
    structures: Mapping[str, Mapping[str, float]]
    """Structure -> how much of it was found, and how sure the model is of it."""
    unit: str
    """Of how much there is of structures."""
    flags: tuple[Flag, ...] | None
    """``None`` where the model does not know what it was trained on."""
    remarks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "case_id": self.case_id,
            "method": self.method,
            "layer": self.layer,
            "maps": {name: file.name for name, file in self.maps.items()},
            "sheet": self.sheet.name,
            "unit": self.unit,
            "structures": {name: dict(told) for name, told in self.structures.items()},
            "flags": None if self.flags is None else [flag.as_dict() for flag in self.flags],
            "remarks": list(self.remarks),
        }


def explain(
    model: str | Path,
    scan: str | Path,
    out: str | Path,
    *,
    method: Method = "gradcam",
    layer: str | None = None,
    structures: Sequence[str] = (),
    pixel_size: float | None = None,
    resample_oblique: bool = False,
    device: str | None = None,
    progress: Progress = no_progress,
) -> Explanation:
    """Write maps of one scan on its own grid, a picture of them, and what they amount to.

    Args:
        model: A ``.lamina`` file, a run folder, or the name of a model that comes along.
        scan: A file, or the folder of a DICOM series, or of files that hold one channel each.
        out: Folder; files are named after the scan and the method.
        method: ``"gradcam"``: where the features of a layer lie that speak for a structure;
            ``"attention"``: what the network itself attends to; ``"uncertainty"``: entropy over
            mirror images and members of an ensemble, and how far these agree.
        layer: Module to look into; for Grad-CAM one on the way up by default, for attention all.
        structures: Structures, or regions, to explain by Grad-CAM; by default all that are found.
        pixel_size: Side of a pixel in mm, of pictures that do not tell it.
        resample_oblique: As for :func:`load`.
        device: As for :func:`load`.
        progress: Called after each window.

    Raises:
        BundleError: The model cannot be loaded.
        ConfigError: The method is unknown, the layer or structures are not for it, the network has
            no attention, or pixels are to have no size.
        DatasetError: There is no such scan, or nothing to explain is found in it.
        GeometryError: Axes are not at right angles, and the scan is not to be resampled.
        UnknownNameError: There is no such layer or structure.
        FileError: The scan cannot be read, or ``out`` cannot be written, or is the scan's folder.
    """
    _check(method, layer, structures)
    model, scan, out = Path(model), Path(scan), Path(out)
    check_folder(out)
    loaded = load(model, device=device, resample_oblique=resample_oblique)
    plan = loaded.bundle.plan
    case = _case(scan, out, len(plan.channels), pixel_size)
    stored = case.read_stored_image(plan.channels)
    image = case.sized(stored)
    subject = Subject(
        model=loaded, image=image, device=chosen_device(device), folder=out, progress=progress
    )
    found = explained(subject, method, layer, structures)
    stem = f"{case.case_id}_{method}"
    files = dict(_write(found.heats, stored, out, stem))
    sheet = out / f"{stem}.png"
    title = " · ".join(filter(None, (case.case_id, method, found.layer)))
    save_heat(
        sheet,
        image,
        found.segmentation,
        plan.labels,
        found.heats,
        title=title,
        note=" ".join(found.notes),
        ct=is_ct(plan),
    )
    ranges = ranges_of(loaded.bundle.training, plan)
    raised = flags(image, found.segmentation, plan, ranges, found.agreement)
    explanation = Explanation(
        case_id=case.case_id,
        method=method,
        layer=found.layer,
        maps=files,
        sheet=sheet,
        structures=_told(found, sizes(found.segmentation, plan.labels)),
        unit=unit_of(image),
        flags=raised,
        remarks=(*found.notes, *found.remarks, *_flat(found.heats)),
    )
    about = {"model": {"file": loaded.bundle.source, "sha256": sha256(find_bundle(model))}}
    write_json(out / f"{stem}.json", about | explanation.as_dict())
    return explanation


def _check(method: str, layer: str | None, structures: Sequence[str]) -> None:
    if method not in METHODS:
        raise ConfigError(f"method {method!r} is unknown.", remedy=f"Known: {', '.join(METHODS)}.")
    if layer and method == "uncertainty":
        raise ConfigError("layer: uncertainty looks at no layer.", remedy="Leave it out.")
    if structures and method != "gradcam":
        raise ConfigError(
            f"structures: {method} is not of single ones.", remedy="Leave them out, or gradcam."
        )


def _case(scan: Path, out: Path, num_channels: int, pixel_size: float | None) -> Case:
    """Return the one scan there is, sure that maps of it may be written to ``out``."""
    cases = scans_in(scan, num_channels)
    if len(cases) > 1:
        raise DatasetError(f"{scan}: holds {len(cases)} scans.", remedy="Give one of them.")
    _check_out(out, cases[0])
    return cases[0] if pixel_size is None else sized(cases, pixel_size)[0]


def _check_out(out: Path, case: Case) -> None:
    """Refuse the scan's own folder, where maps would be taken for further scans."""
    for image in map(Path.resolve, case.images):
        if out.resolve() == (image if image.is_dir() else image.parent):
            raise FileError(
                f"{out}: is the folder of the scan, where maps would be taken for scans.",
                remedy="Give a folder of its own to --out.",
            )


def _write(
    heats: Sequence[Heat], stored: Volume, out: Path, stem: str
) -> Iterator[tuple[str, Path]]:
    """Write each map as NIfTI, that of a picture as 16-bit TIFF, whose white is ``high``."""
    for heat, name in zip(heats, file_names(heat.name for heat in heats), strict=True):
        array = np.asarray(heat.array[None], np.float32)
        if stored.unit == "px":
            array = np.asarray(np.rint(65535 * array / heat.high), np.uint16)
        file = out / f"{stem}_{name}{'.tif' if stored.unit == 'px' else '.nii.gz'}"
        write_volume(replace(stored, array=array), file)
        yield heat.name, file


def _flat(heats: Sequence[Heat]) -> Iterator[str]:
    """Say of maps in which there is nothing to see what they are everywhere."""
    for heat in heats:
        if heat.is_flat:
            yield f"{heat.name}: {heat.high:.2f} everywhere."


def _told(found: Found, amounts: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """Return what is known of each structure that was found."""
    return {
        name: {"size": size, **found.structures.get(name, {})}
        for name, size in amounts.items()
        if size
    }

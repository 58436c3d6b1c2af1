"""Export: write a model for another runtime, with a report of how far it is from the original."""

import importlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from shlex import quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.bundle import Bundle, load_bundle, transformer_weights
from lamina.data.case import Case
from lamina.data.scans import scans_in, sized
from lamina.errors import ConfigError, ExportError, FileError
from lamina.export.container import further_files
from lamina.export.graphs import graphs_of
from lamina.export.targets import MODEL, TARGETS, Graphs, Network, Precision
from lamina.export.writing import write_exported
from lamina.files import check_folder, sha256
from lamina.folders.bundle import find_bundle
from lamina.folders.unseen import training_scans, unseen_scans
from lamina.folders.work import WorkFolder
from lamina.inference.attention_maps import carried_maps, make_maker
from lamina.inference.backend import TorchNetwork
from lamina.inference.postprocess import steps_from
from lamina.inference.predictor import Predictor
from lamina.workflows import Progress, no_progress
from lamina.workflows.steps.provenance import software
from lamina.workflows.steps.side_by_side import (
    SegmentCase,
    SideBySide,
    compare_segmentations,
)

log = logging.getLogger(__name__)

MAX_DROP = 0.5
"""Largest loss of mean Dice, in points, for which a quantised model is written."""

_CALIBRATION_SCANS = 8
_WINDOWS_OF_A_SCAN = 4


@dataclass(frozen=True, kw_only=True)
class Export:
    """What was written."""

    out: Path
    megabytes: float
    parity: dict[str, Any]
    """``target``, ``precision``; ``noise``: logits on made-up windows; ``scans``: as
    :class:`~lamina.workflows.steps.side_by_side.SideBySide` reports them."""
    how_to_run: str
    case_ids: tuple[str, ...] = ()
    """Of the scans compared, by their numbers in the report; they are not written."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """What was wrong with each scan that could not be compared, by case id."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.out),
            "megabytes": self.megabytes,
            "case_ids": list(self.case_ids),
            "failures": dict(self.failures),
            **self.parity,
        }


def export(
    model: str | Path,
    target: str,
    out: str | Path,
    *,
    check: str | Path | None = None,
    pixel_size: float | None = None,
    int8: bool = False,
    calibrate: str | Path | None = None,
    progress: Progress = no_progress,
) -> Export:
    """Write a model for another runtime, whole or not at all.

    Args:
        model: A ``.lamina`` file, a run folder, or the name of a model that comes along.
        target: Registered export target.
        out: Folder to write; an exported model in its place is replaced.
        check: Scans that the original and the exported network both segment, for the report: as
            ``predict`` takes them, or the work folder of its training, whose validation scans have
            labels; for an ensemble, those that all its members kept for the end. What cannot be
            compared is left out and told.
        pixel_size: Side of a pixel in mm, of pictures to check that do not tell it.
        int8: Quantise the network.
        calibrate: Work folder for it: windows of training scans show its ranges of values, and
            scans as ``check`` takes them from there what it costs.
        progress: Told of each scan.

    Raises:
        BundleError: The model cannot be loaded.
        ConfigError: ``int8`` and ``calibrate`` are not given together, not for OpenVINO, or with
            ``check``; or ``pixel_size`` is given without, or no length above 0.
        ExportError: The network cannot be exported, computes something else than the original, or
            loses more than ``MAX_DROP`` points of Dice by being quantised, or that is not known.
        DatasetError: There is nothing to check or calibrate with, the work folder is not that of
            the model's training, or every scan of it was seen by a member of the ensemble.
        FileError: ``out`` holds something else, or cannot be written.
        ImportError: A package of the target is not installed.
    """
    TARGETS.get(target)
    _check_options(target, int8, calibrate is not None, check is not None, pixel_size)
    model, out = Path(model), Path(out)
    _check_out(out)
    file = find_bundle(model)
    bundle = load_bundle(file)
    graphs = _graphs(bundle)
    work = Path(calibrate) if calibrate else None
    shown = work or (Path(check) if check else None)
    scans = _scans(shown, bundle)
    if pixel_size is not None:
        scans = sized(scans, pixel_size)
    source = {"file": file.name, "sha256": sha256(file), "software": software()}
    compared = SideBySide()

    def refine(folder: Path) -> Mapping[str, Any]:
        nonlocal compared
        if work:
            _quantise(folder, bundle, training_scans(work, bundle)[:_CALIBRATION_SCANS])
        if not scans:
            return {}
        original = _by_lamina(bundle, TorchNetwork(graphs[MODEL].network))
        found = _by_target(target, folder, bundle)
        compared = compare_segmentations(bundle, original, found, scans, progress)
        if work:
            _refuse_drop(compared)
        return {"scans": compared.report}

    precision: Precision = "int8" if int8 else "fp32"
    parity = write_exported(
        bundle, graphs, target, out, source=source, precision=precision, refine=refine
    )
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Export(
        out=out,
        megabytes=round(size / 1e6, 2),
        parity=parity,
        how_to_run=TARGETS.get(target).how_to_run.format(folder=quote(str(out))),
        case_ids=compared.case_ids,
        failures=compared.failures,
    )


def _check_out(out: Path) -> None:
    """Refuse to write over anything but an exported model, whatever was put into its folder."""
    check_folder(out)
    if others := further_files(out):
        raise FileError(
            f"{out}: holds something else: {', '.join(others)[:200]}.",
            remedy="Choose another --out, or move that elsewhere.",
        )


def _check_options(
    target: str, int8: bool, calibrated: bool, checked: bool, pixel_size: float | None
) -> None:
    if int8 != calibrated:
        raise ConfigError("int8, calibrate: give both or none; calibrate is a work folder.")
    if int8 and target != "openvino":
        raise ConfigError(f"int8: is for the target openvino, not for {target}.")
    if int8 and checked:
        raise ConfigError(
            "check: is not for int8, whose cost is measured on scans of calibrate.",
            remedy="Leave out check, or export it without int8.",
        )
    if pixel_size is not None and not checked:
        raise ConfigError("pixel size: is for the scans of check, and there are none.")
    if int8:
        importlib.import_module("nncf")


def _graphs(bundle: Bundle) -> Graphs:
    if not bundle.config.attention_maps:
        return graphs_of(bundle)
    carried_maps(bundle, "cpu")  # says what is wrong where there is none
    maker = make_maker(bundle.network["attention"], transformer_weights(bundle))
    return graphs_of(bundle, maker.vit)


def _scans(place: Path | None, bundle: Bundle) -> Sequence[Case]:
    if place is None:
        return ()
    if not WorkFolder(place).splits_file.is_file():
        return scans_in(place, len(bundle.plan.channels))
    return unseen_scans(place, bundle)


def _predictor(bundle: Bundle, network: Network) -> Predictor:
    return Predictor(
        network=network,
        plan=bundle.plan,
        resample_oblique=True,
        maps=carried_maps(bundle, "cpu"),
        postprocessing=steps_from(bundle.postprocessing, bundle.plan.labels),
    )


def _by_lamina(bundle: Bundle, network: Network) -> SegmentCase:
    predictor = _predictor(bundle, network)
    return lambda case, image: predictor(image).array


def _by_target(target: str, folder: Path, bundle: Bundle) -> SegmentCase:
    """Return what segments scans as whoever is given the folder will."""
    chosen = TARGETS.get(target)
    if chosen.segmenter is None:
        return _by_lamina(bundle, chosen.network(folder, MODEL))
    segment = chosen.segmenter(folder)
    return lambda case, image: segment(case.images)


def _quantise(folder: Path, bundle: Bundle, scans: Sequence[Case]) -> None:
    from lamina.export.targets.openvino import quantise

    windows: list[NDArray[np.float32]] = []
    for case in scans:
        seen: list[NDArray[np.float32]] = []
        _predictor(bundle, partial(_collect, seen, bundle.plan.num_outputs))(
            case.read_image(bundle.plan.channels)
        )
        places = np.linspace(0, len(seen) - 1, min(len(seen), _WINDOWS_OF_A_SCAN)).round()
        windows += [seen[int(place)] for place in places]
    quantise(folder, windows)


def _collect(
    seen: list[NDArray[np.float32]], num_outputs: int, batch: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Stand in for a network, and keep the windows that it is given, one by one."""
    seen += [np.array(window[None]) for window in batch]
    return np.zeros((len(batch), num_outputs, *batch.shape[2:]), np.float32)


def _refuse_drop(compared: SideBySide) -> None:
    report, failures = compared.report, compared.failures
    if failures:
        raise ExportError(
            f"int8: what it costs is not known on {len(failures)} scans that were kept from "
            f"training: {next(iter(failures.values()))} Nothing was written.",
            remedy="Mend or replace what cannot be read, or export it without int8.",
        )
    if "dice_drop" not in report:
        raise ExportError(
            f"int8: what it costs cannot be measured: {len(report['cases'])} scans that were kept "
            "from training hold no structure, and none is found in them. Nothing was written.",
            remedy="Export it without int8, or calibrate with splits that keep such scans.",
        )
    if report["dice_drop"] > MAX_DROP:
        raise ExportError(
            f"int8: mean Dice falls from {report['dice_original']:.4f} to "
            f"{report['dice_exported']:.4f}, by {report['dice_drop']:.2f} points on "
            f"{len(report['cases'])} scans that were kept from training; {MAX_DROP} are accepted. "
            "Nothing was written.",
            remedy="Export it without int8; lamina-runtime --precision bf16 is quicker, too.",
        )

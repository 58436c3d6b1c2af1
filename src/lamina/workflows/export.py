"""Export: write a model for another runtime, with a report of how far it is from the original."""

import importlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.bundle import Bundle, load_bundle, transformer_weights
from lamina.data.case import Case
from lamina.data.scans import scans_in
from lamina.errors import ConfigError, ExportError, FileError
from lamina.evaluation.scores import score_case
from lamina.export.container import is_exported
from lamina.export.graphs import graphs_of
from lamina.export.parity import paired_dice
from lamina.export.targets import MODEL, TARGETS, Graphs, Network, Precision
from lamina.export.writing import write_exported
from lamina.files import sha256
from lamina.folders.bundle import find_bundle
from lamina.folders.unseen import training_scans, unseen_scans
from lamina.folders.work import WorkFolder
from lamina.inference.attention_maps import carried_maps, make_maker
from lamina.inference.backend import TorchNetwork
from lamina.inference.postprocess import steps_from
from lamina.inference.predictor import Predictor
from lamina.volume import Volume
from lamina.workflows import Progress, no_progress
from lamina.workflows.steps.provenance import software

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
    """``target``, ``precision``; ``noise``: logits on made-up windows; ``scans``: see below."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"out": str(self.out), "megabytes": self.megabytes, **self.parity}


def export(
    model: str | Path,
    target: str,
    out: str | Path,
    *,
    check: str | Path | None = None,
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
            labels; for an ensemble, those that all its members kept for the end.
        int8: Quantise the network.
        calibrate: Work folder for it: windows of training scans show its ranges of values, and
            scans as ``check`` takes them from there what it costs.
        progress: Told of each scan.

    Raises:
        BundleError: The model cannot be loaded.
        ConfigError: ``int8`` and ``calibrate`` are not given together, or not for OpenVINO.
        ExportError: The network cannot be exported, computes something else than the original, or
            loses more than ``MAX_DROP`` points of Dice by being quantised.
        DatasetError: There is nothing to check or calibrate with, the work folder is not that of
            the model's training, or every scan of it was seen by a member of the ensemble.
        FileError: ``out`` holds something else, or cannot be written.
        ImportError: A package of the target is not installed.
    """
    TARGETS.get(target)
    _check_options(target, int8, calibrate is not None)
    model, out = Path(model), Path(out)
    if out.exists() and not is_exported(out) and not (out.is_dir() and not any(out.iterdir())):
        raise FileError(f"{out}: holds something else.", remedy="Choose another --out.")
    file = find_bundle(model)
    bundle = load_bundle(file)
    graphs = _graphs(bundle)
    work = Path(calibrate) if calibrate else None
    shown = work or (Path(check) if check else None)
    scans = _scans(shown, bundle)
    source = {"file": file.name, "sha256": sha256(file), "software": software()}

    def refine(folder: Path) -> Mapping[str, Any]:
        if work:
            _quantise(folder, bundle, training_scans(work, bundle)[:_CALIBRATION_SCANS])
        if not scans:
            return {}
        found = TARGETS.get(target).network(folder, MODEL)
        report = _on_scans(bundle, TorchNetwork(graphs[MODEL].network), found, scans, progress)
        if work:
            _refuse_drop(report)
        return {"scans": report}

    precision: Precision = "int8" if int8 else "fp32"
    parity = write_exported(
        bundle, graphs, target, out, source=source, precision=precision, refine=refine
    )
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return Export(out=out, megabytes=round(size / 1e6, 2), parity=parity)


def _check_options(target: str, int8: bool, calibrated: bool) -> None:
    if int8 != calibrated:
        raise ConfigError("--int8 and --calibrate WORK: give both or none.")
    if int8 and target != "openvino":
        raise ConfigError(f"--int8: is for --to openvino, not for {target}.")
    if int8:
        importlib.import_module("nncf")


def _graphs(bundle: Bundle) -> Graphs:
    reads_maps = bundle.network["fields"].get("attention_maps")
    if not reads_maps:
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


def _quantise(folder: Path, bundle: Bundle, scans: Sequence[Case]) -> None:
    from lamina.export.targets.openvino import quantise

    windows: list[NDArray[np.float32]] = []
    for case in scans:
        seen: list[NDArray[np.float32]] = []
        _predictor(bundle, partial(_collect, seen, bundle.plan.num_outputs))(_image(case, bundle))
        places = np.linspace(0, len(seen) - 1, min(len(seen), _WINDOWS_OF_A_SCAN)).round()
        windows += [seen[int(place)] for place in places]
    quantise(folder, windows)


def _collect(
    seen: list[NDArray[np.float32]], num_outputs: int, batch: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Stand in for a network, and keep the windows that it is given, one by one."""
    seen += [np.array(window[None]) for window in batch]
    return np.zeros((len(batch), num_outputs, *batch.shape[2:]), np.float32)


def _image(case: Case, bundle: Bundle) -> Volume:
    return case.sized(replace(case, spacing=None).read_image(bundle.plan.channels))


def _on_scans(
    bundle: Bundle,
    original: Network,
    exported: Network,
    scans: Sequence[Case],
    progress: Progress,
) -> dict[str, Any]:
    """Segment scans with both networks, and compare the segmentations with each other and labels.

    Returns:
        ``cases``: a row each; ``dice_between``: mean over their structures; where labels or
        segmentations of labelled scans hold any, also ``dice_original``, ``dice_exported``, and
        ``dice_drop`` in points.
    """
    segment = [_predictor(bundle, network) for network in (original, exported)]
    rows = []
    for done, case in enumerate(scans, start=1):
        rows.append(_row(bundle, case, segment))
        progress(done, len(scans), case.case_id)
    between, *sides = (
        [d for row in rows for d in row[name]] for name in ("between", "original", "exported")
    )
    totals: dict[str, Any] = {"dice_between": _mean(between)}
    if means := paired_dice(*sides):
        before, after = means
        totals |= {"dice_original": before, "dice_exported": after}
        totals["dice_drop"] = 100 * (before - after)
    return totals | {"cases": [_plain(row) for row in rows]}


def _row(
    bundle: Bundle, case: Case, segment: Sequence[Callable[[Volume], Volume]]
) -> dict[str, Any]:
    """Return a case's id, voxels that differ, and Dice of every structure."""
    labels, image = bundle.plan.labels, _image(case, bundle)
    found = [labels.encode(each(image).array, image.source)[0] for each in segment]

    def dice(prediction: NDArray[Any], reference: NDArray[Any]) -> list[float]:
        rows = score_case(
            case.case_id, prediction, reference, labels, image.spacing, ("dice",), image.unit
        )
        return [row.value for row in rows]

    reference = case.read_label(labels, image).array[0] if case.label else None
    return {
        "case_id": case.case_id,
        "voxels": int(found[0].size),
        "voxels_that_differ": int((found[0] != found[1]).sum()),
        "between": dice(found[1], found[0]),
        "original": [] if reference is None else dice(found[0], reference),
        "exported": [] if reference is None else dice(found[1], reference),
    }


def _refuse_drop(report: Mapping[str, Any]) -> None:
    if "dice_drop" not in report:
        raise ExportError(
            f"int8: what it costs cannot be measured: {len(report['cases'])} scans that were kept "
            "from training hold no structure, and none is found in them. Nothing was written.",
            remedy="Export it without --int8, or calibrate with splits that keep such scans.",
        )
    if report["dice_drop"] > MAX_DROP:
        raise ExportError(
            f"int8: mean Dice falls from {report['dice_original']:.4f} to "
            f"{report['dice_exported']:.4f}, by {report['dice_drop']:.2f} points on "
            f"{len(report['cases'])} scans that were kept from training; {MAX_DROP} are accepted. "
            "Nothing was written.",
            remedy="Export it without --int8; lamina-runtime --precision bf16 is quicker, too.",
        )


def _mean(values: Sequence[float]) -> float | None:
    array = np.array(values, np.float64)
    return None if np.isnan(array).all() else float(np.nanmean(array))


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with means in place of lists."""
    return {name: _mean(v) if isinstance(v, list) else v for name, v in row.items()}

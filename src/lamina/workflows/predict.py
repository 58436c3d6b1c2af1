"""Predict: segment scans with a trained model, each on its own grid."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from lamina.data.case import Case
from lamina.errors import DatasetError, LaminaError
from lamina.files import sha256, write_json
from lamina.io import is_scan, strip_suffix
from lamina.io.dicom import is_dicom, is_series
from lamina.workflows import RECORD, Progress, no_progress
from lamina.workflows.load import Model, find_bundle, load
from lamina.workflows.record import read_record
from lamina.workflows.run import RunFolder
from lamina.workflows.written import Output, output_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one scan."""

    case_id: str
    image: str
    segmentation: str | None
    """Name of the file in the output folder; ``None`` when the scan failed."""
    seconds: float
    error: str = ""
    sha256: str = ""
    """Of the segmentation, by which a later run knows it as its own."""
    model: str = ""
    """SHA-256 of the model, for a folder may hold the work of several."""
    case: dict[str, Any] | None = None
    """The case of a dataset that the scan is, with the label that it can be scored against."""


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What became of all scans."""

    out: Path
    outcomes: tuple[Outcome, ...]

    @property
    def failures(self) -> dict[str, str]:
        """Scan's file name -> why it could not be segmented."""
        return {Path(o.image).name: o.error for o in self.outcomes if o.segmentation is None}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"out": str(self.out), "cases": [asdict(outcome) for outcome in self.outcomes]}


def predict(
    model: Path,
    out: Path,
    inputs: Path | None = None,
    *,
    split: str | None = None,
    device: str | None = None,
    resample_oblique: bool = False,
    beside_others: bool = False,
    output_format: str | None = None,
    anonymise: bool = False,
    progress: Progress = no_progress,
) -> Prediction:
    """Segment a scan, a folder of scans, or a run's own scans.

    A scan that fails is listed with its reason and the others go on. ``prediction.json`` in ``out``
    records the model's hash, the labels and what became of each scan.

    Args:
        model: A ``.lamina`` file or a run folder.
        out: Folder for the segmentations, named after the scans.
        inputs: A scan, be it a file or the folder of a DICOM series, or a folder of scans; not
            needed with ``split``.
        split: ``"val"`` takes the scans the run was validated on, ``"test"`` those that were kept
            for the end.
        device: As for :func:`load`.
        resample_oblique: As for :func:`load`.
        beside_others: Whether ``out`` may hold other scans segmented by other models.
        output_format: ``"nifti"``, or for DICOM series ``"seg"``, ``"labelmap"`` or ``"rtstruct"``;
            the scan's own format by default, and NIfTI for DICOM.
        anonymise: Say nothing of the patient in DICOM objects, and give them new UIDs.
        progress: Called after each window and each scan.

    Raises:
        ConfigError: The format is unknown.
        BundleError: The model cannot be loaded.
        TrainingError: A split is asked for, and the model is no run folder.
        DatasetError: There is nothing to segment, or ``out`` holds files of these names that no
            prediction wrote.
        FileError: ``out`` cannot be written, or the disk is full.
    """
    output = output_of(output_format, anonymise=anonymise)
    cases = _cases(model, inputs, split)
    bundle = find_bundle(model)
    loaded = load(bundle, device, resample_oblique=resample_oblique)
    model_sha256 = sha256(bundle)
    kept = _protect(out, cases, output, None if beside_others else model_sha256)
    record = {
        "model": {"file": bundle.name, "sha256": model_sha256},
        "labels": loaded.bundle.plan.labels.as_dict(),
    }
    write_json(out / RECORD, record | {"cases": kept})
    outcomes: list[Outcome] = []
    for done, case in enumerate(cases):
        on_window = partial(_within, progress, done, len(cases), case.case_id)
        outcomes.append(_segment(loaded, model_sha256, case, out, output, on_window))
        write_json(out / RECORD, record | {"cases": kept + [asdict(o) for o in outcomes]})
        progress(done + 1, len(cases), case.case_id)
    return Prediction(out=out, outcomes=tuple(outcomes))


def _within(
    progress: Progress, done: int, total: int, what: str, windows: int, in_all: int
) -> None:
    progress(done + windows / in_all, total, what)


def _cases(model: Path, inputs: Path | None, split: str | None) -> tuple[Case, ...]:
    if (inputs is None) == (split is None) or split not in (None, "val", "test"):
        raise DatasetError("Give either scans (-i) or --split, which is val or test.")
    if split:
        return RunFolder(model).cases(split)
    assert inputs is not None
    if not inputs.exists():
        raise DatasetError(f"{inputs}: no such file or folder.", remedy="Give a scan or a folder.")
    paths = sorted(p for p in inputs.iterdir() if is_scan(p)) if inputs.is_dir() else [inputs]
    if inputs.is_dir() and all(map(is_dicom, paths)) and is_series(inputs):
        return (Case(case_id=inputs.resolve().name, group="", images=(inputs,)),)
    if not paths:
        raise DatasetError(f"{inputs}: holds no scans.", remedy="Folders in it are not searched.")
    return tuple(Case(case_id=strip_suffix(p), group="", images=(p,)) for p in paths)


def _protect(
    out: Path, cases: Sequence[Case], output: Output, model_sha256: str | None
) -> list[dict[str, Any]]:
    """Refuse to write over scans, references, or predictions that somebody has corrected since.

    Returns:
        The entries of an earlier record that stay true: other scans, segmented by the same model,
        or by any where none is given.
    """
    earlier = read_record(out)
    scans = {path.resolve() for case in cases for path in case.images}
    written = {entry["segmentation"]: entry["sha256"] for entry in earlier["cases"]}
    names = {name for case in cases for name in output.names(case)}
    counts = Counter(output.name(case, "mm") for case in cases)
    shared = [name for name, count in counts.items() if count > 1]
    if shared:
        raise DatasetError(
            f"{out / shared[0]}: would be the segmentation of several scans.",
            remedy="Segment them one by one into different folders, or rename them.",
        )
    for path in (out / name for name in sorted(names)):
        if path.exists() and (path.resolve() in scans or sha256(path) != written.get(path.name)):
            raise DatasetError(
                f"{path}: would be written over, and is not as a prediction left it.",
                remedy="Choose another folder for --output, or remove the file.",
            )
    others = [entry for entry in earlier["cases"] if entry["segmentation"] not in {*names, None}]
    models = {entry.get("model") or earlier["model"]["sha256"] for entry in others}
    if model_sha256 and models - {model_sha256}:
        raise DatasetError(
            f"{out}: holds segmentations of other scans by another model.",
            remedy="Choose another folder for --output.",
        )
    return others


def _segment(
    model: Model,
    model_sha256: str,
    case: Case,
    out: Path,
    output: Output,
    on_window: Callable[[int, int], None],
) -> Outcome:
    began = time.perf_counter()
    name, error, labels = output.name(case, "mm"), "", model.bundle.plan.labels
    for old in output.names(case):  # should this scan fail, no older model speaks for it
        (out / old).unlink(missing_ok=True)
    try:
        output.check(case, labels)
        stored = replace(case, spacing=None).read_image(model.bundle.plan.channels)
        name = output.name(case, stored.unit)
        found = model.predictor(case.sized(stored), on_window)
        found = replace(found, affine=stored.affine, unit=stored.unit)
        output.write(found, case, labels, model_sha256, out / name)
    except LaminaError as problem:
        error = str(problem)
    except (MemoryError, RuntimeError) as problem:  # torch says the one as the other
        log.debug("%s", name, exc_info=True)
        reason = str(problem).partition("\n")[0] or "out of memory"
        error = f"{case.images[0]}: cannot be segmented on this machine: {reason}"
    return Outcome(
        case_id=case.case_id,
        image=str(case.images[0]),
        segmentation=None if error else name,
        seconds=round(time.perf_counter() - began, 2),
        error=error,
        sha256="" if error else sha256(out / name),
        model=model_sha256,
        case=case.as_dict() if case.label else None,
    )

"""Predict: segment scans with a trained model, each on its own grid."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from lamina.data.case import Case
from lamina.data.scans import scans_in, sized
from lamina.errors import DatasetError
from lamina.files import locked, remove_parts, sha256
from lamina.folders.bundle import find_bundle
from lamina.folders.model import Model, load
from lamina.folders.prediction import RECORD, Outcome, read_record
from lamina.folders.run import RunFolder
from lamina.io.dicom_series import holds_series
from lamina.workflows import Progress, no_progress
from lamina.workflows.steps.batch import Batch, names_of
from lamina.workflows.steps.cluster import Cluster
from lamina.workflows.steps.output import Output, output_of


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What became of all scans."""

    out: Path
    outcomes: tuple[Outcome, ...]

    @property
    def record(self) -> Path:
        """The file that says all this."""
        return self.out / RECORD

    @property
    def failures(self) -> dict[str, str]:
        """Case id -> why the scan could not be segmented."""
        return {o.case_id: o.error for o in self.outcomes if o.segmentation is None}

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        cases = [asdict(outcome) for outcome in self.outcomes]
        return {"out": str(self.out), "failures": self.failures, "cases": cases}


def predict(
    model: str | Path,
    inputs: str | Path | None = None,
    *,
    out: str | Path,
    split: str | None = None,
    cases: Sequence[Case] = (),
    device: str | None = None,
    backend: str = "torch",
    precision: Literal["fp32", "bf16"] = "fp32",
    resample_oblique: bool = False,
    tta: bool = False,
    ram_bytes: float | None = None,
    probabilities: bool = False,
    resume: bool = False,
    beside_others: bool = False,
    output_format: str | None = None,
    anonymise: bool = False,
    pixel_size: float | None = None,
    cluster: str | None = None,
    progress: Progress = no_progress,
) -> Prediction:
    """Segment a scan, a folder of scans, or a run's own scans.

    A scan that fails is listed with its reason and the others go on. ``prediction.json`` in ``out``
    records the model's hash, the labels and what became of each scan. While one scan is segmented,
    the next is read and the last written.

    Args:
        model: A ``.lamina`` file, a run folder, or the name of a model that comes along.
        inputs: A scan, be it a file or the folder of a DICOM series, or a folder of such; not
            needed with ``split``. For a model of several channels, files that hold one each may be
            called ``x_0000.nii.gz``, ``x_0001.nii.gz``, ..., in the model's order.
        out: Folder for the segmentations, named after the scans.
        split: ``"val"`` takes the scans the run was validated on, ``"test"`` those that were kept
            for the end.
        cases: Scans of a dataset in place of those, such as one that the model was not trained on.
        device: As for :func:`load`.
        backend: As for :func:`load`.
        precision: As for :func:`load`.
        resample_oblique: As for :func:`load`.
        tta: As for :func:`load`.
        ram_bytes: As for :func:`load`; no scan is then read ahead.
        probabilities: Whether those of each class or region are left beside each segmentation, as
            ``<case>_probabilities.npy``, ``(K, *S)`` in half precision.
        resume: Whether scans are left out that this model has segmented into ``out`` with these
            settings, and that have not been changed since.
        beside_others: Whether ``out`` may hold other scans segmented by other models.
        output_format: ``"nifti"``, for which pixels of pictures need a size, or for DICOM series
            ``"seg"``, ``"labelmap"`` or ``"rtstruct"``; the scan's own format by default, and NIfTI
            for DICOM.
        anonymise: Say nothing of the patient in DICOM objects, and give them new UIDs.
        pixel_size: Side of a pixel in mm, of pictures that do not tell it.
        cluster: Where to segment, as for :func:`~lamina.workflows.steps.fan_out.run_jobs`, one
            scan to a core; all machines see the model, the scans and ``out`` under these paths.
        progress: Called after each window and each scan.

    Raises:
        ClusterError: The cluster cannot be started or reached.
        ConfigError: The format is unknown, or pixels are to have no size.
        BundleError: The model cannot be loaded.
        TrainingError: A split is asked for, and the model is no run folder.
        DatasetError: There is nothing to segment, or ``out`` holds files of these names that no
            prediction wrote.
        FileError: ``out`` cannot be written, another prediction is writing there, or the disk is
            full.
    """
    model, out, inputs = Path(model), Path(out), Path(inputs) if inputs else None
    if cluster is not None:  # whose machines have working folders of their own
        out, inputs = out.absolute(), inputs and inputs.absolute()
    output = output_of(output_format, anonymise=anonymise)
    if not cases:
        _check_asked(inputs, split)
    bundle = find_bundle(model).absolute()
    make = partial(
        _batch,
        bundle,
        partial(load, device=device, backend=backend, ram_bytes=ram_bytes),
        settings={"precision": precision, "resample_oblique": resample_oblique, "tta": tta},
        written={
            "format": output_format,
            "anonymise": anonymise,
            **({} if pixel_size is None else {"pixel_size": pixel_size}),
        },
        out=out,
        output=output,
        with_probabilities=probabilities,
        read_ahead=ram_bytes is None,
        resume=resume,
    )
    batch = replace(make(), elsewhere=Cluster(cluster, make) if cluster else None)
    if not cases and split:
        cases = RunFolder(model).cases(split)
    elif not cases and inputs:
        found = scans_in(inputs, len(batch.model.bundle.plan.channels))
        written = _written(out)
        cases = [each for each in found if not _is_output(each.images[0], out, written)]
        if not cases:
            raise DatasetError(
                f"{inputs}: holds results of earlier predictions only.",
                remedy="Give the scan or the folder of scans.",
            )
    _require_own_names(cases)
    if pixel_size is not None:
        cases = sized(cases, pixel_size)
    model_sha256 = batch.about["sha256"]
    with locked(out):
        kept = _protect(out, cases, output, None if beside_others else model_sha256)
        remove_parts(out)
        earlier = [entry for entry in read_record(out)["cases"] if entry not in kept]
        told = (entry.get("probabilities") for entry in kept)
        batch = replace(batch, spared=frozenset(filter(None, told)))
        try:
            outcomes = batch.run(cases, kept, earlier, progress)
        finally:
            remove_parts(out)
    return Prediction(out=out, outcomes=outcomes)


def _batch(
    bundle: Path,
    loaded: Callable[..., Model],
    *,
    settings: Mapping[str, Any],
    written: Mapping[str, Any],
    **others: Any,
) -> Batch:
    """Load the model and put together a batch, in this process or in another."""
    model = loaded(bundle, **settings)
    return Batch(
        model=model,
        about={"file": bundle.name, "sha256": sha256(bundle)},
        settings={"backend": model.backend, **settings, **written},
        **others,
    )


def _check_asked(inputs: Path | None, split: str | None) -> None:
    if (inputs is None) == (split is None) or split not in (None, "val", "test"):
        raise DatasetError("Give either scans or a split, which is val or test.")


def _protect(
    out: Path, cases: Sequence[Case], output: Output, model_sha256: str | None
) -> list[dict[str, Any]]:
    """Refuse to write over scans, references, or predictions that somebody has corrected since.

    Returns:
        The entries of an earlier record that stay true: other scans, segmented by the same model,
        or by any where none is given.
    """
    earlier = read_record(out)
    scans = {os.path.realpath(path) for case in cases for path in case.images}
    written = {entry["segmentation"]: entry["sha256"] for entry in earlier["cases"]}
    names = {name for case in cases for name in names_of(case, output)}
    ours = {entry.get("probabilities") for entry in earlier["cases"]}
    for path in (out / name for name in sorted(names)):
        if path.exists() and (
            os.path.realpath(path) in scans
            or (path.name not in ours and sha256(path) != written.get(path.name))
        ):
            raise DatasetError(
                f"{path}: would be written over, and is not as a prediction left it.",
                remedy="Choose another folder for --out, or remove the file.",
            )
    others = [entry for entry in earlier["cases"] if entry["segmentation"] not in {*names, None}]
    models = {entry["model"] for entry in others}
    if model_sha256 and models - {model_sha256}:
        raise DatasetError(
            f"{out}: holds segmentations of other scans by another model.",
            remedy="Choose another folder for --out.",
        )
    return others


def _written(out: Path) -> set[str]:
    """Return the files that earlier runs left, which are no scans where they lie among them."""
    entries = read_record(out)["cases"]
    names = (entry.get(kind) for entry in entries for kind in ("segmentation", "probabilities"))
    return {os.path.realpath(out / name) for name in names if name}


def _is_output(scan: Path, out: Path, written: set[str]) -> bool:
    """Tell whether one of the inputs is a result, or a folder that is there for results alone."""
    place = os.path.realpath(scan)
    return place in written or (place == os.path.realpath(out) and not holds_series(scan))


def _require_own_names(cases: Sequence[Case]) -> None:
    """Refuse scans that only their suffix tells apart: files and the record go by the rest."""
    seen: dict[str, Path] = {}
    for case in cases:
        if case.case_id in seen:
            raise DatasetError(
                f"{case.images[0]}: is called {case.case_id}, as {seen[case.case_id]} is.",
                remedy="Segment them one by one into different folders, or rename one.",
            )
        seen[case.case_id] = case.images[0]

"""Segmenting the scans of a run itself, as they were prepared for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lamina.data.case import Case
from lamina.files import sha256
from lamina.folders.prediction import read_record
from lamina.folders.run import RunFolder
from lamina.training.device import is_here
from lamina.workflows import Progress, no_progress
from lamina.workflows.predict import Prediction, predict


def predict_prepared(
    model: Path,
    *,
    out: Path,
    settings: Mapping[str, Any],
    cases: Sequence[Case] = (),
    split: str | None = None,
    resume: bool = False,
    beside_others: bool = False,
    progress: Progress = no_progress,
) -> Prediction:
    """Segment scans as they were prepared, on the device of a training where it is here.

    Args:
        model: As for :func:`~lamina.workflows.predict.predict`, and so are those not named here.
        out: As for it.
        settings: Of the training.
        cases: As for it.
        split: As for it.
        resume: As for it.
        beside_others: As for it.
        progress: As for it.
    """
    return predict(
        model,
        out=out,
        cases=cases,
        split=split,
        device=device_of(settings),
        resample_oblique=True,  # a scan that was not to be was not prepared
        resume=resume,
        beside_others=beside_others,
        progress=progress,
    )


def device_of(settings: Mapping[str, Any]) -> str | None:
    """Return the device that a training was told to take, where this machine has it."""
    device: str | None = settings.get("device")
    return device if device and is_here(device) else None


def predict_validation(run: RunFolder, out: Path, progress: Progress) -> None:
    """Segment the scans a fold was validated on, unless this very model has done so already."""
    model, cases = sha256(run.bundle_file), {case.case_id for case in run.cases("val")}
    entries = read_record(out)["cases"]
    ours = {e["case_id"]: e for e in entries if e.get("model") == model and e["segmentation"]}
    files = {case: out / e["segmentation"] for case, e in ours.items()}
    whole = {c for c, file in files.items() if file.is_file() and sha256(file) == ours[c]["sha256"]}
    if not whole >= cases:
        predict_prepared(
            run.root,
            out=out,
            settings=run.manifest()["config"],
            split="val",
            beside_others=True,
            progress=progress,
        )

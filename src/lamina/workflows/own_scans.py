"""Segmenting the scans of a run itself, as they were prepared for it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lamina.files import sha256
from lamina.folders.prediction import read_record
from lamina.folders.run import RunFolder
from lamina.training.device import is_here
from lamina.workflows import Progress
from lamina.workflows.predict import predict


def device_of(settings: Mapping[str, Any]) -> str | None:
    """Return the device that a training was told to take, where this machine has it."""
    device: str | None = settings.get("device")
    return device if device and is_here(device) else None


def predict_validation(run: RunFolder, out: Path, progress: Progress) -> None:
    """Segment the scans a fold was validated on, unless this very model has done so already."""
    model, cases = sha256(run.bundle_file), {case.case_id for case in run.cases("val")}
    entries = read_record(out)["cases"]
    ours = {e["case_id"]: e for e in entries if e["model"] == model and e["segmentation"]}
    files = {case: out / e["segmentation"] for case, e in ours.items()}
    whole = {c for c, file in files.items() if file.is_file() and sha256(file) == ours[c]["sha256"]}
    if not whole >= cases:
        predict(
            run.root,
            out=out,
            split="val",
            device=device_of(run.manifest()["config"]),
            resample_oblique=True,  # a scan that was not to be was not prepared
            beside_others=True,
            progress=progress,
        )

"""Demo: the main job from end to end on made-up scans."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lamina import __version__
from lamina.config import layered, resolve
from lamina.data.phantom import PHANTOM_LABELS, write_phantom_dataset
from lamina.errors import DatasetError
from lamina.evaluation.scores import Scores
from lamina.files import write_json
from lamina.io import read_volume
from lamina.report.overlay import save_overlay
from lamina.training.callbacks import EpochReport
from lamina.training.config import TrainConfig
from lamina.training.meters import OnStep, no_step
from lamina.workflows import Progress, no_progress
from lamina.workflows.evaluate import evaluate
from lamina.workflows.predict import predict
from lamina.workflows.prepare import prepare
from lamina.workflows.recipes import recipe
from lamina.workflows.train import Training, train

_CASES = {2: 60, 3: 24}
_KEPT_OUT = {2: 12, 3: 4}
_RECIPES = {2: "demo_2d", 3: "demo"}
_MARK = "demo.json"
_FOLDERS = ("scans", "work", "run", "predicted", "scores")


@dataclass(frozen=True, kw_only=True)
class Demonstration:
    """What the demo left behind."""

    out: Path
    training: Training
    scores: Scores
    """On scans that were in no fold."""
    overlay: Path
    """Picture of one of them."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "out": str(self.out),
            "failures": dict(self.scores.failures),
            "training": self.training.as_dict(),
            "mean_dice": self.scores.mean_foreground("dice"),
            "scores": self.scores.as_dict(),
            "overlay": str(self.overlay),
        }


def demo(
    out: str | Path,
    *,
    spatial_dims: int = 3,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    progress: Progress = no_progress,
    on_epoch: Callable[[EpochReport], None] = lambda report: None,
    on_step: OnStep = no_step,
) -> Demonstration:
    """Make phantoms, prepare, train, segment scans that were kept out, score and draw them.

    Args:
        out: Folder for everything; what an earlier demo left there is made anew.
        spatial_dims: 2 for images, 3 for volumes.
        seed: Decides the phantoms and the training.
        settings: Of the training, in place of the recipe's, as in :func:`~lamina.train`.
        progress: Called as work on the cases of each stage goes on.
        on_epoch: Called after each epoch of training.
        on_step: Called after each step of training.

    Raises:
        DatasetError: ``out`` holds files that no demo made.
        FileError: Something cannot be written.
        ConfigError: A setting is unknown or wrong.
    """
    out = Path(out)
    chosen = layered(recipe(_RECIPES[spatial_dims]), {"seed": seed}, settings or {})
    resolve(TrainConfig, chosen)  # what is wrong with it is said now, not after a minute
    _make_room(out)
    scans, work, run, predicted, scored = (out / name for name in _FOLDERS)
    write_json(out / _MARK, {"version": __version__, "spatial_dims": spatial_dims, "seed": seed})
    write_phantom_dataset(
        scans,
        _CASES[spatial_dims],
        spatial_dims=spatial_dims,
        seed=seed,
        num_test=_KEPT_OUT[spatial_dims],
    )
    prepare(scans, work, model="lightmedseg", rehearse=False, progress=progress)
    training = train(work, run, chosen, on_epoch=on_epoch, on_step=on_step)
    predict(run, scans / "imagesTs", out=predicted, progress=progress)
    scores = evaluate(predicted, scans / "labelsTs", out=scored, progress=progress)
    name = scores.cases[0] + ".nii.gz"
    overlay = out / "overlay.png"
    save_overlay(
        overlay,
        read_volume(scans / "imagesTs" / name),
        read_volume(predicted / name),
        PHANTOM_LABELS,
        reference=read_volume(scans / "labelsTs" / name),
        title=scores.cases[0],
    )
    return Demonstration(out=out, training=training, scores=scores, overlay=overlay)


def _make_room(out: Path) -> None:
    """Remove what an earlier demo made, and nothing else."""
    if (out / _MARK).is_file():
        for name in _FOLDERS:
            shutil.rmtree(out / name, ignore_errors=True)
    elif out.is_dir() and any(out.iterdir()):
        raise DatasetError(
            f"{out}: holds files that no demo made.", remedy="Choose another folder for --out."
        )

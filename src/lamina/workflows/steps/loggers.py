"""Who listens to a training run: TensorBoard with pictures, and MLflow if asked."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from numpy.typing import NDArray

from lamina.data.cache import PreparedCase
from lamina.data.plan import Plan
from lamina.folders.run import RunFolder
from lamina.geometry import affine_along
from lamina.report.frame import Frames
from lamina.training.mlflow import mlflow_logger
from lamina.volume import Volume

log = logging.getLogger(__name__)

_CURVES = {"Course": {"Dice": ["Multiline", ["^dice"]], "Loss": ["Multiline", ["^loss$"]]}}
"""TensorBoard's page of charts of our own: all structures in one."""


class Board(TensorBoardLogger):
    """Writes a run's numbers and pictures for TensorBoard, and goes without once the disk is full.

    Args:
        run: The run, in whose folder it writes.
    """

    def __init__(self, run: RunFolder) -> None:
        super().__init__(run.root, name="tensorboard", version="")
        self.begun = False
        self.broken = False

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Add one epoch's numbers."""
        with self._attempt():
            if not self.begun:
                self.experiment.add_custom_scalars(_CURVES)
                self.begun = True
            super().log_metrics(metrics, step)

    def show(self, name: str, picture: NDArray[np.uint8], step: int) -> None:
        """Add a picture ``(rows, columns, 3)``, 0..255."""
        with self._attempt():
            self.experiment.add_image(name, picture, step, dataformats="HWC")

    def save(self) -> None:
        """Write what is still in memory."""
        with self._attempt():
            super().save()

    def finalize(self, status: str) -> None:
        """Close the files."""
        with self._attempt():
            super().finalize(status)

    @contextmanager
    def _attempt(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self.broken:
                log.warning("%s: cannot be written: %s.", self.log_dir, error.strerror)
            self.broken = True


class Pictures:
    """Shows in TensorBoard, after each epoch, what was found in one validation case.

    It is the case with most structures, the first of several.

    Args:
        board: Where to show it.
        plan: Of the run.
        cases: Its validation cases.
    """

    def __init__(self, board: Board, plan: Plan, cases: list[PreparedCase]) -> None:
        self.board = board
        self.case_id = ""
        self.found: NDArray[np.uint8] | None = None
        if cases:
            case = max(cases, key=lambda case: len(case.positions))
            affine = affine_along(plan.orientation, case.spacing)
            self.case_id = case.case_id
            image = Volume(case.image, affine, unit=plan.unit, in_colour=case.in_colour)
            self.frames = Frames(image, case.label, plan.labels)

    def first(self, cases: list[PreparedCase]) -> list[PreparedCase]:
        """Return the cases with the one to show in front: of several processes the first has it."""
        return sorted(cases, key=lambda case: case.case_id != self.case_id)

    def see(self, case_id: str, found: NDArray[np.uint8]) -> None:
        """Remember what was found, class indices ``(1, *S)``, if it is the case to show."""
        if case_id == self.case_id:
            self.found = found

    def show(self, step: int) -> None:
        """Show what was found, if anything was."""
        if self.found is not None:
            self.board.show(f"validation/{self.case_id}", self.frames.draw(self.found), step)


def loggers_of(
    run: RunFolder, manifest: dict[str, Any], board: Board, mlflow: Path | None
) -> list[Logger]:
    """Return what keeps each epoch's numbers beside the history.

    Args:
        run: The run.
        manifest: Of the run; with MLflow, its id there is kept in it, to go on when resumed.
        board: For TensorBoard.
        mlflow: SQLite file for MLflow; none if not given.

    Raises:
        FileError: ``mlflow`` is no file of MLflow, or cannot be made.
        ModuleNotFoundError: MLflow is wanted and not installed.
    """
    loggers: list[Logger] = [board]
    if mlflow is not None:
        loggers.append(mlflow_logger(mlflow, run.root.name, manifest.get("mlflow_run")))
        manifest["mlflow_run"] = loggers[-1].version
    return loggers

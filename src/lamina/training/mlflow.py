"""A run's numbers in a file of MLflow, for those who compare their runs there."""

import logging
import os
import re
import warnings
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from lightning.pytorch.loggers import Logger, MLFlowLogger

from lamina.errors import FileError

_EXPERIMENT = "lamina"
_SQLITE = b"SQLite format 3\0"
_NO_NAME = re.compile(r"[^a-zA-Z0-9_/. -]")
_TALKATIVE = ("alembic", "mlflow", "lightning.pytorch.loggers.mlflow")


def mlflow_logger(file: Path, name: str, run_id: str | None = None) -> Logger:
    """Return the logger that adds each epoch's numbers to a run in an SQLite file of MLflow.

    Nothing is sent anywhere: MLflow's own reports of its use are turned off.

    Args:
        file: The file; made if it does not exist.
        name: The run's name there.
        run_id: The run to go on with, if it is in that file; a new one if not given.

    Raises:
        FileError: It is no such file, or cannot be made.
        ModuleNotFoundError: MLflow is not installed.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # heeded when MLflow is imported
    for talker in _TALKATIVE:
        logging.getLogger(talker).setLevel(logging.ERROR)
    from mlflow.exceptions import MlflowException

    _check(file)
    place = file.resolve()
    opened = partial(
        _PlainNames,
        _EXPERIMENT,
        name,
        tracking_uri=f"sqlite:///{place}",
        artifact_location=place.with_suffix(".artifacts").as_uri(),
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # MLflow's own use of its packages
            logger = opened(run_id=run_id)
            try:
                logger.experiment  # noqa: B018 - looks the run up
            except MlflowException:  # resumed with another file than before
                logger = opened()
            logger.experiment  # noqa: B018 - makes it
    except Exception as error:  # of any kind: depends on what the file holds
        raise FileError(
            f"{file}: cannot be used by MLflow ({type(error).__name__}).",
            remedy="Give another file to --mlflow; it is made if it does not exist.",
        ) from error
    return logger


class _PlainNames(MLFlowLogger):
    """Names numbers with the characters that MLflow allows."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        super().log_metrics({_NO_NAME.sub("_", name): metrics[name] for name in metrics}, step)


def _check(file: Path) -> None:
    """Refuse at once what MLflow would try for minutes to open."""
    remedy = "Give another file to --mlflow; it is made if it does not exist."
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a+b") as stream:
            stream.seek(0)
            start = stream.read(len(_SQLITE))
    except OSError as error:
        raise FileError(f"{file}: cannot be used: {error.strerror}.", remedy=remedy) from error
    if start not in (b"", _SQLITE):
        raise FileError(f"{file}: is no SQLite file.", remedy=remedy)

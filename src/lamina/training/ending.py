"""How a run on several processes ends when one of them fails: all do, and one of them says why."""

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.pytorch import Trainer
from torch import distributed

from lamina.errors import ConfigError, TrainingError
from lamina.signals import INTERRUPTED

log = logging.getLogger(__name__)

_LOST = "Another process of this run failed or was killed."
_PARENT = "LAMINA_FIRST_PROCESS"
"""Tells processes that Lightning starts which one started them."""


@contextmanager
def ending_together(trainer: Trainer) -> Iterator[None]:
    """Let no process of a run outlive another that fails; one of them says why.

    Raises:
        ConfigError: A cluster's job has other processes, or nothing starts those elsewhere.
        TrainingError: Another process is gone.
    """
    launcher, ended = trainer.strategy.launcher, threading.Event()
    if launcher is not None:
        _check_job(trainer.strategy)
        _follow_first_process()
        threading.Thread(target=_watch, args=(launcher, ended), daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if trainer.global_rank:
            raise SystemExit(INTERRUPTED) from None
        raise
    except Exception as error:
        if launcher is not None:
            launcher.kill(signal.SIGKILL)
        if not _is_of_another(error):
            raise
        if trainer.global_rank and not _speaks_for_first():
            raise SystemExit(2) from None
        raise TrainingError(
            _LOST,
            remedy="See what it said, if anything. --resume goes on from the last checkpoint.",
        ) from error
    finally:
        ended.set()


def _check_job(strategy: Any) -> None:
    """Refuse what a cluster's job was not made for, before waiting for processes in vain."""
    environment, nodes = strategy.cluster_environment, strategy.num_nodes
    # Whoever starts each machine's processes by hand tells them where the first one is.
    alone = isinstance(environment, LightningEnvironment) and "MASTER_ADDR" not in os.environ
    if nodes > 1 and alone:
        raise ConfigError(
            f"nodes = {nodes}: nothing starts the processes of other machines.",
            remedy="Start the run by srun or torchrun, or give --nodes 1.",
        )
    try:
        environment.validate_settings(strategy.num_processes, nodes)
    except ValueError as error:
        raise ConfigError(
            str(error), remedy="Make --devices and --nodes those of the job."
        ) from error


def _is_of_another(error: Exception) -> bool:
    """Tell whether an error only means that a process does not answer any more."""
    lost = "gloo" in str(error) or "NCCL" in str(error)
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and lost)


def _watch(launcher: Any, ended: threading.Event) -> None:
    """End a run whose main thread may wait for ever, on a GPU, for a process that is gone."""
    while not ended.wait(0.5):
        gone = any(process.poll() for process in launcher.procs)
        if gone and not ended.wait(1.0):  # elsewhere the main thread notices and says so
            log.error("%s --resume goes on from the last checkpoint.", _LOST)
            launcher.kill(signal.SIGKILL)
            os._exit(2)


def _follow_first_process() -> None:
    """Have processes that Lightning starts leave with the one that starts them."""
    first = os.environ.get(_PARENT)
    if first is not None and os.environ.get("LOCAL_RANK", "0") != "0":
        threading.Thread(target=_leave_with, args=(int(first),), daemon=True).start()
    elif "LOCAL_RANK" not in os.environ:
        os.environ[_PARENT] = str(os.getpid())


def _leave_with(first: int) -> None:
    while os.getppid() == first:
        time.sleep(1)
    time.sleep(5)  # the main thread may still say why
    os._exit(1)


def _speaks_for_first() -> bool:
    """Tell whether this process is to report, as the one that started it was killed."""
    time.sleep(1)  # the first process ends this one unless it is gone itself
    first = os.environ.get(_PARENT)
    return first not in (None, str(os.getppid())) and os.environ.get("LOCAL_RANK") == "1"

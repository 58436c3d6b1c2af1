"""A process that takes jobs off the queue, one after the other."""

import logging
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from lamina.errors import LaminaError, ResourceError
from lamina.files import atomic_path
from lamina.serve.errors import places
from lamina.serve.jobs.store import Store
from lamina.serve.jobs.work import Cancelled, Job, Work
from lamina.signals import ignore_terminal

log = logging.getLogger(__name__)

READY = "ready"

_IDLE_S = 0.1
_TELL_EVERY_S = 0.25
_ORPHANED = 3


def run(folder: Path, make_job: Callable[[], Job], worker: str, told: Connection) -> None:
    """Work until told to stop, or until the server is gone.

    Args:
        folder: Of the queue.
        make_job: Makes what does the jobs; called once, here.
        worker: Name of this process in the queue.
        told: Gets :data:`READY` once it works; anything that comes back means stop.
    """
    ignore_terminal()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    warnings.simplefilter("ignore")  # those of libraries quote what headers say
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    threading.Thread(target=_end_with_the_server, daemon=True).start()
    store, job = Store(folder), make_job()
    try:
        told.send(READY)
    except OSError:  # the server is gone already
        return
    while not told.poll():
        work = store.claim(worker)
        if work is None:
            told.poll(_IDLE_S)
        else:
            _do(store, worker, work, job)


def _do(store: Store, worker: str, work: Work, job: Job) -> None:
    last_stage, last_time = "", 0.0

    def tell(stage: str, progress: float) -> None:
        nonlocal last_stage, last_time
        now = time.monotonic()
        if stage == last_stage and now - last_time < _TELL_EVERY_S:
            return
        last_stage, last_time = stage, now
        if not store.tell(work.job_id, worker, stage, progress):
            raise Cancelled

    try:
        result = _kept(work, job, tell)
    except Cancelled:
        store.give_up(work.job_id, worker)
    except LaminaError as error:
        log.warning("Job %s failed: %s", work.job_id, type(error).__name__)
        store.fail(work.job_id, worker, error)
    except Exception as error:  # noqa: BLE001 - a fault of one scan must not end the worker
        log.error("Job %s failed: %s", work.job_id, places(error))
        store.fail(work.job_id, worker, _unexpected(error))
    else:
        store.finish(work.job_id, worker, result)


def _kept(work: Work, job: Job, tell: Callable[[str, float], None]) -> Mapping[str, Any]:
    """Do the job into a hidden folder, and show it when it is complete."""
    with atomic_path(work.out) as part:
        part.mkdir()
        result = dict(job(replace(work, out=part), tell))
        result["files"] = [
            {"name": name, "kind": kind, "size_bytes": (part / name).stat().st_size}
            for name, kind in result["files"].items()
        ]
    return result


def _unexpected(error: Exception) -> LaminaError:
    if isinstance(error, MemoryError | RuntimeError):  # torch says the one as the other
        return ResourceError(
            "The scan cannot be segmented on this machine; it has probably too little memory.",
            remedy="Send a smaller scan, or ask whoever runs the server.",
        )
    return LaminaError(
        f"The scan cannot be segmented: unexpected {type(error).__name__}.",
        remedy="Ask whoever runs the server to look at its log.",
    )


def _end_with_the_server() -> None:
    server = parent_process()
    if server is not None:
        wait([server.sentinel])
        os._exit(_ORPHANED)

"""The worker processes of a server: started, watched, started again, and stopped."""

import logging
import multiprocessing
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from lamina.errors import ResourceError
from lamina.serve.jobs import worker
from lamina.serve.jobs.store import Store
from lamina.serve.jobs.work import Job

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.2
_SWEEP_EVERY_S = 60.0
_CANCEL_GRACE_S = 10.0
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0


@dataclass
class _Worker:
    name: str
    process: SpawnProcess
    told: Connection
    ready: bool = False


class Pool:
    """Keeps a number of workers at their queue.

    Args:
        store: The queue.
        make_job: Makes what does the jobs, within each worker; it must be importable there.
        workers: How many processes.
        timeout_s: The longest that a job may take.
        sweep: Clears what is kept no longer; called about once a minute.
    """

    def __init__(
        self,
        store: Store,
        make_job: Callable[[], Job],
        *,
        workers: int,
        timeout_s: float,
        sweep: Callable[[], None],
    ) -> None:
        self.store = store
        self.make_job = make_job
        self.size = workers
        self.timeout_s = timeout_s
        self.sweep = sweep
        self.deaths = 0
        self._workers: list[_Worker] = []
        self._pause_s, self._not_before, self._swept = _FIRST_PAUSE_S, 0.0, time.monotonic()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._tend, name="workers", daemon=True)

    def start(self) -> None:
        """Start the workers; they need a moment to be ready."""
        self._thread.start()

    @property
    def num_ready(self) -> int:
        """Workers that take jobs."""
        return sum(each.ready and each.process.is_alive() for each in list(self._workers))

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [each.process.pid for each in list(self._workers) if each.process.pid]

    def stop(self, grace_s: float) -> None:
        """Let workers end what they do within a time; what they do not end is queued again."""
        self._stopping.set()
        self._thread.join()
        for each in self._workers:
            if each.ready:
                _send_stop(each.told)
            else:
                each.process.kill()
        end = time.monotonic() + grace_s
        for each in self._workers:
            each.process.join(max(0.0, end - time.monotonic()))
            each.process.kill()
            each.process.join()
            self.store.release(each.name, tried=False)
            each.told.close()
        self._workers.clear()

    def _tend(self) -> None:
        while not self._stopping.is_set():
            try:
                self._bury()
                self._hire()
                self._end_overdue()
                self._sweep()
            except Exception:  # a full disk, say, which may have room again
                log.exception("The workers could not be looked after.")
                self._stopping.wait(1.0)
            self._stopping.wait(_LOOK_EVERY_S)

    def _bury(self) -> None:
        """Put back what workers were doing that have died."""
        for each in list(self._workers):
            if each.told.poll() and not each.ready:
                each.ready = _is_ready(each.told)
                self._pause_s = _FIRST_PAUSE_S
            if each.process.is_alive():
                continue
            self._workers.remove(each)
            each.process.join()
            each.told.close()
            log.error("A worker ended with status %s.", each.process.exitcode)
            self.store.release(each.name)
            self.deaths += 1
            if not each.ready:  # it will not be better at once
                self._not_before = time.monotonic() + self._pause_s
                self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)

    def _hire(self) -> None:
        while len(self._workers) < self.size and time.monotonic() >= self._not_before:
            name = uuid.uuid4().hex
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.get_context("spawn").Process(
                target=worker.run,
                args=(self.store.folder, self.make_job, name, theirs),
                daemon=True,
            )
            process.start()
            theirs.close()
            self._workers.append(_Worker(name, process, ours))

    def _end_overdue(self) -> None:
        for job_id, name, cancelled in self.store.overdue(self.timeout_s, _CANCEL_GRACE_S):
            if not cancelled:
                log.error("Job %s took longer than %g s.", job_id, self.timeout_s)
                self.store.fail(
                    job_id,
                    name,
                    ResourceError(
                        f"The scan took longer than {self.timeout_s:g} s.",
                        remedy="Send a smaller one, or ask whoever runs the server.",
                    ),
                )
            for each in self._workers:
                if each.name == name:
                    each.process.kill()

    def _sweep(self) -> None:
        if time.monotonic() - self._swept > _SWEEP_EVERY_S:
            self._swept = time.monotonic()
            self.sweep()


def _is_ready(told: Connection) -> bool:
    try:
        return bool(told.recv() == worker.READY)
    except (EOFError, OSError):
        return False


def _send_stop(told: Connection) -> None:
    try:
        told.send("stop")
    except OSError:
        return

"""Processes that measure one thing each, when they are told to."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager
from threading import Timer
from types import TracebackType
from typing import Any

from lamina.errors import LaminaError


class Failed(LaminaError):
    """A process could not do its job; says why."""


class Measuring(AbstractContextManager["Measuring"]):
    """A process that does a job step by step, each when asked, and is ended with the block.

    Args:
        job: One of those in :mod:`lamina.workflows.bench.jobs`.
        threads: For whatever computes in it.
        timeout_s: Seconds that a step may take.
        settings: Plain data for the job.
    """

    def __init__(self, job: str, *, threads: int, timeout_s: float, **settings: Any) -> None:
        self._timeout_s = timeout_s
        told = json.dumps({"threads": threads, **settings}, default=str)
        # Torch and the libraries beneath it read it when they are first imported.
        limits = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lamina.workflows.bench.jobs", job, told],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | limits,
        )
        self._ready = False

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()

    def wait(self) -> None:
        """Wait until the process has started and imported what it needs.

        Raises:
            Failed: It did not start.
        """
        if not self._ready:
            self._asked(None)
        self._ready = True

    def step(self) -> Mapping[str, Any]:
        """Have the next step done, and return what was measured.

        Raises:
            Failed: The job cannot be done, took too long, or was killed.
        """
        self.wait()
        return self._asked("\n")

    def _asked(self, question: str | None) -> Mapping[str, Any]:
        """Return the next reply, after sending a line if one is given."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        timer = Timer(self._timeout_s, self._process.kill)
        timer.start()
        try:
            if question:
                self._process.stdin.write(question)
                self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late = not timer.is_alive()
            timer.cancel()
        if not line:
            raise Failed(f"took more than {self._timeout_s:.0f} s" if late else self._end())
        found: dict[str, Any] = json.loads(line)
        if "error" in found:
            raise Failed(found["error"])
        return found

    def _end(self) -> str:
        status = self._process.wait()
        return f"ended with status {status}" + (", such as for lack of memory" * (status == -9))

"""Run a function over many cases, in this process or in several, losing none."""

import logging
import os
import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import cache
from multiprocessing import current_process, get_context, parent_process
from typing import TypeVar

import psutil

from lamina.errors import LaminaError, ResourceError

log = logging.getLogger(__name__)

_TRIAL = "lamina-trial"

Item = TypeVar("Item")
Result = TypeVar("Result")


def workers_for(largest_case_bytes: int, num_cases: int) -> int:
    """Return how many processes fit into half of the free memory; 0 where one process is quicker.

    Args:
        largest_case_bytes: Memory that preparing the largest case takes at its peak.
        num_cases: Number of cases to share out.
    """
    by_memory = psutil.virtual_memory().available // 2 // max(1, largest_case_bytes)
    workers = int(min(num_cores(), by_memory, num_cases))
    small = largest_case_bytes * num_cases < 2**28
    return 0 if small or workers < 2 else workers


def num_cores() -> int:
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not everywhere
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def run_over(
    function: Callable[[Item], Result], items: Sequence[Item], workers: int
) -> Iterator[tuple[Item, Result | LaminaError]]:
    """Yield every item with its result, or with the error that it raised.

    A worker process that the system kills (usually for memory) does not hang or lose anything: the
    remaining items are run again by half as many workers; an item that kills a lone worker is
    reported.

    Args:
        function: Called with one item; picklable when ``workers`` > 0.
        items: Picklable when ``workers`` > 0.
        workers: Number of processes; 0 runs in this one.
    """
    remaining = list(items)
    if workers > 0:
        pickle.dumps(function)  # fails here, where a pool would wait for ever
    workers = startable(workers)
    while workers > 0 and remaining:
        try:
            yield from _run_in_pool(function, remaining, workers)
        except BrokenProcessPool:
            if workers == 1:
                killed = "a worker process was killed, most likely for lack of memory."
                yield remaining.pop(0), ResourceError(killed, remedy="Use fewer --workers.")
            workers = max(1, workers // 2)
    for item in remaining:
        yield item, _attempt(function, item)


def startable(workers: int) -> int:
    """Return how many of these new processes come up: all, or 0 with a warning.

    They do not when the program was read from stdin, or is a script that has no
    ``if __name__ == "__main__"``. A process reads the script before its work; the one that tries
    this leaves where the script comes here again.
    """
    if current_process().name == _TRIAL:
        sys.exit(1)
    if workers == 0 or _can_start():
        return workers
    log.warning(
        "Worker processes cannot be started from here; going on in this process. "
        'A script can have them if it calls Lamina below if __name__ == "__main__":.'
    )
    return 0


@cache
def _can_start() -> bool:
    if getattr(sys.modules["__main__"], "__file__", None) == "<stdin>":
        return False
    trial = get_context("spawn").Process(target=int, name=_TRIAL)
    trial.start()
    trial.join()
    return trial.exitcode == 0


def _run_in_pool(
    function: Callable[[Item], Result], remaining: list[Item], workers: int
) -> Iterator[tuple[Item, Result | LaminaError]]:
    """Yield results in order and take each finished item off ``remaining``."""
    pool = _pool(workers)
    try:
        for future in [pool.submit(_attempt, function, item) for item in remaining]:
            outcome = future.result()
            yield remaining.pop(0), outcome
    finally:
        pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    level = (log.getEffectiveLevel(),)
    return ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, level)


def _start_worker(log_level: int) -> None:
    """Make this worker warn as its parent does, and leave quietly on Ctrl-C or with its parent."""
    logging.getLogger("lamina").setLevel(log_level)
    signal.signal(signal.SIGINT, lambda number, frame: sys.exit(1))
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()  # returns when it is killed; on any other day this thread goes first
        os._exit(1)


def _attempt(function: Callable[[Item], Result], item: Item) -> Result | LaminaError:
    try:
        return function(item)
    except LaminaError as error:
        return error
    except MemoryError:
        return ResourceError("not enough memory for this case.", remedy="Free some memory.")

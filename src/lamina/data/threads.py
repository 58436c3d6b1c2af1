"""Work shared out over threads, which NumPy's loops allow to run at the same time."""

from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")


def for_each(job: Callable[[Item], Any], items: Iterable[Item], threads: int) -> None:
    """Call a function with every item, in any order, on so many threads.

    Raises:
        Exception: The first that a call raises.
    """
    if threads < 2:
        deque(map(job, items), maxlen=0)
        return
    with ThreadPoolExecutor(threads) as pool:
        deque(pool.map(job, items), maxlen=0)

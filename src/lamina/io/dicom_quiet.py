"""What pydicom would say of headers, and so of patients, is not said.

It says it by switches of the whole process, and scans are read in one thread while others are
written in another. So whichever thread comes first switches off, and whichever leaves last switches
on again.
"""

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from threading import Lock
from typing import Any, cast


class _Quiet(AbstractContextManager[None]):
    """Keeps pydicom quiet as long as any thread is inside."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._inside = 0
        self._switched_off = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._switched_off.enter_context(_off())
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._switched_off.close()


_QUIET = _Quiet()


def unquoted() -> AbstractContextManager[None]:
    """Take values of tags as they are; else pydicom would log odd ones, a patient's too."""
    return _QUIET


@contextmanager
def _off() -> Iterator[None]:
    from pydicom.config import disable_value_validation

    log = logging.getLogger("pydicom")
    was_disabled = log.disabled
    with disable_value_validation(), _without_warnings():
        log.disabled = True
        try:
            yield
        finally:
            log.disabled = was_disabled


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Ignore warnings by an entry in the list of filters.

    ``catch_warnings`` puts a copy in the list's place: where another thread does so meanwhile, the
    copy with the entry could stay for good.
    """
    filters = cast("list[Any]", warnings.filters)
    entry = ("ignore", re.compile(""), Warning, None, 0)
    filters.insert(0, entry)
    try:
        yield
    finally:
        with suppress(ValueError):  # somebody has reset all filters
            filters.remove(entry)

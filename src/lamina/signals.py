"""The signals that ask a program to end: Ctrl-C, being told to, and a terminal that is closed."""

import os
import signal
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

ENDING = ("SIGINT", "SIGTERM", "SIGHUP")
"""Their names, on whatever system they came."""
INTERRUPTED = 130
"""Exit status of a program that one of them ended."""

_HANGUP = "SIGHUP"
"""Comes twice when a terminal is closed: from the system, and from its shell."""


def end_like_ctrl_c() -> None:
    """Have all of them do what Ctrl-C does; those that are ignored, as by ``nohup``, stay so."""

    def end(number: int, frame: Any) -> None:
        _named(number)
        signal.default_int_handler(number, frame)

    for each in _heeded():
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, end)


def on_ending(heard: Callable[[str], None]) -> Callable[[], None]:
    """Call ``heard`` with the name of the first that comes; a second Ctrl-C acts at once, as usual.

    Outside the main thread nothing is heard. A closed terminal is not where it is ignored, as by
    ``nohup``.

    Returns:
        What puts the signals back as they were.
    """
    earlier: dict[signal.Signals, Any] = {}

    def stop(number: int, frame: Any) -> None:
        heard(_named(number))
        for each, handler in earlier.items():
            if each.name != _HANGUP:
                signal.signal(each, handler)

    def put_back() -> None:
        for each, handler in earlier.items():
            signal.signal(each, handler)

    if threading.current_thread() is threading.main_thread():  # no other may listen
        for each in _heeded():
            earlier[each] = signal.signal(each, stop)
    return put_back


def ignore_terminal() -> None:
    """Make a process deaf to Ctrl-C and to the terminal's end, of which all its processes hear.

    It is for those that the main process tells when to end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, _HANGUP):
        signal.signal(getattr(signal, _HANGUP), signal.SIG_IGN)


def _heeded() -> list[signal.Signals]:
    here = [signal.Signals[name] for name in ENDING if name in signal.Signals.__members__]
    return [s for s in here if s.name != _HANGUP or signal.getsignal(s) is not signal.SIG_IGN]


def _named(number: int) -> str:
    """Return the name of a signal that came, sure that what ends the program may still print."""
    name = signal.Signals(number).name
    if name == _HANGUP:
        for stream in (1, 2):
            _forget_closed_terminal(stream)
    return name


def _forget_closed_terminal(stream: int) -> None:
    """Lose what is written to a terminal that is gone, which would be an error."""
    with suppress(OSError):  # it is not open
        if stat.S_ISCHR(os.fstat(stream).st_mode) and not os.isatty(stream):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream)
            os.close(nowhere)

"""The verbs: each takes settings in and leaves files behind. The command line only calls them."""

from collections.abc import Callable

Progress = Callable[[int, int, str], None]
"""``(done, in all, what)``, called after each piece of work; a progress bar listens."""


def no_progress(done: int, total: int, what: str) -> None:
    """Listen to nothing."""

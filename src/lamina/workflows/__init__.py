"""The verbs: each takes settings in and leaves files behind. The command line only calls them."""

from collections.abc import Callable

Progress = Callable[[float, int, str], None]
"""``(done, in all, what)``, called as work goes on; a progress bar listens.

``done`` counts the piece that is under way in part, so that one big scan moves the bar too.
"""


def no_progress(done: float, total: int, what: str) -> None:
    """Listen to nothing."""

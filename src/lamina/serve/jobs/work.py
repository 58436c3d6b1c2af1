"""What a worker is given to do, and how it tells how far it is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Tell = Callable[[str, float], None]
"""``(stage, progress)``, progress from 0 to 1; raises :class:`Cancelled` where a job is to end."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A job as a worker sees it."""

    job_id: str
    model: str
    name: str
    """What the user calls the scan; it may be a patient's name, and belongs in no log."""
    files: Mapping[Path, str]
    """What was uploaded: where it lies -> what the user called it, folders included."""
    ordered: bool = False
    """Whether the user said which file is which channel: then they are in that order."""
    pixel_size: float | None = None
    """Side of a pixel in mm, of a picture, which cannot tell it."""
    out: Path
    """Empty folder for the results."""


Job = Callable[[Work, Tell], Mapping[str, Any]]
"""Does the work, leaves files in ``out``, and returns ``structures``, ``flags``, ``affine`` and
``files``, which is a mapping of file names to kinds. A ``LaminaError`` of it is shown to the user.
"""


class Cancelled(Exception):
    """The job is not wanted any more, or is another worker's by now."""

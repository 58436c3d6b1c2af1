"""What is wrong, or merely odd, in a dataset: each case is examined once, then all are compared.

:mod:`examine` reads, the checks are pure functions of what it found, :mod:`diagnosis` runs them and
:mod:`mend` writes a mended copy.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""From what makes a case unusable, over what a person should look at, to what is good to know."""

LEAVE_OUT = "leave_out"
"""The repair that does not copy the case."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to know about a dataset."""

    severity: Severity
    check: str
    """Which check found it, one of ``CHECKS``."""
    case: str
    """Case id; empty for what concerns the whole set."""
    file: str
    message: str
    """What is wrong, with numbers and units; it does not repeat the file."""
    remedy: str
    """What to do about it, as a sentence."""
    mend: str = ""
    """Repair that mending would apply, one of ``REPAIRS``; empty where only a person can tell."""
    other: str = ""
    """The case that this one is compared with, such as its duplicate."""

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)

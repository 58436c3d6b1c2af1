"""Every error Lamina raises on purpose, as one small tree.

A message names the file or parameter, the constraint it broke and the value found; ``remedy`` says
what to do about it. The command line prints both and nothing else; ``--json`` prints
:meth:`LaminaError.as_dict`.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

_NAMES = 100
"""Known names that an error lists."""


class LaminaError(Exception):
    """Base of all errors that a user can mend.

    Args:
        message: What is wrong: the file or parameter, the constraint and the value.
        remedy: What to do about it, as a sentence; empty when the message says it all.
    """

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}".strip()

    def as_dict(self) -> dict[str, str]:
        """Return the error as plain data for machine-readable output."""
        return {"error": type(self).__name__, "message": self.message, "remedy": self.remedy}


class ConfigError(LaminaError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another.

    It is a ``ValueError`` as well, so that one raised by a settings class is listed with all other
    faults by :func:`lamina.config.resolve`.
    """


class UnknownNameError(LaminaError):
    """A network, loss, layout, format or metric of that name is not registered."""


class FileError(LaminaError):
    """A file cannot be read or written: missing, damaged, unsupported, or without space."""


class DiskFullError(FileError):
    """A file cannot be written for want of space on the disk; later it may."""


class GeometryError(LaminaError):
    """Where voxels lie is unknown, impossible, or differs between files that must agree."""


class LabelError(LaminaError):
    """A label map holds undeclared values, or a label set contradicts itself."""


class DatasetError(LaminaError):
    """A dataset folder is not understood, or holds too little to work with."""


class BundleError(LaminaError):
    """A model bundle is damaged, altered, unsafe to open, or of an unknown version."""


class ExportError(LaminaError):
    """A model cannot be exported, or what was exported does not do what the model does."""


class ResourceError(LaminaError):
    """A piece of work needs more memory than there is."""


class ClusterError(LaminaError):
    """A cluster cannot be started or reached, or is too small for the work."""


class TrainingError(LaminaError):
    """Training cannot start, continue, or resume."""


class PacsError(LaminaError):
    """A PACS refuses what it is asked for, or answers what is not understood."""


class UnreachableError(PacsError):
    """A PACS does not answer now; later it may."""


def some(items: Iterable[object], most: int = 8, *, separator: str = ", ") -> str:
    """Join the first few of many items for a message, and say how many more there are."""
    texts = [str(item) for item in items]
    more = len(texts) - most
    rest = f"{separator.rstrip(', ')} and {more} more" if more > 0 else ""
    return separator.join(texts[:most]) + rest


def repeated(names: Iterable[str]) -> list[str]:
    """Return at most five of the names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)[:5]


def unknown(what: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """Return the error for a name that there is not: it offers near ones, or those that are."""
    names = list(known)
    near = get_close_matches(name, names, n=3, cutoff=0.5)
    offer = f"Did you mean {' or '.join(near)}?" if near else f"Known: {some(names, _NAMES)}."
    return UnknownNameError(f"Unknown {what} {name!r}.", remedy=offer)


def reasons(cases: Mapping[str, str]) -> str:
    """Say why the first few of many cases, by case id, are as they are."""
    return some((f"{case}: {why}" for case, why in cases.items()), 3, separator="; ")


def first_line(error: Exception) -> str:
    """Return what an error says first; of one that says nothing, what it is."""
    nothing = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
    return str(error).partition("\n")[0] or nothing

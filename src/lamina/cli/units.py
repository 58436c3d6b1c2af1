"""Amounts as people type them: ``8G`` of memory, ``20m`` of time."""

import re

import typer

_SIZES = {"": 1.0, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_TIMES = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def memory(text: str) -> float:
    """Return bytes for ``"8G"``, ``"512M"`` or a plain number."""
    return _amount(text.upper().removesuffix("B"), _SIZES, "8G or 512M")


def duration(text: str) -> float:
    """Return seconds for ``"20m"``, ``"1.5h"``, ``"90s"`` or a plain number."""
    return _amount(text.lower(), _TIMES, "20m or 1.5h")


def pause(text: str) -> float:
    """Return seconds as :func:`duration` does, and none for ``"0"``."""
    return 0.0 if text.strip() == "0" else duration(text)


def fold(text: str) -> int | str:
    """Return the number of a fold, or ``"all"``."""
    if text != "all" and not text.isdecimal():
        raise typer.BadParameter(f"{text!r} is neither a number from 0 nor 'all'.")
    return text if text == "all" else int(text)


def numbers(text: str) -> list[int]:
    """Return whole numbers for ``"0,1,2"``."""
    return [int(part) for part in _parts(text, "[0-9]+", "whole numbers such as 0,1,2")]


def folds(text: str) -> list[int] | None:
    """Return the numbers of folds, or ``None`` for ``"all"``."""
    return None if text == "all" else numbers(text)


def names(text: str) -> list[str]:
    """Return words for ``"A, B,C"``."""
    return _parts(text, ".+", "names such as A,B,C")


def millimetres(text: str) -> list[float]:
    """Return sizes for ``"1,1,2.5"``."""
    return [float(part) for part in _parts(text, r"\d+(\.\d+)?", "sizes in mm such as 1,1,2.5")]


def spoken(seconds: float) -> str:
    """Return a duration in the two largest units that matter: ``"1 h 20 min"``, ``"45 s"``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def _amount(text: str, units: dict[str, float], example: str) -> float:
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([A-Za-z]?)\s*", text)
    if match is None or match[2] not in units or float(match[1]) == 0:
        raise typer.BadParameter(f"{text!r} is no amount above zero such as {example}.")
    return float(match[1]) * units[match[2]]


def _parts(text: str, pattern: str, wanted: str) -> list[str]:
    parts = [part.strip() for part in text.split(",")]
    if not all(re.fullmatch(pattern, part) for part in parts):
        raise typer.BadParameter(f"{text!r}: must be {wanted}.")
    return parts

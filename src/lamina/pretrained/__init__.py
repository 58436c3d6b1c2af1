"""Trained models that come with the package, and the same in int8, for the runtime."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SUFFIX = ".lamina"
INT8 = "-int8"


def shipped() -> dict[str, Path]:
    """Return the names of the models that are here, in order, with their files."""
    return {file.stem: file for file in sorted(FOLDER.glob(f"[!.]*{SUFFIX}"))}


def quantised() -> dict[str, Path]:
    """Return the names of those exported in int8, such as ``hc18-int8``, with their folders."""
    return {folder.name: folder for folder in sorted(FOLDER.glob(f"[!.]*{INT8}"))}

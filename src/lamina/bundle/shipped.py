"""Trained models that come with the package."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "pretrained"
SUFFIX = ".lamina"


def shipped() -> dict[str, Path]:
    """Return the names of the models that are here, in order, with their files."""
    return {file.stem: file for file in sorted(FOLDER.glob(f"*{SUFFIX}"))}

"""Where the page lies that the server and the viewer show."""

from pathlib import Path

STATIC = Path(__file__).parent / "static"
"""Its scripts, styles and pictures."""

INDEX = STATIC / "index.html"
"""Itself."""

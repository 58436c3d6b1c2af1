"""One page about one segmentation: the scan with its structures, their sizes, what deserves a look.

Unlike the other pages it knows no reference, and says nothing of how good the segmentation is.
"""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lamina.files import write_text
from lamina.labels import LabelSet
from lamina.report.overlay import save_overlay
from lamina.report.page import render
from lamina.volume import Volume


def save_segmentation_page(
    path: Path,
    image: Volume,
    segmentation: Volume,
    labels: LabelSet,
    *,
    name: str,
    structures: Sequence[Mapping[str, Any]],
    flags: Sequence[str] = (),
    about: Mapping[str, str] | None = None,
    ct: bool | None = None,
) -> None:
    """Write the page, which fetches nothing.

    Args:
        path: The HTML file.
        image: The scan ``(C, *S)``.
        segmentation: Label map ``(1, *S)`` in file values.
        labels: Names and values.
        name: What the scan is called.
        structures: ``name``, ``color``, ``ml`` (or ``None``) and ``flags`` of each.
        flags: What about the scan deserves a look.
        about: Facts to list, such as the model.
        ct: Whether the scan is a CT; as for :func:`~lamina.report.slices.window_of`.

    Raises:
        GeometryError, LabelError: As for :func:`~lamina.report.overlay.save_overlay`.
        FileError: The page cannot be written.
    """
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "overlay.png"
        save_overlay(picture, image, segmentation, labels, ct=ct)
        encoded = base64.b64encode(picture.read_bytes()).decode()
    page = render(
        "segmentation.html",
        name=name,
        picture=f"data:image/png;base64,{encoded}",
        structures=structures,
        flags=flags,
        about=about or {},
    )
    write_text(path, page)

"""One page about the health of a dataset: findings, pictures of the cases, what was checked.

The page stands alone: styles and pictures are within it, nothing is fetched.
"""

import base64
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from lamina.data.case import Case, Cohort
from lamina.data.doctor import LEAVE_OUT, SEVERITIES, Finding, Severity
from lamina.data.doctor.diagnosis import CHECKS
from lamina.data.doctor.mend import REPAIRS, Change
from lamina.errors import LaminaError
from lamina.files import write_text
from lamina.io import read_stored_labels, read_volume
from lamina.labels import IGNORE_INDEX, LabelSet
from lamina.report.overlay import Colour, label_colours
from lamina.report.slices import Plane, View, planes_of, view_of, window_of
from lamina.volume import Volume

MAX_PICTURED = 60
"""Cases that are drawn, the gravest first; a page of hundreds is not looked at."""

_HEIGHT = 300
_WIDEST = 600
_OUTLINE = 2
_GREYS = 128
_UNDECLARED = IGNORE_INDEX - 1
_UNDECLARED_COLOUR: Colour = (1.0, 0.23, 0.19)
_CHANNEL_CHECKS = {"channels", "channel_order", "constant", "not_finite", "intensity"}


@dataclass(frozen=True)
class Picture:
    """One slice for the page."""

    caption: str
    data: str
    """PNG as a data URI."""
    width: int
    height: int


@dataclass(frozen=True)
class Chapter:
    """One case on the page."""

    name: str
    patient: str
    severity: Severity
    findings: tuple[Finding, ...]
    pictures: tuple[Picture, ...]
    legend: Mapping[str, str]
    """Structure shown -> its colour for CSS."""


def save_report(
    path: Path,
    cohort: Cohort,
    cases: Mapping[str, Case],
    findings: Sequence[Finding],
    changes: Sequence[Change],
    *,
    progress: Callable[[float, int, str], None] | None = None,
) -> None:
    """Write the page.

    Args:
        path: HTML file to write; its folder is made.
        cohort: The dataset.
        cases: The cases that findings name, those of the test folder among them.
        findings: What was found.
        changes: What a mended copy differs in.
        progress: Called after each case that is drawn.

    Raises:
        FileError: The page cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("lamina.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["short"] = lambda file: "/".join(Path(file).parts[-2:])
    page = environment.get_template("doctor.html").render(
        cohort=cohort,
        num_patients=len({case.group for case in cohort.cases}),
        counts={s: sum(f.severity == s for f in findings) for s in SEVERITIES},
        verdict=_verdict(cohort, findings, changes),
        general=[finding for finding in findings if not finding.case],
        chapters=list(_chapters(cohort, cases, findings, progress)),
        changes=changes,
        repairs=REPAIRS,
        checks=[(name, text, _tally(name, findings)) for name, text in CHECKS.items()],
    )
    write_text(path, page)


def _verdict(cohort: Cohort, findings: Sequence[Finding], changes: Sequence[Change]) -> str:
    own = {case.case_id for case in cohort.cases}
    broken = own & {f.case for f in findings if f.severity == "error"}
    if not broken:
        odd = len(own & {f.case for f in findings if f.severity == "warning"})
        return "Every case can be used" + (f"; {odd} of {len(own)} deserve a look." if odd else ".")
    lost = {change.case for change in changes if change.repair == LEAVE_OUT}
    mended = f" A mended copy keeps {len(broken - lost)} of them." if broken - lost else ""
    return f"Not to be used as they are: {len(broken)} of {len(own)} cases.{mended}"


def _tally(check: str, findings: Sequence[Finding]) -> list[tuple[str, int]]:
    found = Counter(finding.severity for finding in findings if finding.check == check)
    return [(severity, found[severity]) for severity in SEVERITIES if found[severity]]


def _chapters(
    cohort: Cohort,
    cases: Mapping[str, Case],
    findings: Sequence[Finding],
    progress: Callable[[float, int, str], None] | None,
) -> Iterator[Chapter]:
    about: dict[str, list[Finding]] = {}
    for finding in sorted(findings, key=lambda f: SEVERITIES.index(f.severity)):
        if finding.case:
            about.setdefault(finding.case, []).append(finding)
    drawn = min(len(about), MAX_PICTURED)
    for number, (name, found) in enumerate(about.items(), start=1):
        pictures: list[Picture] = []
        legend: dict[str, str] = {}
        if number <= drawn:
            channels = bool(_CHANNEL_CHECKS & {finding.check for finding in found})
            pictures, legend = draw_case(cases[name], cohort, all_channels=channels)
            others = dict.fromkeys(f.other for f in found if f.other in cases)
            for other in list(others)[:1]:
                beside, _ = draw_case(cases[other], cohort)
                pictures += [replace(p, caption=f"{other}, {p.caption}") for p in beside[:1]]
            if progress:
                progress(number, drawn, "Drawing")
        yield Chapter(
            name, cases[name].group, found[0].severity, tuple(found), tuple(pictures), legend
        )


def draw_case(
    case: Case, cohort: Cohort, *, all_channels: bool = False
) -> tuple[list[Picture], dict[str, str]]:
    """Draw a case's planes with the outlines of its label, where its header puts it.

    Args:
        case: What can be read of it is drawn; unreadable files are left out.
        cohort: The dataset, for the names of labels and channels.
        all_channels: Draw the first plane of the other channels too.

    Returns:
        The pictures, and the colour of each structure that the label holds.
    """
    parts = []
    for path in case.images:
        try:
            parts.append(read_volume(path))
        except LaminaError:
            return [], {}
    labels = cohort.labels
    indices = _label_on(parts[0], case, labels)
    colours = dict(enumerate(label_colours(labels).values(), start=1))
    colours[_UNDECLARED] = _UNDECLARED_COLOUR
    planes = planes_of(parts[0])
    views = [view_of(parts[0], indices, None, plane) for plane in planes]
    scale = min(min(_HEIGHT / high, _WIDEST / wide) for high, wide in (v.size_mm for v in views))
    which = f", {cohort.channels[0]}" if len(cohort.channels) > 1 else ""
    pictures = [
        _draw(view, parts[0].array[0], colours, f"{_name(parts[0], plane)}{which}", scale)
        for plane, view in zip(planes, views, strict=True)
    ]
    if all_channels:
        channels = [replace(p, array=p.array[[i]]) for p in parts for i in range(p.num_channels)]
        for number, channel in enumerate(channels[1:], start=1):
            if channel.spatial_shape == parts[0].spatial_shape:
                view = view_of(channel, indices, None, planes[0])
                name = dict(enumerate(cohort.channels)).get(number, f"channel {number}")
                pictures.append(_draw(view, channel.array[0], colours, name, scale))
    return pictures, _legend(indices, labels, colours)


def _name(image: Volume, plane: Plane) -> str:
    """Return the plane's name; a picture that says nothing of mm says nothing of the body."""
    return plane.name if image.unit == "mm" else "picture"


def _label_on(image: Volume, case: Case, labels: LabelSet) -> NDArray[np.uint8]:
    """Return class indices ``(1, *S)`` at the places of the image's voxels; 0 without a label."""
    empty = np.zeros((1, *image.spatial_shape), np.uint8)
    try:
        label = read_stored_labels(case.label) if case.label else None
    except LaminaError:
        label = None
    if label is None or label.spatial_dims != image.spatial_dims:
        return empty
    dims = image.spatial_dims
    way = np.linalg.inv(label.affine) @ image.affine
    values = np.rint(np.nan_to_num(label.array[0]))
    coded = np.full(values.shape, _UNDECLARED, np.uint8)
    for index, value in enumerate((labels.background, *labels.values.values())):
        coded[values == value] = index
    if labels.ignore is not None:
        coded[values == labels.ignore] = 0
    if label.spatial_shape == image.spatial_shape and np.allclose(way, np.eye(4), atol=1e-3):
        return coded[None]
    return np.asarray(
        ndimage.affine_transform(
            coded, way[:dims, :dims], way[:dims, 3], image.spatial_shape, order=0, cval=0
        )
    )[None]


def _draw(
    view: View, channel: NDArray[Any], colours: Mapping[int, Colour], name: str, scale: float
) -> Picture:
    high, wide = (max(8, round(side * scale)) for side in view.size_mm)
    black, white = window_of(channel)
    grey = (np.nan_to_num(view.image.astype(np.float32), nan=black) - black) / (white - black)
    plane = Image.fromarray((grey.clip(0, 1) * 255).astype(np.uint8))
    # One palette of greys and colours keeps outlines in their exact colour, and files small.
    pixels = np.asarray(plane.resize((wide, high), Image.Resampling.BICUBIC)) // 2
    resized = Image.fromarray(view.segmentation).resize((wide, high), Image.Resampling.NEAREST)
    classes = np.asarray(resized)
    palette = np.repeat(np.arange(256, dtype=np.uint8)[:, None] * 2, 3, axis=1)
    for index in np.unique(classes[classes > 0]).tolist():
        mask = classes == index
        edge = mask & ~ndimage.binary_erosion(mask, iterations=_OUTLINE)
        pixels = np.where(edge, _GREYS + index % _GREYS, pixels)
        palette[_GREYS + index % _GREYS] = np.round(np.array(colours[index]) * 255)
    picture = Image.fromarray(pixels.astype(np.uint8), "P")
    picture.putpalette(palette.tobytes())
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    data = base64.b64encode(stream.getvalue()).decode()
    return Picture(name, f"data:image/png;base64,{data}", wide // 2, high // 2)


def _legend(
    indices: NDArray[np.uint8],
    labels: LabelSet,
    colours: Mapping[int, Colour],
) -> dict[str, str]:
    names = dict(enumerate(labels.foreground, start=1)) | {_UNDECLARED: "undeclared"}
    return {
        names[index]: "#" + "".join(f"{round(part * 255):02x}" for part in colours[index])
        for index in np.unique(indices[indices > 0]).tolist()
    }

"""The model card's words for scans and for flat images, and how either kind of model is used."""

from dataclasses import dataclass

from lamina.data.plan import Plan

_AS_SEEN = "LP"
"""Orientation of pictures, and of slices as they are shown: columns first, rows second."""


@dataclass(frozen=True)
class Wording:
    """What things are called."""

    scan: str
    voxel: str
    device: str
    file: str
    """A name to put in place of a user's own."""
    axes: tuple[str, ...]


_VOLUMES = Wording(
    *("scan", "voxel", "scanner", "SCAN.nii.gz"),
    axes=("side to side", "front to back", "head to foot"),
)
_IMAGES = Wording(
    *("image", "pixel", "device", "IMAGE.png"),
    axes=("across", "down"),
)

_USE = """\
On one {scan}, or a folder of {scan}s:

    lamina predict -m FILE.lamina -i {file}{option} -o OUT

From Python:

    import lamina

    segmentation = lamina.load("FILE.lamina").predict("{file}"{argument})"""

_SIZE_TOLD = """

MM is the side of a pixel in millimetres, which PNG, JPEG, TIFF and BMP files do not tell. Where the
file tells it, as DICOM does, leave it out."""
_SIZE_UNKNOWN = """

It measures in pixels, and expects structures as large as those of training: bring other images to
about the extent above first."""

_CHANNELS = """

Its channels lie in one file, in the order above, or in one file each in a folder: {files}."""


def wording(plan: Plan) -> Wording:
    """Return the words for what a plan is made for."""
    return _VOLUMES if plan.spatial_dims == 3 else _IMAGES


def orientation(plan: Plan) -> str:
    """Return the direction of the axes in letters; images have none but the way they are seen."""
    seen = plan.spatial_dims == 2 and plan.orientation == _AS_SEEN
    return "as it is seen" if seen else plan.orientation


def how_to_use(plan: Plan) -> str:
    """Return the commands, and what they must be told of images that do not tell it themselves."""
    words, option, argument, more = wording(plan), "", "", ""
    if plan.spatial_dims == 2 and plan.unit == "mm":
        option, argument, more = " --pixel-size MM", ", pixel_size=MM", _SIZE_TOLD
    elif plan.unit == "px":
        more = _SIZE_UNKNOWN
    elif len(plan.channels) > 1:
        numbers = range(len(plan.channels))
        more = _CHANNELS.format(files=", ".join(f"`SCAN_{n:04d}.nii.gz`" for n in numbers))
    return _USE.format(scan=words.scan, file=words.file, option=option, argument=argument) + more

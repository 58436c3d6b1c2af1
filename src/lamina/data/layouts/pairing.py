"""What is said where no scan and label pair up by their names."""

from collections.abc import Sequence
from pathlib import Path

from lamina.errors import DatasetError
from lamina.io import strip_suffix

_NAMED = 3


def no_pairs(folder: Path, images: Sequence[Path], labels: Sequence[Path]) -> DatasetError:
    """Return the error of a folder that holds no scan with a label, with what was found in it."""
    remedy = (
        "Give a scan and its label the same name, suffixes aside (pictures may be x.png and "
        "x_mask.png), or list the pairs in cases.csv, with the columns image and label."
    )
    if any(strip_suffix(path).endswith("_0000") for path in images):
        remedy += " Names in _0000 are those of nnU-Net, which need its dataset.json."
    if not images or not labels:
        remedy += " Folders within images and labels are not looked into."
    return DatasetError(
        f"{folder}: holds no scans with a label of the same name; scans: {_some(images)}; "
        f"labels: {_some(labels)}.",
        remedy=remedy,
    )


def _some(files: Sequence[Path]) -> str:
    more = f" and {len(files) - _NAMED} more" if len(files) > _NAMED else ""
    return (", ".join(path.name for path in files[:_NAMED]) or "none") + more

"""What is said of scans and labels that do not pair up, and of cases that are not whole."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from lamina.errors import DatasetError, some
from lamina.io import strip_suffix

_NAMED = 3

Unpaired = dict[str, tuple[Path, ...]]
"""What is wrong with a case that is left out, after its name -> its files."""


def find_unpaired(
    images: Mapping[str, Sequence[Path]],
    labels: Mapping[str, Sequence[Path]],
    faults: Mapping[str, str],
) -> Unpaired:
    """Tell why cases are left out.

    Args:
        images: Files by case.
        labels: Files by case.
        faults: What is wrong with the images of a case, by case.
    """
    lacking = dict.fromkeys(images.keys() - labels.keys(), "has no label")
    lacking |= dict.fromkeys(labels.keys() - images.keys(), "has no image")
    return {
        f"{name} {fault}": (*images.get(name, ()), *labels.get(name, ()))
        for name, fault in sorted((lacking | dict(faults)).items())
    }


def check_channels(folder: Path, faults: Mapping[str, str], total: int, remedy: str) -> None:
    """Refuse a folder unless more than half of its cases have the channels of all.

    Else it may be the few that are odd, or the declaration.

    Args:
        folder: The dataset.
        faults: What is wrong with the channels of a case, by case.
        total: Number of cases.
        remedy: What to do.

    Raises:
        DatasetError: Half of the cases or more have other channels.
    """
    if 2 * len(faults) >= total:
        each = (f"{name} {fault}" for name, fault in sorted(faults.items()))
        raise DatasetError(
            f"{folder}: {len(faults)} of {total} cases lack channels or have too many: "
            f"{some(each, 5, separator='; ')}.",
            remedy=remedy,
        )


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
        f"{folder}: holds no scans with a label of the same name; scans: {_names(images)}; "
        f"labels: {_names(labels)}.",
        remedy=remedy,
    )


def _names(files: Sequence[Path]) -> str:
    return some((path.name for path in files), _NAMED) or "none"

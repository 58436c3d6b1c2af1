"""Files of probabilities beside segmentations: one map per class, the background first."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lamina.errors import DatasetError, FileError, GeometryError
from lamina.files import atomic_path, take_room
from lamina.io import read_volume, strip_suffix
from lamina.labels import LabelSet
from lamina.volume import Volume

SUFFIX = "_probabilities"
"""What follows the case id in a file's name."""

_ENDINGS = (".npy", ".nii.gz", ".nii")
_SUM_TOLERANCE = 0.01


def is_probabilities(path: Path) -> bool:
    """Tell by its name whether a file holds probabilities rather than labels."""
    return strip_suffix(path).endswith(SUFFIX)


def probabilities_of(case: str) -> str:
    """Return the name of the file that ``predict`` writes them to."""
    return f"{case}{SUFFIX}{_ENDINGS[0]}"


def find_probabilities(folder: Path, case: str) -> Path | None:
    """Return the case's file of probabilities in ``folder``, if it is there."""
    paths = (folder / f"{case}{SUFFIX}{ending}" for ending in _ENDINGS)
    return next((path for path in paths if path.is_file()), None)


def read_probabilities(
    folder: Path, case: str, labels: LabelSet, prediction: Volume
) -> NDArray[np.floating[Any]]:
    """Read what belongs to a segmentation: ``(num_classes, *S)``, which add up to 1.

    Args:
        folder: Where ``CASE_probabilities.npy``, ``.nii.gz`` or ``.nii`` lies. An array has the
            segmentation's axes after that of the classes; an image lies on its grid.
        case: Id of the case.
        labels: Whose structures, in order, follow the background.
        prediction: The segmentation.

    Raises:
        DatasetError: There is no such file.
        FileError: It cannot be read, or holds other things than probabilities.
        GeometryError: It is not on the segmentation's grid.
    """
    path = find_probabilities(folder, case)
    if path is None:
        raise DatasetError(
            f"{folder}: holds no {case}{SUFFIX}.npy or .nii.gz, which ece and brier need.",
            remedy="Add it, or name the metrics to compute with --metrics.",
        )
    maps = _array(path) if path.suffix == ".npy" else _image(path, prediction)
    shape = (labels.num_classes, *prediction.spatial_shape)
    if maps.shape != shape:
        raise GeometryError(
            f"{path}: has shape {maps.shape}, {shape} is needed.",
            remedy="Give one map for the background and one for each structure, in their order.",
        )
    total = maps.sum(axis=0)
    with np.errstate(invalid="ignore"):
        sound = maps.min() >= 0 and bool((np.abs(total - 1) <= _SUM_TOLERANCE).all())
    if not sound:
        raise FileError(
            f"{path}: holds no probabilities: values from {maps.min():.3g} to {maps.max():.3g}, "
            f"sums from {total.min():.3g} to {total.max():.3g}.",
            remedy="Store what comes after the softmax, not logits.",
        )
    return maps


def _array(path: Path) -> NDArray[np.floating[Any]]:
    try:
        found = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise FileError(f"{path}: cannot be read: {error}.") from error
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f":
        raise FileError(f"{path}: holds no array of floating-point numbers.")
    return found


def _image(path: Path, prediction: Volume) -> NDArray[np.floating[Any]]:
    volume = read_volume(path)
    volume.check_grid_of(prediction)
    return volume.array.astype(np.float32, copy=False)


def room_for(path: Path, shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Make an array in the :func:`hidden_place` of a file; its room on the disk is taken at once.

    Raises:
        FileError: There is not enough.
    """
    hidden = hidden_place(path)
    try:
        with atomic_path(hidden) as part:
            np.lib.format.open_memmap(part, mode="w+", dtype=np.float16, shape=shape)
            with part.open("r+b") as file:
                take_room(file.fileno(), part.stat().st_size)
    except FileError as error:
        error.message = error.message.replace(str(hidden), str(path))
        raise
    return np.lib.format.open_memmap(hidden, mode="r+")


def hidden_place(path: Path) -> Path:
    """Return where probabilities are until the segmentation is there; a part, if nobody comes."""
    return path.with_name(f".part-{path.name}")

"""Scans to prepare for ``preprocessing.py``: made up from a seed, but for one."""

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

# Packages are imported by functions, so that a process which only starts others stays small: they
# inherit its peak memory.

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@dataclass(frozen=True)
class Task:
    """A scan, and what is to be made of it."""

    title: str
    shape: tuple[int, ...]
    """Size in voxels of a made-up scan; empty for a real one."""
    spacing: tuple[float, ...]
    target: tuple[float, ...]
    """Spacing in mm to prepare it at."""
    channels: int
    classes: int
    """With the background."""
    scheme: str
    """How :class:`lamina.data.plan.Normalisation` calls the way to normalise."""
    suffix: str = ".nii.gz"

    def files(self, folder: Path) -> tuple[list[Path], Path]:
        """Return the images, and the label, of a scan."""
        count = 1 if self.suffix == ".png" else self.channels
        images = [folder / f"image_{channel}{self.suffix}" for channel in range(count)]
        return images, folder / f"label{self.suffix}"


_CT = Task(
    title="CT, 512×512×300 voxels of 0.8×0.8×2.5 mm to 1.5 mm, 15 classes",
    shape=(512, 512, 300),
    spacing=(0.8, 0.8, 2.5),
    target=(1.5, 1.5, 1.5),
    channels=1,
    classes=15,
    scheme="ct",
)
TASKS = {
    "ct": _CT,
    "ct_half": replace(
        _CT,
        title="CT, 256×256×150 voxels of 0.8×0.8×2.5 mm to 1.5 mm, 15 classes",
        shape=(256, 256, 150),
    ),
    "mr": Task(
        title="MR, four sequences of 240×240×155 voxels of 1 mm, not resampled, 4 classes",
        shape=(240, 240, 155),
        spacing=(1, 1, 1),
        target=(1, 1, 1),
        channels=4,
        classes=4,
        scheme="zscore_nonzero",
    ),
    "hippocampus": Task(
        title="MR of a hippocampus, voxels of 1 mm, not resampled, 3 classes",
        shape=(),
        spacing=(),
        target=(1, 1, 1),
        channels=1,
        classes=3,
        scheme="zscore",
    ),
    "picture": Task(
        title="RGB picture, 256×256 pixels, not resampled, 2 classes",
        shape=(256, 256),
        spacing=(1, 1),
        target=(1, 1),
        channels=3,
        classes=2,
        scheme="zscore",
        suffix=".png",
    ),
}


def make(task: Task, folder: Path) -> None:
    """Write the scan, and what a network might say of it."""
    import numpy as np

    from lamina.io import write_volume
    from lamina.volume import Volume

    images, label_file = task.files(folder)
    if not task.shape:
        source = sorted((SHARED / "hippocampus" / "imagesTr").iterdir())[0]
        shutil.copy(source, images[0])
        shutil.copy(SHARED / "hippocampus" / "labelsTr" / source.name, label_file)
        return
    rng = np.random.default_rng(0)
    body, label = _anatomy(task.shape, task.classes)
    affine = empty_scan(task).affine
    picture = task.suffix == ".png"
    body = body | picture
    for path in images:
        voxels = np.where(body, 40 + 10 * label, -1000 if task.scheme == "ct" else 0)
        noise = rng.normal(0, 15, (3 if picture else 1, *task.shape))
        inside = body if task.scheme == "zscore_nonzero" else True
        array = (voxels + noise * inside).astype(np.int16)
        array = array.clip(1, 255).astype(np.uint8) if picture else array
        write_volume(Volume(array, affine, unit="px" if picture else "mm"), path)
    write_volume(Volume(label[None], affine, unit="px" if picture else "mm"), label_file)
    if task.scheme == "ct":
        _write_logits(task, folder)


def _anatomy(shape: tuple[int, ...], classes: int) -> tuple[Any, Any]:
    """Return a body and its structures, ellipsoids all, on any grid of the same box."""
    import numpy as np

    rng = np.random.default_rng(1)
    axes = np.ogrid[tuple(slice(-1, 1, n * 1j) for n in shape)]
    body = sum((axis / 0.85) ** 2 for axis in axes[:2]) < 1
    body = np.broadcast_to(body, shape)
    if len(shape) == 3 and classes < 15:
        body = sum((axis / 0.7) ** 2 for axis in axes) < 1
    label = np.zeros(shape, np.uint8)
    for index in range(1, classes):
        centre, radii = rng.uniform(-0.45, 0.45, 3), rng.uniform(0.06, 0.2, 3)
        parts = (((x - c) / r) ** 2 for x, c, r in zip(axes, centre, radii, strict=False))
        label[sum(parts) < 1] = index
    return body, label


def empty_scan(task: Task) -> Any:
    """Return a volume without content on the scan's grid."""
    import numpy as np

    from lamina.geometry import affine_from
    from lamina.volume import Volume

    # As scanners write: to the left and to the back.
    affine = affine_from(task.spacing) * (-1, -1, 1, 1)
    return Volume(np.broadcast_to(np.int16(0), (1, *task.shape)), affine)


def _write_logits(task: Task, folder: Path) -> None:
    import numpy as np

    pairs = zip(task.shape, task.spacing, task.target, strict=True)
    shape = tuple(round(n * own / aim) for n, own, aim in pairs)
    label = _anatomy(shape, task.classes)[1]
    rng = np.random.default_rng(2)
    path = folder / "logits.npy"
    logits = np.lib.format.open_memmap(path, "w+", np.float32, (task.classes, *shape))
    for index in range(task.classes):
        logits[index] = rng.standard_normal(shape, np.float32) + 6 * (label == index)

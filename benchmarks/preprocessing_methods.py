"""Ways to prepare a scan and to bring logits back, for ``preprocessing.py`` to time.

MONAI is used as its tutorials use it. nnU-Net's way is written anew from its description: crop to
what is not zero, normalise, resample by cubic splines, labels by linear interpolation of each
class, and within slices only where spacing is anisotropic (F. Isensee et al., "nnU-Net: a
self-configuring method for deep learning-based biomedical image segmentation", Nature Methods 2021,
online methods).

Each takes a task and its folder, and returns the job to time: imports are done, logits in memory.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from preprocessing_scans import Task, empty_scan

HU = (-175.0, 250.0)
ANISOTROPIC = 3
"""Ratio of spacings beyond which nnU-Net treats the coarse axis apart."""


def _lamina(task: Task, folder: Path) -> Callable[[], list[int]]:
    from lamina.data.cache import prepare_case
    from lamina.data.case import Case

    images, label = task.files(folder)
    case = Case(case_id="prepared", group="", images=tuple(images), label=label)
    plan = _plan(task)

    def job() -> list[int]:
        shutil.rmtree(folder / "prepared", ignore_errors=True)
        return list(prepare_case(case, plan, folder).image.shape)

    return job


def _plan(task: Task) -> Any:
    from lamina.data.plan import Normalisation, Plan
    from lamina.labels import LabelSet

    dims = len(task.target)
    how: Any = {"scheme": task.scheme}
    if task.scheme == "ct":
        how |= {"low": HU[0], "high": HU[1], "mean": 40.0, "std": 60.0}
    return Plan(
        spatial_dims=dims,
        channels=tuple(f"channel {index}" for index in range(task.channels)),
        labels=LabelSet(values={f"class {index}": index for index in range(1, task.classes)}),
        orientation="RAS" if dims == 3 else "LP",
        target_spacing=task.target,
        normalisation=(Normalisation(**how),) * task.channels,
        network="glims",
        patch_size=(16,) * dims,
        roi_size=(16,) * dims,
        batch_size=1,
        mirror_axes=(),
        epochs=1,
        steps_per_epoch=1,
    )


def _monai(mode: str | int) -> Callable[[Task, Path], Callable[[], list[int]]]:
    def method(task: Task, folder: Path) -> Callable[[], list[int]]:
        import torch
        from monai import transforms as t

        images, label = task.files(folder)
        both = ("image", "label")
        grid = (t.Orientationd(both, "RAS"), t.Spacingd(both, task.target, mode=(mode, "nearest")))
        chain = t.Compose(
            [
                t.LoadImaged(both),
                t.EnsureChannelFirstd(both),
                *(grid if len(task.target) == 3 else ()),
                t.ScaleIntensityRanged("image", *HU, 0, 1, clip=True)
                if task.scheme == "ct"
                else t.NormalizeIntensityd(
                    "image", nonzero=task.scheme == "zscore_nonzero", channel_wise=True
                ),
                t.CropForegroundd(both, "image", select_fn=lambda image: image != 0),
            ]
        )

        def job() -> list[int]:
            files = images[0] if len(images) == 1 else images
            case = chain({"image": files, "label": label})
            image = case["image"].as_tensor().to(torch.float32).numpy()
            return _save(folder, image, case["label"].as_tensor().to(torch.uint8).numpy())

        return job

    return method


def _save(folder: Path, image: Any, label: Any) -> list[int]:
    import numpy as np

    np.save(folder / "image.npy", image)
    np.save(folder / "label.npy", label)
    return list(image.shape)


def _nnunet(task: Task, folder: Path) -> Callable[[], list[int]]:
    import numpy as np
    from scipy import ndimage

    def job() -> list[int]:
        image, label, spacing = _read(task, folder)
        within = ndimage.binary_fill_holes((image != 0).any(axis=0))
        box = ndimage.find_objects(within.astype(np.uint8))[0]
        image, label, within = image[(slice(None), *box)], label[box], within[box]
        for channel in image:
            _normalise(channel, within, task.scheme)
        size = [round(n * a / b) for n, a, b in zip(label.shape, spacing, task.target, strict=True)]
        apart = _coarse_axis(spacing)
        if size != list(label.shape):
            image = np.stack([_resize(channel, size, 3, apart) for channel in image])
            label = _resize_label(label, size, apart)
        return _save(folder, image, label[None])

    return job


def _read(task: Task, folder: Path) -> tuple[Any, Any, tuple[float, ...]]:
    import nibabel
    import numpy as np
    from PIL import Image

    images, label = task.files(folder)
    if task.suffix == ".png":
        image = np.asarray(Image.open(images[0]), np.float32).transpose(2, 1, 0)
        return np.array(image), np.asarray(Image.open(label)).T, task.target
    scans = [nibabel.as_closest_canonical(nibabel.load(path)) for path in (*images, label)]
    *channels, marks = [np.asarray(scan.dataobj) for scan in scans]
    spacing = tuple(float(mm) for mm in scans[0].header.get_zooms()[:3])
    return np.stack(channels).astype(np.float32), marks.astype(np.uint8), spacing


def _normalise(channel: Any, within: Any, scheme: str) -> None:
    if scheme == "ct":
        channel.clip(*HU, out=channel)
        channel -= 40
        channel /= 60
    elif scheme == "zscore_nonzero":
        tissue = channel[within]
        channel[within] = (tissue - tissue.mean()) / max(tissue.std(), 1e-8)
    else:
        channel -= channel.mean()
        channel /= max(channel.std(), 1e-8)


def _coarse_axis(spacing: tuple[float, ...]) -> int | None:
    return spacing.index(max(spacing)) if max(spacing) / min(spacing) > ANISOTROPIC else None


def _resize(array: Any, size: list[int], order: int, apart: int | None) -> Any:
    """Interpolate, or within slices only, and take the nearest slice."""
    import numpy as np
    from scipy import ndimage

    def zoom(part: Any, to: list[int]) -> Any:
        factors = np.divide(to, part.shape)
        return ndimage.zoom(part, factors, order=order, mode="nearest", grid_mode=True)

    if apart is None:
        return zoom(array, size)
    inner = [n for axis, n in enumerate(size) if axis != apart]
    slices = np.stack([zoom(part, inner) for part in np.moveaxis(array, apart, 0)], axis=apart)
    count = array.shape[apart]
    nearest = ((np.arange(size[apart]) + 0.5) * count / size[apart]).astype(int)
    return slices.take(nearest, axis=apart)


def _resize_label(label: Any, size: list[int], apart: int | None) -> Any:
    import numpy as np

    result = np.zeros(size, np.uint8)
    for index in np.unique(label):
        result[_resize((label == index).astype(np.float32), size, 1, apart) >= 0.5] = index
    return result


def _restore_lamina(task: Task, folder: Path) -> Callable[[], list[int]]:
    import numpy as np

    from lamina.data.preprocess import Alignment

    alignment = Alignment.of(empty_scan(task), _plan(task))
    logits = np.load(folder / "logits.npy")
    return lambda: list(alignment.restore(logits).shape)


def _restore_monai(task: Task, folder: Path) -> Callable[[], list[int]]:
    import numpy as np
    import torch
    from monai import transforms as t
    from monai.data import MetaTensor

    from lamina.data.preprocess import Alignment

    volume = empty_scan(task)
    alignment = Alignment.of(volume, _plan(task))
    logits = MetaTensor(
        torch.from_numpy(np.load(folder / "logits.npy")),
        affine=torch.from_numpy(alignment.prepared_affine),
    )
    back = t.SpatialResample(mode="bilinear", padding_mode="border", dtype=torch.float32)

    def job() -> list[int]:
        full = back(
            logits, torch.from_numpy(volume.affine), alignment.oriented_shape
        )  # flips are part of it
        return list(t.AsDiscrete(argmax=True)(full).to(torch.uint8).shape)

    return job


def _restore_nnunet(task: Task, folder: Path) -> Callable[[], list[int]]:
    import numpy as np

    logits = np.load(folder / "logits.npy")
    apart = _coarse_axis(task.spacing)

    def job() -> list[int]:
        full = np.empty((len(logits), *task.shape), np.float32)
        for target, channel in zip(full, logits, strict=True):
            target[:] = _resize(channel, list(task.shape), 1, apart)
        return list(np.flip(full.argmax(axis=0).astype(np.uint8), (0, 1))[None].shape)

    return job


PREPARE = {
    "lamina": _lamina,
    "monai_linear": _monai("bilinear"),
    "monai_cubic": _monai(3),
    "nnunet_style": _nnunet,
}
RESTORE = {
    "restore_lamina": _restore_lamina,
    "restore_monai": _restore_monai,
    "restore_nnunet_style": _restore_nnunet,
}

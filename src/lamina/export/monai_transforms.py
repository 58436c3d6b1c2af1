"""What stands around a model's network, as MONAI's transforms and inferers in plain data."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lamina.data.case import Case
from lamina.data.intensity import finite
from lamina.data.plan import Normalisation, Plan
from lamina.data.scans import scans_in
from lamina.errors import DatasetError, ExportError
from lamina.geometry import voxel_volume
from lamina.inference.postprocess import Step, apply, steps_from
from lamina.io import FORMATS, strip_suffix

if TYPE_CHECKING:
    from lamina.bundle import Bundle

_AIR = "$lambda x: x != x.flatten(1)[:, 0].reshape(-1, *[1] * (x.ndim - 1))"
"""Of a scan ``(C, *S)``, what differs from its first corner."""


def suffixes(plan: Plan) -> tuple[str, ...]:
    """Return those of the files that tell what the plan measures in, and MONAI writes."""
    return FORMATS.get("picture" if plan.unit == "px" else "nifti").suffixes


def listed(plan: Plan) -> dict[str, Any]:
    """Return what lists the scans of ``dataset_dir``."""
    return {
        "_target_": f"{__name__}.scans",
        "folder": "@dataset_dir",
        "suffixes": list(suffixes(plan)),
        "num_channels": len(plan.channels),
    }


def scans(folder: str, suffixes: Sequence[str], num_channels: int) -> list[list[str]]:
    """Return the files of each scan of a folder, as ``predict`` would take them.

    Raises:
        DatasetError: There are none.
    """
    files = [case.images for case in scans_in(Path(folder), num_channels)]
    found = [list(map(str, each)) for each in files if _all_end_with(each, suffixes)]
    if not found:
        pictures = FORMATS.get("picture").suffixes
        sizeless = any(_all_end_with(each, pictures) for each in files)
        raise DatasetError(
            f"{folder}: holds no scans of this bundle's formats ({', '.join(suffixes)})."
            + " Its model measures in mm, which pictures do not tell." * sizeless,
            remedy="Give the folder of such scans as --dataset_dir.",
        )
    return found


def _all_end_with(files: Sequence[Path], suffixes: Sequence[str]) -> bool:
    return all(file.name.lower().endswith(tuple(suffixes)) for file in files)


def composed(transforms: list[dict[str, Any]]) -> dict[str, Any]:
    """Return transforms as one."""
    return {"_target_": "Compose", "transforms": transforms}


def _on(target: str, keys: str, **how: Any) -> dict[str, Any]:
    return {"_target_": target, "keys": keys, **how}


def preprocessing(plan: Plan) -> list[dict[str, Any]]:
    """Return the way from a file to what the network sees.

    Raises:
        ExportError: The channels are normalised in different ways.
    """
    spacing: list[Any] = list(plan.target_spacing)
    if plan.slice_axis is not None:
        spacing[plan.slice_axis] = -1.0  # each scan keeps its own
    reading = {"_target_": f"{__name__}.Reading", "channels": list(plan.channels)}
    return [
        _on("Lambdad", "image", func=reading),
        _on("CropForegroundd", "image", source_key="image", select_fn=_AIR, allow_smaller=True),
        _on("Orientationd", "image", axcodes=plan.orientation, labels=None),
        _on("Spacingd", "image", pixdim=spacing, mode="bilinear"),
        *_normalisation(plan.normalisation),
        _on("EnsureTyped", "image", dtype="$torch.float32"),
    ]


def _normalisation(schemes: tuple[Normalisation, ...]) -> list[dict[str, Any]]:
    first = schemes[0]
    if any(other != first for other in schemes):
        raise ExportError(
            "The model's channels are normalised in different ways, a MONAI bundle's all alike.",
            remedy="Export the model to onnx or openvino.",
        )
    if first.scheme == "zscore_nonzero":
        return [_on("NormalizeIntensityd", "image", nonzero=True, channel_wise=True)]
    if first.scheme == "zscore":
        clip = {"lower": 0.5, "upper": 99.5, "channel_wise": True}
        return [
            _on("ClipIntensityPercentilesd", "image", **clip),
            _on("NormalizeIntensityd", "image", channel_wise=True),
        ]
    scale = max(first.std, 1e-8)
    limits: Mapping[str, Any] = {
        "a_min": first.low,
        "a_max": first.high,
        "b_min": (first.low - first.mean) / scale,
        "b_max": (first.high - first.mean) / scale,
        "clip": True,
    }
    return [_on("ScaleIntensityRanged", "image", **limits)]


def inferer(plan: Plan) -> dict[str, Any]:
    """Return the sliding window, or what goes through the slices."""
    how: dict[str, Any] = {
        "roi_size": list(plan.seen_roi_size),
        "sw_batch_size": 1,
        "overlap": plan.overlap,
        "mode": plan.blending,
        "padding_mode": "replicate",
    }
    if plan.slice_axis is None:
        return {"_target_": "SlidingWindowInferer", **how}
    return {"_target_": "SliceInferer", "spatial_dim": plan.slice_axis, **how}


class Reading:
    """Scans are read by Lamina, the same way up and in the same place, as a transform of MONAI's.

    Args:
        channels: Names of those that a scan must have.
    """

    def __init__(self, channels: Sequence[str]) -> None:
        self.channels = tuple(channels)

    def __call__(self, files: Sequence[str]) -> Any:
        """Return the scan ``(C, *S)`` of these files, a ``MetaTensor`` of finite voxels.

        Raises:
            FileError, GeometryError, DatasetError: As ``Case.read_image`` raises them; or a channel
                has no finite voxel.
        """
        import torch
        from monai.data import MetaTensor

        paths = tuple(map(Path, files))
        case = Case(case_id=strip_suffix(paths[0]), group="", images=paths)
        image = case.read_image(self.channels)
        channels = [finite(each.astype(np.float32), image.source) for each in image.array]
        return MetaTensor(
            torch.from_numpy(np.stack(channels)),
            affine=torch.tensor(image.affine),
            # Without the second, MONAI's writer takes the last axis for channels.
            meta={"filename_or_obj": image.source, "original_channel_dim": "no_channel"},
        )


class Finishing:
    """The changes that a model makes to its segmentations, as a transform of MONAI's.

    Args:
        background: Value of what is no structure.
        steps: ``value`` of a structure, ``operation`` and ``min_size`` of each.
    """

    def __init__(self, background: int, steps: Sequence[Mapping[str, Any]]) -> None:
        self.background = background
        self.steps = [
            (
                each["value"],
                Step(structure="", operation=each["operation"], min_size=each["min_size"]),
            )
            for each in steps
        ]

    def __call__(self, segmentation: Any) -> Any:
        """Return the label map ``(1, *S)``, a ``MetaTensor``, after all changes."""
        found = segmentation.clone()
        array = found.cpu().numpy()[0]
        voxel = voxel_volume(found.affine.numpy(), array.ndim)
        for value, step in self.steps:
            apply(step, array, value, self.background, voxel)
        found[0] = found.new_tensor(array)
        return found


def _finishing(bundle: "Bundle") -> list[dict[str, Any]]:
    labels = bundle.plan.labels
    steps = [
        {
            "value": labels.values[step.structure],
            "operation": step.operation,
            "min_size": step.min_size,
        }
        for step in steps_from(bundle.postprocessing, labels)
    ]
    how = {"_target_": f"{__name__}.Finishing", "background": labels.background, "steps": steps}
    return [_on("Lambdad", "pred", func=how)] if steps else []


def postprocessing(bundle: "Bundle") -> list[dict[str, Any]]:
    """Return the way from logits to a file, on the scan's own grid."""
    labels = bundle.plan.labels
    undone = _on(
        "Invertd", "pred", transform="@preprocessing", orig_keys="image", nearest_interp=False
    )
    saved = _on(
        "SaveImaged",
        "pred",
        output_dir="@output_dir",
        output_postfix="seg",
        output_ext=".png" if bundle.plan.unit == "px" else ".nii.gz",
        separate_folder=False,
        output_dtype=f"$numpy.{labels.decode(np.zeros(1, np.uint8)).dtype}",
        resample=False,
    )
    decided = _on("Lambdad", "pred", func=_decision(bundle.plan))
    return [undone, decided, *_finishing(bundle), saved]


def _decision(plan: Plan) -> str:
    """Return the expression that turns logits ``(K, *S)`` into the values of files ``(1, *S)``."""
    labels = plan.labels
    values = [labels.background, *labels.values.values()]
    if not plan.region_based:
        return f"$lambda x: torch.tensor({values}, device=x.device)[x.argmax(0, keepdim=True)]"
    drawn = f"torch.full_like(x[:1], {labels.background})"
    for channel, index in labels.region_drawing:
        drawn = f"torch.where(x[{channel}:{channel + 1}] > 0, {values[index]}, {drawn})"
    return f"$lambda x: {drawn}"

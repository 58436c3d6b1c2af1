"""Scans as odd as they come, drawn by number, each with a plan as odd, and what must be found.

A scan is noise with a bright box in its last channel, so that the right answer is known voxel by
voxel, but for those so near to a face of the box that resampling may decide either way.
"""

from dataclasses import dataclass
from math import ceil, log, prod
from pathlib import Path

import numpy as np
import torch
from known_phantom import ORIENTATIONS
from scipy.spatial.transform import Rotation
from torch import nn

from dicom_scans import save, write_series
from lamina.bundle import Ensemble
from lamina.data.plan import Normalisation, Plan
from lamina.files import write_json
from lamina.geometry import affine_along, reorientation
from lamina.inference.backend import TorchNetwork
from lamina.inference.predictor import Predictor
from lamina.inference.windows import starts_along
from lamina.io import read_volume, write_volume
from lamina.labels import LabelSet
from lamina.volume import Volume

FORMS = ("nii.gz", "nrrd", "mha", "npy", "nii", "png", "dicom", "nii.gz")
RANGES = {
    "u1": (20, 220),
    "i1": (-100, 110),
    "u2": (100, 60_000),
    "i2": (-1000, 3000),
    "i4": (-100_000, 2_000_000),
    "f4": (-0.002, 0.003),
    "f8": (1e6, 2e6),
    "?": (0, 1),
}
"""Type of the voxels -> background, box."""
PLANES = ("RA", "LP", "LA", "RP", "AR", "PL", "AL", "PR")
MOST_VOXELS = 40_000
MOST_PREPARED = 400_000
MOST_WINDOWS = 300
MOST_RATIO = 32
VALUES = (1, 7, 255, 1000)


@dataclass(frozen=True, kw_only=True)
class OddScan:
    """A scan in a file, what is to segment it, and what must come of it."""

    path: Path
    volume: Volume
    predictor: Predictor
    surely: np.ndarray
    """Voxels ``(*S)`` that must be found."""
    never: np.ndarray
    """Voxels that must not."""
    fault: str = ""
    """What the error says, where the scan cannot be segmented."""


def odd_scan(number, folder):
    """Write the scan of a number into a folder of its own."""
    rng = np.random.default_rng(number)
    form = FORMS[number % len(FORMS)]
    dims = 2 if form == "png" or (form != "dicom" and rng.random() < 0.2) else 3
    content = str(rng.choice(["box"] * 8 + ["constant", "noise", "broken", "void"]))
    channels = _channels(rng, form)
    kind = _kind(rng, form, number, channels, content)
    shape = _shape(rng, dims, 12 if form == "dicom" else 700)
    affine = _affine(rng, form, dims, number, shape)
    sheared = form.startswith("nii") and dims == 3 and rng.random() < 0.25
    if sheared:
        row, slices = np.linalg.norm(affine[:3, 1:3], axis=0)
        leaning = min(rng.uniform(0.1, 0.5), 40 * row / (shape[2] * slices))
        affine[:3, 2] += leaning * slices / row * affine[:3, 1]
    array, box = _content(rng, (channels, *shape), kind, content)
    unit = "px" if form == "png" else "mm"
    volume = Volume(array, affine, f"odd {number}", unit)
    path, volume = _written(volume, folder / "scan", form)
    plan, ratios = _plan(rng, volume, kind)
    straightens = bool(rng.random() < 0.7)
    fault = _fault(array, ratios, sheared and not straightens)
    margins = [(4 if sheared else 1) + ceil(max(1, ratio)) for ratio in ratios]
    surely, never = _claims(shape, box, margins)
    predictor = Predictor(
        network=_network(rng, plan.region_based),
        plan=plan,
        resample_oblique=straightens,
        tta=bool(rng.random() < 0.2),
    )
    return OddScan(
        path=path, volume=volume, predictor=predictor, surely=surely, never=never, fault=fault
    )


def _kind(rng, form, number, channels, content):
    grey = ("u1", "u2", "?") if channels == 1 else ("u1",)
    kinds = {"png": grey, "dicom": ("i2",)}.get(form, tuple(RANGES))
    if content in ("broken", "void") and "f4" in kinds:
        kinds = ("f4", "f8")
    return kinds[(number // len(FORMS) + int(rng.integers(2))) % len(kinds)]


def _channels(rng, form):
    if form == "dicom" or rng.random() < 0.6:
        return 1
    return 3 if form == "png" else int(rng.integers(2, 5))


def _shape(rng, dims, longest):
    """Draw sizes from 1 to 700, small ones as often as large ones."""
    sizes, left = [], MOST_VOXELS
    for _ in range(dims):
        sizes.append(max(1, round(np.exp(rng.uniform(0, log(min(longest, left)))))))
        left = max(1, left // sizes[-1])
    return tuple(int(size) for size in rng.permutation(sizes))


def _affine(rng, form, dims, number, shape):
    if form == "png":
        return np.diag([-1.0, -1.0, 1.0, 1.0])
    names = PLANES if dims == 2 else ORIENTATIONS
    spacing = np.exp(rng.uniform(log(0.05), log(30), dims))
    affine = affine_along(names[number % len(names)], spacing)
    if form == "npy":
        return affine
    plane = dims == 2 and form != "nii" and form != "nii.gz"
    if rng.random() < 0.5:
        turn = [0, 0, rng.uniform(-40, 40)] if plane else rng.uniform(-30, 30, 3)
        affine[:3, :3] = Rotation.from_euler("xyz", turn, degrees=True).as_matrix() @ affine[:3, :3]
    affine[:3, 3] = rng.uniform(-500, 500, 3) * [1, 1, not plane]
    return affine


def _content(rng, shape, kind, content):
    """Return voxels and the corners of the box, which may be empty."""
    low, high = RANGES[kind]
    noise = 0 if content == "constant" or kind == "?" else 0.1 * (high - low)
    array = low + noise * rng.random(shape)
    first, last = np.transpose([_side(rng, size) for size in shape[1:]])
    if content in ("constant", "noise", "void"):
        last = first
    array[(-1, *map(slice, first, last))] = high
    array = array.astype(kind)
    if content == "void" and kind in ("f4", "f8"):
        array[0] = np.nan
    if content == "broken" and kind in ("f4", "f8"):
        spoilt = rng.random(shape[1:]) < 0.05
        spoilt[tuple(map(slice, first, last))] = False
        array[-1][spoilt] = rng.choice([np.nan, -np.inf], int(spoilt.sum()))
    return array, (first, last)


def _side(rng, size):
    """Draw where a box begins and ends, mostly over the whole of a short axis."""
    if rng.random() < (0.8 if size < 12 else 0.1):
        return 0, size
    first = int(rng.integers(0, 1 + size // 3))
    return first, int(rng.integers(1 + first + size // 3, size + 1))


def _written(volume, folder, form):
    folder.mkdir(parents=True)
    path = folder / f"odd.{form}"
    if form == "dicom":
        return _as_series(volume, folder)
    if form == "npy":
        entries = {"spacing": volume.spacing, "orientation": volume.orientation}
        np.save(path, volume.array)
        write_json(path.with_suffix(".json"), entries | {"channels_first": True})
    else:
        write_volume(volume, path)
    return path, volume


def _as_series(volume, folder):
    axes, spacing = volume.affine[:3, :3], volume.spacing
    lps = np.diag([-1.0, -1.0, 1.0])
    slices = write_series(
        folder.parent / "raw",
        orientation=np.stack([lps @ axes[:, 0] / spacing[0], lps @ axes[:, 1] / spacing[1]]),
        size=volume.spatial_shape,
        origin=volume.affine[:3, 3],
        PixelSpacing=[round(spacing[1], 6), round(spacing[0], 6)],
    )
    for number, header in enumerate(slices):
        header.PixelData = volume.array[0, :, :, number].T.astype("<i2").tobytes()
        save(header, folder / "odd" / f"{number:04d}")
    found = read_volume(folder / "odd")
    np.testing.assert_array_equal(found.array, volume.array)
    return folder / "odd", found


def _plan(rng, volume, kind):
    """Draw a plan, and return by how much its voxels are larger along each axis of the scan."""
    dims, (low, high) = volume.spatial_dims, RANGES[kind]
    names = PLANES if dims == 2 else ORIENTATIONS
    planned = "LP" if volume.unit == "px" else str(rng.choice(names))
    axes = reorientation(volume.affine, planned).axes
    ratios = np.exp(rng.uniform(log(0.6), log(2.0), dims)) if rng.random() < 0.7 else np.ones(dims)
    size = np.array(volume.spatial_shape)
    to_fixed = rng.choice([0.25, 1.0, 5.0]) / np.array(volume.spacing)
    far = _is_far(to_fixed)
    if rng.random() < 0.3 and (far or prod(np.maximum(1, size / to_fixed)) < MOST_PREPARED):
        ratios = to_fixed
    slice_axis = int(rng.integers(3)) if dims == 3 and rng.random() < 0.3 else None
    if slice_axis is not None and size[axes[slice_axis]] > MOST_WINDOWS:
        slice_axis = None
    if slice_axis is not None:
        ratios[axes[slice_axis]] = 1
    prepared = np.maximum(1, size / ratios)[list(axes)]
    overlap = float(rng.choice([0, 0.25, 0.5]))
    roi_size = _window(rng, prepared, slice_axis, overlap)
    regions = bool(rng.random() < 0.25)
    value = int(rng.choice(VALUES))
    plan = Plan(
        spatial_dims=dims,
        channels=tuple(f"channel {number}" for number in range(volume.num_channels)),
        labels=LabelSet(values={"box": value}, regions={"boxes": ("box",)} if regions else {}),
        region_based=regions,
        orientation=planned,
        target_spacing=tuple((volume.spacing * ratios)[list(axes)]),
        unit=volume.unit,
        normalisation=(Normalisation(scheme="ct", low=low, high=high, mean=low, std=high - low),)
        * volume.num_channels,
        network="lightmedseg",
        slice_axis=slice_axis,
        patch_size=roi_size,
        roi_size=roi_size,
        overlap=overlap,
        blending=str(rng.choice(["gaussian", "constant"])),
        batch_size=2,
        mirror_axes=tuple(range(dims)),
        epochs=1,
        steps_per_epoch=1,
    )
    return plan, ratios


def _window(rng, prepared, slice_axis, overlap):
    """Draw a window, tiny or huge beside the scan, of which not too many are needed."""
    window = [round(np.exp(rng.uniform(0, log(80)))) for _ in prepared]
    while prod(window) > MOST_PREPARED:
        window[int(np.argmax(window))] //= 2
    if slice_axis is not None:
        window[slice_axis] = 1
    while True:
        counts = [
            len(starts_along(ceil(size), side, overlap))
            for size, side in zip(prepared, window, strict=True)
        ]
        if prod(counts) <= MOST_WINDOWS:
            break
        if slice_axis is not None:
            counts[slice_axis] = 0
        window[int(np.argmax(counts))] *= 2
    return tuple(int(side) for side in window)


def _network(rng, region_based):
    """A network that says box where the last channel is nearer to the box than to the rest."""

    def bright(batch):
        logits = 20 * (batch[:, -1:] - 0.5)
        return logits if region_based else np.concatenate([np.zeros_like(logits), logits], axis=1)

    if rng.random() < 0.75:
        return bright
    members = [Bright(at, region_based) for at in (0.3, 0.5, 0.7)]
    return TorchNetwork(Ensemble(members), "cpu")


class Bright(nn.Module):
    """The same in torch, with a threshold of its own."""

    def __init__(self, at, region_based):
        super().__init__()
        self.at, self.region_based = at, region_based

    def forward(self, image):
        logits = 20 * (image[:, -1:] - self.at)
        return logits if self.region_based else torch.cat([0 * logits, logits], 1)


def _fault(array, ratios, sheared):
    if sheared:
        return "degrees off a right angle"
    if _is_far(ratios):
        return "times larger or smaller than the plan"
    if array.dtype.kind == "f" and not np.isfinite(array).any(tuple(range(1, array.ndim))).all():
        return "no voxel holds a finite number"
    return ""


def _is_far(ratios):
    return max(*ratios, *(1 / ratio for ratio in ratios)) > MOST_RATIO


def _claims(shape, box, margins):
    """Return the voxels that must be found and those that must not: away from the box's faces."""
    surely, never = np.zeros(shape, np.bool_), np.ones(shape, np.bool_)
    first, last = box
    if (first == last).any():
        return surely, never
    inner, outer = [], []
    for start, stop, size, margin in zip(first, last, shape, margins, strict=True):
        inner.append(slice(start + margin * (start > 0), max(0, stop - margin * (stop < size))))
        outer.append(slice(max(0, start - margin), stop + margin))
    surely[tuple(inner)] = True
    never[tuple(outer)] = False
    return surely, never

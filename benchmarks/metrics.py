"""Time all metrics of one large pair of label maps, ours and MONAI's classes one by one.

    OMP_NUM_THREADS=1 python benchmarks/metrics.py --out docs/metric_speed.json

Thirteen ellipsoids on 512 x 512 x 200 voxels stand for organs; the prediction has wavy outlines
and a few stray voxels. Lamina scores the pair as ``lamina evaluate`` does. MONAI's classes are
given one structure's masks after another, made beforehand and not counted: one-hot maps of all of
them at once would take it many times the memory. Prints a Markdown table; ``--out`` keeps the
figures, from which ``tools/metrics.py`` makes a page.
"""

import argparse
import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from importlib.metadata import version
from pathlib import Path

import monai.metrics
import numpy as np
import torch
from monai.metrics.metric import CumulativeIterationMetric
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from lamina.evaluation.metrics import METRICS
from lamina.evaluation.scores import score_case
from lamina.labels import LabelSet
from lamina.workflows.bench.record import processor

SHAPE, SPACING = (512, 512, 200), (0.8, 0.8, 1.5)
CENTRES_AND_RADII = (
    ((180, 250, 130), (110, 90, 52)),  # as large as a liver
    ((350, 260, 120), (60, 50, 38)),
    ((330, 180, 140), (55, 40, 30)),
    ((170, 350, 75), (38, 34, 35)),
    ((350, 350, 75), (38, 34, 35)),
    ((265, 330, 60), (16, 16, 55)),
    ((230, 340, 60), (16, 15, 58)),
    ((260, 230, 40), (60, 16, 12)),
    ((215, 170, 52), (22, 17, 14)),
    ((250, 400, 150), (12, 12, 35)),
    ((230, 300, 150), (9, 7, 10)),
    ((300, 300, 150), (9, 7, 10)),
    ((260, 280, 20), (40, 12, 14)),
)
STRAY_VOXELS = 15
"""So many for each structure, near it."""
SCATTERED = 200
CONFUSION = ("precision", "recall", "specificity", "accuracy", "matthews correlation coefficient")


def main() -> None:
    """Measure, print and keep."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--out", type=Path)
    out = arguments.parse_args().out
    torch.set_num_threads(1)
    prediction, reference = pair()
    ours = lamina_s(prediction, reference)
    scattered = lamina_s(*pair(SCATTERED))["all metrics"]
    ours[f"all metrics, and {SCATTERED} stray voxels all over the scan"] = scattered
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = monai_s(prediction, reference)
        cropped = sum(monai_s(prediction, reference, crop=True).values())
    record = {
        "shape": SHAPE,
        "labels": len(CENTRES_AND_RADII),
        "stray_voxels": STRAY_VOXELS * len(CENTRES_AND_RADII),
        "processor": processor(),
        "versions": {name: version(name) for name in ("lamina", "monai", "numpy", "scipy")},
        "lamina_s": ours,
        "monai_s": theirs,
        "monai_cropped_s": cropped,
        "table": table(ours, theirs, cropped),
    }
    if out:
        out.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print("\n".join(record["table"]))


def table(ours: dict[str, float], theirs: dict[str, float], cropped: float) -> list[str]:
    """Return the figures as a Markdown table."""
    together, each = ours["all metrics"], sum(theirs.values())
    return [
        "| | seconds |",
        "|---|---|",
        *(f"| Lamina, {name} | {seconds:.2f} |" for name, seconds in ours.items()),
        *(f"| MONAI, {name} | {seconds:.2f} |" for name, seconds in theirs.items()),
        f"| MONAI, all of these | {each:.2f} |",
        f"| MONAI, all of these, masks cropped for it | {cropped:.2f} |",
        f"| **MONAI over Lamina** | **{each / together:.0f}** |",
        f"| **MONAI over Lamina, masks cropped for it** | **{cropped / together:.1f}** |",
    ]


def pair(scattered: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return a prediction and a reference as class indices.

    Args:
        scattered: Stray voxels all over the scan, which leave nothing to be cropped.
    """
    prediction, reference = np.zeros((2, *SHAPE), np.uint8)
    rng = np.random.default_rng(0)
    for value, (centre, radii) in enumerate(CENTRES_AND_RADII, start=1):
        box = tuple(
            slice(max(0, c - r - r // 4), min(size, c + r + r // 4 + 1))
            for c, r, size in zip(centre, radii, SHAPE, strict=True)
        )
        grid = np.meshgrid(*(np.arange(s.start, s.stop) for s in box), indexing="ij", sparse=True)
        x, y, z = ((g - c) / r for g, c, r in zip(grid, centre, radii, strict=True))
        distance = np.sqrt(x**2 + y**2 + z**2)
        waves = 0.04 * np.sin(9 * x + value) * np.cos(8 * y) + 0.03 * np.sin(7 * z + x)
        reference[box][distance < 1] = value
        prediction[box][distance < 1 + waves] = value
        stray = rng.integers(0, distance.shape, (STRAY_VOXELS, 3))
        prediction[box][tuple(stray.T)] = value
    everywhere = rng.integers(0, SHAPE, (scattered, 3))
    prediction[tuple(everywhere.T)] = 1 + np.arange(scattered) % len(CENTRES_AND_RADII)
    return prediction, reference


def lamina_s(prediction: NDArray[np.uint8], reference: NDArray[np.uint8]) -> dict[str, float]:
    """Return the seconds that our metrics take, all at once and the distances alone."""
    labels = LabelSet(values={f"organ {i}": i for i in range(1, len(CENTRES_AND_RADII) + 1)})
    everything = [name for name in METRICS if not METRICS.get(name).needs_probability]
    score_case("small", prediction[:40], reference[:40], labels, SPACING, everything)  # imports
    return {
        what: seconds(partial(score_case, "x", prediction, reference, labels, SPACING, names))
        for what, names in {
            "all metrics": everything,
            "Dice": ["dice"],
            "HD, HD95 and ASSD": ["hd", "hd95", "assd"],
            "NSD": ["nsd"],
            "lesions": ["lesion_f1", "lesion_dice"],
        }.items()
    }


def monai_s(
    prediction: NDArray[np.uint8], reference: NDArray[np.uint8], *, crop: bool = False
) -> dict[str, float]:
    """Return the seconds of each of MONAI's classes, over all structures.

    Args:
        prediction: Class indices.
        reference: Class indices.
        crop: Give them the box around both masks, which is not what they would do by themselves.
    """
    total: dict[str, float] = defaultdict(float)
    for value in range(1, len(CENTRES_AND_RADII) + 1):
        # MONAI miscounts truth values: it adds them up, and two of them make one.
        maps = [
            torch.from_numpy((indices == value).view(np.uint8))[None, None]
            for indices in (prediction, reference)
        ]
        if crop:
            box = find_objects(maps[0][0, 0].numpy() | maps[1][0, 0].numpy(), 1)[0]
            maps = [values[(slice(None), slice(None), *box)].contiguous() for values in maps]
        for name, job in monai_jobs(maps).items():
            total[name] += seconds(job)
            print(f"structure {value}, {name}: {total[name]:.1f} s so far", file=sys.stderr)
    return dict(total)


def monai_jobs(maps: list[torch.Tensor]) -> dict[str, Callable[[], object]]:
    """Return a call of each of MONAI's classes on one structure's maps ``(1, 1, *S)``."""
    distances: dict[str, CumulativeIterationMetric] = {
        "HausdorffDistanceMetric": monai.metrics.HausdorffDistanceMetric(include_background=True),
        "HausdorffDistanceMetric, 95th percentile": monai.metrics.HausdorffDistanceMetric(
            include_background=True, percentile=95
        ),
        "SurfaceDistanceMetric, symmetric": monai.metrics.SurfaceDistanceMetric(
            include_background=True, symmetric=True
        ),
        "SurfaceDiceMetric, sub-voxel": monai.metrics.SurfaceDiceMetric(
            class_thresholds=[1.0], use_subvoxels=True, include_background=True
        ),
    }
    return {
        "DiceMetric": partial(monai.metrics.DiceMetric(), *maps),
        "MeanIoU": partial(monai.metrics.MeanIoU(), *maps),
        **{f"ConfusionMatrixMetric, {name}": partial(confusion, name, maps) for name in CONFUSION},
        **{name: partial(metric, *maps, spacing=SPACING) for name, metric in distances.items()},
    }


def confusion(name: str, maps: list[torch.Tensor]) -> object:
    """Return one rate of MONAI's confusion matrix."""
    metric = monai.metrics.ConfusionMatrixMetric(metric_name=name)
    metric(*maps)
    return metric.aggregate()


def seconds(job: Callable[[], object]) -> float:
    """Return the processor time of one call, which other programs on the machine do not change."""
    began = time.process_time()
    job()
    return time.process_time() - began


if __name__ == "__main__":
    main()

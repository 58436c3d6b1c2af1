"""Hold our metrics against other libraries and against their restatement in the tests.

    pip install surface-distance medpy                      # in an environment of their own
    python benchmarks/metric_conformance.py --out docs/metric_conformance.json

Two things are measured: the largest relative difference over many random pairs of masks, to those
who mean the same by a name; and a few pairs on which libraries disagree, each with its number.
Neither library is needed to run Lamina. ``tools/metrics.py`` makes a page of the record.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import monai.metrics as monai
import numpy as np
import surface_distance
import torch
from medpy.metric import binary as medpy
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lamina.evaluation.calibration import MARGIN
from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS
from lamina.evaluation.metrics.nsd import TOLERANCE

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "conformance" / "metrics"))
from restated_metrics import restated

Mask = NDArray[np.bool_]
Pair = tuple[Mask, Mask]
Spacing = tuple[float, ...]

NUM_PAIRS = 60
SHAPES = ((24, 20), (12, 14, 10), (20, 9, 6))
SPACINGS = ((1.0, 1.0, 1.0), (0.7, 1.3, 2.5), (3.0, 0.5, 1.0), (0.9, 0.9, 5.0))
RATES = {
    "precision": "precision",
    "recall": "recall",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "mcc": "matthews correlation coefficient",
}


def main() -> None:
    """Measure, print and keep."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--out", type=Path, required=True)
    out = arguments.parse_args().out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        record = {
            "versions": {
                name: version(name)
                for name in ("lamina", "monai", "scipy", "surface-distance", "medpy")
            },
            "num_pairs": NUM_PAIRS,
            "largest_relative_difference": differences(),
            "disagreements": [disagreement(*case) for case in disputed()],
        }
    out.write_text(json.dumps(record, indent=2) + "\n", "utf-8")
    print(json.dumps(record["largest_relative_difference"], indent=2))


def differences() -> dict[str, dict[str, float]]:
    """Return the largest relative difference of each metric to each other implementation."""
    found: dict[str, dict[str, float]] = {name: {} for name in METRICS}
    rng = np.random.default_rng(0)
    for number in range(NUM_PAIRS):
        shape = SHAPES[number % len(SHAPES)]
        spacing = SPACINGS[number % len(SPACINGS)][: len(shape)]
        smooth = [gaussian_filter(rng.random(shape), 1.2, mode="wrap") for _ in range(2)]
        mixed = smooth[0] + 0.6 * smooth[1]
        share = (0.03, 0.2, 0.6)[number % 3]
        pair = tuple(field > np.quantile(field, 1 - share) for field in (mixed, smooth[0]))
        probability = rng.random(shape)
        comparison = Comparison(*pair, spacing, probability=probability)
        others = {
            "restatement": restated(*pair, spacing, probability),
            "MONAI": monai_values(pair, spacing, probability),
            "surface-distance": deepmind_values(pair, spacing),
        }
        for name in METRICS:
            ours = METRICS.get(name).value(comparison)
            for other, values in others.items():
                if name in values and name in COMPARABLE.get(other, values):
                    gap = abs(ours - values[name]) / max(abs(ours), abs(values[name]), 1e-12)
                    found[name][other] = max(found[name].get(other, 0.0), float(gap))
    return found


COMPARABLE = {"surface-distance": ("dice", "nsd")}
"""What a library means as we do, where it does not mean all of it so."""


def disputed() -> list[tuple[str, Pair, Spacing]]:
    """Return pairs of masks on which libraries disagree."""
    grid = np.indices((40, 40, 24)) - np.reshape((18, 20, 12), (3, 1, 1, 1))
    ball = np.square(grid / np.reshape((11, 9, 6), (3, 1, 1, 1))).sum(axis=0) < 1
    shifted = np.roll(ball, (2, -1, 1), axis=(0, 1, 2))
    island = ball.copy()
    island[34:38, 30:36, 4:8] = True
    return [
        ("an ellipsoid, and itself shifted", (shifted, ball), (1.0, 1.0, 1.0)),
        ("the same on slices of 5 mm", (shifted, ball), (0.8, 0.8, 5.0)),
        ("an ellipsoid with a false island", (island, ball), (1.0, 1.0, 1.0)),
        ("the middle slices of the two shifted", (shifted[..., 12], ball[..., 12]), (0.8, 1.2)),
    ]


def disagreement(what: str, pair: Pair, spacing: Spacing) -> dict[str, object]:
    """Return the numbers that each library has for one pair."""
    comparison = Comparison(*pair, spacing)
    names = ("dice", "hd", "hd95", "assd", "nsd")
    ours = {name: METRICS.get(name).value(comparison) for name in names}
    again = restated(*pair, spacing)
    return {
        "pair": what,
        "spacing": spacing,
        "values": {
            "Lamina": ours,
            "scipy distance transform": {name: float(again[name]) for name in names},
            "MONAI": monai_values(pair, spacing),
            "MONAI, NSD without sub-voxels": {"nsd": monai_nsd(pair, spacing, subvoxels=False)},
            "surface-distance": deepmind_values(pair, spacing),
            "MedPy": medpy_values(pair, spacing),
        },
    }


def monai_values(
    pair: Pair, spacing: Spacing, probability: NDArray[np.float64] | None = None
) -> dict[str, float]:
    """Return what MONAI's functions give."""
    batch = as_batch(pair)
    whole = {"include_background": True}
    distance: Callable[..., torch.Tensor] = monai.compute_hausdorff_distance
    values = {
        "dice": monai.compute_dice(*batch, **whole),
        "iou": monai.compute_iou(*batch, **whole),
        "hd": distance(*batch, spacing=spacing, **whole),
        "hd95": distance(*batch, spacing=spacing, percentile=95, **whole),
        "assd": monai.compute_average_surface_distance(
            *batch, spacing=spacing, symmetric=True, **whole
        ),
    }
    counts = monai.get_confusion_matrix(*batch, **whole)
    values |= {
        ours: monai.compute_confusion_matrix_metric(theirs, counts)
        for ours, theirs in RATES.items()
    }
    numbers = {name: float(value.squeeze()) for name, value in values.items()}
    numbers["nsd"] = monai_nsd(pair, spacing, subvoxels=True)
    if probability is not None:
        numbers["ece"] = monai_ece(pair, probability)
    return numbers


def monai_nsd(pair: Pair, spacing: Spacing, *, subvoxels: bool) -> float:
    """Return MONAI's surface Dice."""
    share = monai.compute_surface_dice(
        *as_batch(pair),
        class_thresholds=[TOLERANCE],
        spacing=spacing,
        use_subvoxels=subvoxels,
        include_background=True,
    )
    return float(share.squeeze())


def monai_ece(pair: Pair, probability: NDArray[np.float64]) -> float:
    """Return MONAI's expected calibration error where ours looks, per voxel of the widened box."""
    prediction, reference = pair
    marked, box = np.argwhere(reference), np.zeros_like(reference)
    low, high = np.maximum(marked.min(axis=0) - MARGIN, 0), marked.max(axis=0) + MARGIN + 1
    box[tuple(map(slice, low, high))] = True
    where = box | prediction
    metric = monai.CalibrationErrorMetric(num_bins=20, calibration_reduction="expected")
    metric(
        torch.from_numpy(probability[where])[None, None],
        torch.from_numpy(reference[where])[None, None],
    )
    return min(1.0, float(metric.aggregate().squeeze()) * where.sum() / box.sum())


def as_batch(pair: Pair) -> list[torch.Tensor]:
    """Return masks as MONAI takes them: numbers, for it miscounts truth values."""
    return [torch.from_numpy(mask.astype(np.uint8))[None, None] for mask in pair]


def deepmind_values(pair: Pair, spacing: Spacing) -> dict[str, float]:
    """Return what the package ``surface-distance`` gives; its distances weigh surface by area."""
    prediction, reference = pair
    found = surface_distance.compute_surface_distances(reference, prediction, spacing)
    return {
        "dice": float(surface_distance.compute_dice_coefficient(reference, prediction)),
        "hd": float(surface_distance.compute_robust_hausdorff(found, 100)),
        "hd95": float(surface_distance.compute_robust_hausdorff(found, 95)),
        "assd": float(np.mean(surface_distance.compute_average_surface_distance(found))),
        "nsd": float(surface_distance.compute_surface_dice_at_tolerance(found, TOLERANCE)),
    }


def medpy_values(pair: Pair, spacing: Spacing) -> dict[str, float]:
    """Return what MedPy gives; its percentile is that of both directions together."""
    return {
        "dice": float(medpy.dc(*pair)),
        "hd": float(medpy.hd(*pair, voxelspacing=spacing)),
        "hd95": float(medpy.hd95(*pair, voxelspacing=spacing)),
        "assd": float(medpy.assd(*pair, voxelspacing=spacing)),
    }


if __name__ == "__main__":
    main()

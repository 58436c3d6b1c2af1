"""Every metric of masks written a second time: sets of voxels, distance transforms, plain loops.

Slow on purpose, and alike in nothing but the definitions; only the areas of surface pieces are from
the same table.
"""

import math

import numpy as np
from monai.metrics.utils import get_code_to_measure_table
from scipy import ndimage


def restated(prediction, reference, spacing, probability=None):
    """Return every metric of two masks, neither of which is empty, by name."""
    found = {tuple(place) for place in np.argwhere(prediction).tolist()}
    wanted = {tuple(place) for place in np.argwhere(reference).tolist()}
    every = set(np.ndindex(reference.shape))
    tp, fp, fn = len(found & wanted), len(found - wanted), len(wanted - found)
    tn = len(every - found - wanted)
    ml = math.prod(spacing) / 1000
    roots = [math.sqrt(x) for x in (tp + fp, tp + fn, tn + fp, tn + fn)]
    values = {
        "dice": 2 * tp / (2 * tp + fp + fn),
        "iou": tp / (tp + fp + fn),
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "accuracy": (tp + tn) / len(every),
        "mcc": (tp * tn - fp * fn) / math.prod(roots) if all(roots) else 0.0,
        "volume_error_ml": (fp - fn) * ml,
        "volume_error_percent": 100 * (fp - fn) / (tp + fn),
        "absolute_volume_error_ml": abs(fp - fn) * ml,
        "relative_volume_error": abs(fp - fn) / ((2 * tp + fp + fn) / 2),
        "nsd": nsd(prediction, reference, spacing, 1.0),
    }
    here, there = surface_distances(prediction, reference, spacing)
    values["hd"] = max(here.max(), there.max())
    values["hd95"] = max(np.percentile(here, 95), np.percentile(there, 95))
    values["assd"] = np.concatenate([here, there]).mean()
    values |= lesion_scores(prediction, reference, spacing)
    if probability is not None:
        values |= calibration(prediction, reference, probability)
    return values


def surface_distances(prediction, reference, spacing):
    """Return the distances of either surface's voxels in a map of distances to the other."""
    surfaces = []
    for mask in (prediction, reference):
        padded = np.pad(mask, 1)
        surfaces.append(padded & ~ndimage.binary_erosion(padded))
    here, there = surfaces
    return (
        ndimage.distance_transform_edt(~there, sampling=spacing)[here],
        ndimage.distance_transform_edt(~here, sampling=spacing)[there],
    )


def nsd(prediction, reference, spacing, tolerance):
    """Return the share of both surfaces within the tolerance of each other, corner by corner."""
    table, kernel = get_code_to_measure_table(spacing)
    weights, full = kernel.numpy()[0, 0], 2**2**prediction.ndim - 1
    areas, borders = [], []
    for mask in (prediction, reference):
        padded = np.pad(mask, 1).astype(int)
        codes = np.zeros([n + 1 for n in mask.shape], int)
        for place in np.ndindex(codes.shape):
            block = padded[tuple(slice(i, i + 2) for i in place)]
            codes[place] = (block * weights).sum()
        borders.append((codes > 0) & (codes < full))
        areas.append(table.numpy()[codes].astype(float))
    right = total = 0.0
    for own, area, other in (
        (borders[0], areas[0], borders[1]),
        (borders[1], areas[1], borders[0]),
    ):
        distance = ndimage.distance_transform_edt(~other, sampling=spacing)
        right += area[own & (distance <= tolerance * (1 + 1e-6))].sum()
        total += area[own].sum()
    return right / total


def lesion_scores(prediction, reference, spacing):
    """Return the scores of lesions, which are found one by one."""
    corners = np.ones([3] * prediction.ndim)
    parts, num_parts = ndimage.label(prediction, corners)
    surroundings, num_lesions = ndimage.label(widened(reference, spacing), corners)
    lesions = surroundings * reference
    touched, scores, hits = set(), [], 0
    for lesion in range(1, num_lesions + 1):
        own = lesions == lesion
        parts_here = set(parts[surroundings == lesion].tolist()) - {0}
        touched |= parts_here
        hits += bool(parts_here)
        marked = np.isin(parts, list(parts_here))
        scores.append(2 * (own & marked).sum() / (own.sum() + marked.sum()))
    invented = num_parts - len(touched)
    return {
        "lesion_f1": 2 * hits / (2 * hits + invented + num_lesions - hits),
        "lesion_dice": sum(scores) / (num_lesions + invented),
    }


def widened(mask, spacing):
    """Widen by 3 mm in steps to the neighbours across faces and edges, on axes that still go."""
    steps = [int(np.rint(3 / size)) for size in spacing]
    for step in range(max(steps)):
        wider = mask.copy()
        for move in np.ndindex(*[3] * mask.ndim):
            move = np.array(move) - 1
            goes = all(step < steps[axis] for axis in np.flatnonzero(move))
            if goes and 0 < np.abs(move).sum() <= 2:
                starts = zip(1 - move, mask.shape, strict=True)
                wider |= np.pad(mask, 1)[tuple(slice(at, at + n) for at, n in starts)]
        mask = wider
    return mask


def calibration(prediction, reference, probability):
    """Return what the probabilities are worth, voxel by voxel, around the reference and beyond."""
    marked = np.argwhere(reference)
    low, high = marked.min(axis=0) - 3, marked.max(axis=0) + 3
    bins, squares, count = {}, 0.0, 0
    for place in np.ndindex(reference.shape):
        within = all(a <= i <= b for a, i, b in zip(low, place, high, strict=True))
        if within or prediction[place]:
            p, there = float(probability[place]), bool(reference[place])
            bins.setdefault(min(int(p * 20), 19), []).append(p - there)
            squares += (p - there) ** 2
            count += within
    gaps = sum(abs(sum(gaps)) for gaps in bins.values())
    return {"ece": min(1.0, gaps / count), "brier": min(1.0, squares / count)}

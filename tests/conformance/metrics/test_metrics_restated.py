"""All metrics against a second implementation, and against MONAI where it means the same."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from restated_metrics import restated
from scipy.ndimage import gaussian_filter

from lamina.evaluation.comparison import Comparison
from lamina.evaluation.metrics import METRICS

CONFUSION = ("precision", "recall", "specificity", "accuracy", "mcc")


def blobs(seed, shape, share):
    """Return a prediction and a reference of some smooth parts, and a probability."""
    rng = np.random.default_rng(seed)
    smooth = [gaussian_filter(rng.random(shape), 1.2, mode="wrap") for _ in range(2)]
    reference = smooth[0] > np.quantile(smooth[0], 1 - share)
    mixed = smooth[0] + 0.6 * smooth[1]
    prediction = mixed > np.quantile(mixed, 1 - share)
    return prediction, reference, rng.random(shape)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.sampled_from([(17, 14), (9, 11, 8), (24, 9, 5), (1, 12, 9)]),
    share=st.sampled_from([0.03, 0.2, 0.7]),
    spacing=st.sampled_from([(1, 1, 1), (0.7, 1.3, 2.5), (3.0, 0.5, 1.0), (0.9, 0.9, 5.0)]),
)
def test_every_metric_equals_its_restatement(seed, shape, share, spacing):
    prediction, reference, probability = blobs(seed, shape, share)
    spacing = spacing[: len(shape)]
    comparison = Comparison(prediction, reference, spacing, probability=probability)
    expected = restated(prediction, reference, spacing, probability)
    assert expected.keys() == set(METRICS)
    values = {name: METRICS.get(name).value(comparison) for name in METRICS}
    assert values == pytest.approx(expected, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("shape", "spacing"), [((30, 26), (0.8, 1.7)), ((18, 20, 16), (1.5, 1.0, 0.8))]
)
def test_monai_gives_the_same_numbers(shape, spacing):
    import torch
    from monai import metrics as monai

    prediction, reference, _ = blobs(5, shape, 0.2)
    # Not truth values: MONAI adds them up to find where both are set, and two of them make one.
    batch = [
        torch.from_numpy(mask.astype(np.uint8))[None, None] for mask in (prediction, reference)
    ]
    whole = {"include_background": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = {
            "dice": monai.compute_dice(*batch, **whole),
            "iou": monai.compute_iou(*batch, **whole),
            "hd": monai.compute_hausdorff_distance(*batch, spacing=spacing, **whole),
            "hd95": monai.compute_hausdorff_distance(
                *batch, spacing=spacing, percentile=95, **whole
            ),
            "assd": monai.compute_average_surface_distance(
                *batch, spacing=spacing, symmetric=True, **whole
            ),
            "nsd": monai.compute_surface_dice(
                *batch, class_thresholds=[1.0], spacing=spacing, use_subvoxels=True, **whole
            ),
        }
        counts = monai.get_confusion_matrix(*batch, **whole)
        rates = {"mcc": "matthews correlation coefficient"}
        for name in CONFUSION:
            rate = monai.compute_confusion_matrix_metric(rates.get(name, name), counts)
            theirs[name] = rate
    comparison = Comparison(prediction, reference, spacing)
    for name, value in theirs.items():
        ours = METRICS.get(name).value(comparison)
        assert ours == pytest.approx(float(value.squeeze()), rel=2e-5), name

"""Logits made up as they are read give what all logits at once would, on every scan's own grid."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lamina.data.intensity import normalise
from lamina.data.plan import Normalisation, Plan
from lamina.data.preprocess import Alignment
from lamina.data.resampling import same_rows
from lamina.errors import GeometryError
from lamina.geometry import affine_along
from lamina.inference.predictor import Predictor, segment_prepared, windows_together
from lamina.inference.sliding_window import SlidingWindow
from lamina.inference.windows import Tiling
from lamina.labels import LabelSet
from lamina.volume import Volume

ORIENTATIONS = {2: ("RA", "LP", "AL"), 3: ("RAS", "LPI", "PIR", "SAL")}
LABELS = LabelSet(
    values={"rim": 3, "core": 8},
    regions={"whole": ("rim", "core"), "middle": ("core",)},
)


def uneven(num_outputs, batch):
    """Logits that differ from voxel to voxel and with the place in the window."""
    place = np.linspace(-1, 1, batch[0, 0].size, dtype=np.float32).reshape(batch.shape[2:])
    sharp = batch[:, 0] - np.roll(batch[:, 0], 1, -1)
    return np.stack([sharp, place * batch[:, -1], 0.1 - sharp][:num_outputs], axis=1)


def network_of(plan):
    return partial(uneven, plan.num_outputs)


@st.composite
def scans(draw):
    """A scan of any grid, perhaps with an empty border, and a plan of another grid."""
    dims = draw(st.sampled_from([2, 3, 3]))
    most = 70 if dims == 2 else 30

    def each(values):
        return tuple(draw(st.lists(values, min_size=dims, max_size=dims)))

    shape, spacing = each(st.integers(1, most)), each(st.sampled_from([0.7, 1.0, 2.5]))
    channels = draw(st.integers(1, 2))
    image = np.random.default_rng(draw(st.integers(0, 99))).normal(size=(channels, *shape))
    if draw(st.booleans()):
        border = tuple(slice(min(2, n // 4), n - n // 3) for n in shape)
        kept = image[(slice(None), *border)].copy()
        image[:] = 0
        image[(slice(None), *border)] = kept
    where = draw(st.sampled_from(ORIENTATIONS[dims]))
    slice_axis = draw(st.sampled_from([None, 0, 1, 2])) if dims == 3 else None
    roi = [*each(st.integers(5, 12))]
    if slice_axis is not None:
        roi[slice_axis] = 1
    plan = Plan(
        spatial_dims=dims,
        channels=("a", "b")[:channels],
        labels=LABELS,
        region_based=draw(st.booleans()),
        orientation=draw(st.sampled_from(ORIENTATIONS[dims])),
        target_spacing=draw(st.sampled_from([spacing, each(st.sampled_from([0.8, 1.0, 2.0]))])),
        normalisation=(Normalisation(scheme="zscore"),) * channels,
        network="lightmedseg",
        slice_axis=slice_axis,
        patch_size=tuple(roi),
        roi_size=tuple(roi),
        overlap=draw(st.sampled_from([0.0, 0.3, 0.5])),
        blending=draw(st.sampled_from(["gaussian", "constant"])),
        batch_size=1,
        mirror_axes=(),
        epochs=1,
        steps_per_epoch=1,
    )
    return Volume(image.astype(np.float32), affine_along(where, spacing), "scan"), plan


def prepared_of(image, plan):
    alignment = Alignment.of(image, plan)
    prepared = alignment.prepare_image(image.array)
    return alignment, normalise(prepared, plan.normalisation, "scan", out=prepared)


def all_at_once(prepared, plan, rows, batch):
    """All logits of a prepared image, summed in the order in which ``rows`` at a time are."""
    shape = prepared.shape[1:]
    tiling = Tiling.thinnest(shape, plan.roi_size, plan.overlap, rows, batch)
    whole = replace(tiling, max_rows=shape[tiling.stream_axis])
    logits = SlidingWindow(
        network_of(plan), prepared, whole, blending=plan.blending, slice_axis=plan.slice_axis
    )
    return logits[(slice(None), *(slice(0, size) for size in shape))], tiling.stream_axis


few = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@few
@given(scans(), st.integers(1, 4))
def test_a_streamed_prediction_is_that_of_all_logits_at_once(job, batch):
    image, plan = job
    alignment, prepared = prepared_of(image, plan)
    dense, axis = all_at_once(prepared, plan, alignment.rows, batch)
    expected = alignment.restore(dense, plan.drawing, stream_axis=axis)
    found = Predictor(network=network_of(plan), plan=plan, sw_batch_size=batch)(image)
    np.testing.assert_array_equal(found.array, plan.labels.decode(expected))


@few
@given(scans())
def test_probabilities_lie_on_the_scans_grid_and_agree_with_the_segmentation(job):
    image, plan = job
    shape = plan.num_outputs, *image.spatial_shape
    filled = np.full(shape, np.nan, np.float32)
    predictor = Predictor(network=network_of(plan), plan=plan)
    found = predictor(image, probabilities=filled).array[0]
    assert ((filled >= 0) & (filled <= 1)).all()
    if plan.region_based:
        clear = (np.abs(filled - 0.5) > 1e-5).all(axis=0)
        drawn = np.where(filled[1] > 0.5, 8, np.where(filled[0] > 0.5, 3, 0))
        np.testing.assert_array_equal(drawn[clear], found[clear])
        return
    np.testing.assert_allclose(filled.sum(axis=0), 1, atol=1e-5)
    clear = np.ptp(np.sort(filled, axis=0)[-2:], axis=0) > 1e-5
    np.testing.assert_array_equal(np.array([0, 3, 8])[filled.argmax(axis=0)][clear], found[clear])
    plain = predictor(image).array[0]
    np.testing.assert_array_equal(plain[clear], found[clear])


@few
@given(scans())
def test_a_prepared_image_is_segmented_on_its_own_grid(job):
    image, plan = job
    _, prepared = prepared_of(image, plan)
    logits, _ = all_at_once(
        prepared,
        plan,
        lambda axis: same_rows(prepared.shape[1 + axis]),
        windows_together(plan.roi_size),
    )
    expected = logits.argmax(0)
    if plan.region_based:
        expected = np.where(logits[1] > 0, 2, logits[0] > 0)
    found = segment_prepared(network_of(plan), prepared, plan)
    np.testing.assert_array_equal(found, expected)


def test_probabilities_can_be_a_file(tmp_path):
    image = np.random.default_rng(0).normal(size=(1, 9, 8, 7)).astype(np.float32)
    plan = Plan(
        spatial_dims=3, channels=("a",), labels=LabelSet(values={"ball": 1}), orientation="SPL",
        target_spacing=(1.0, 1.5, 0.8), normalisation=(Normalisation(scheme="zscore"),),
        network="lightmedseg", patch_size=(4,) * 3, roi_size=(4,) * 3, batch_size=1,
        mirror_axes=(), epochs=1, steps_per_epoch=1,
    )  # fmt: skip
    volume = Volume(image, affine_along("RAS", (1.0, 1.0, 1.0)), "scan")
    predictor = Predictor(network=network_of(plan), plan=plan, resample_oblique=True)
    memory = np.empty((2, 9, 8, 7), np.float32)
    predictor(volume, probabilities=memory)
    mapped = np.lib.format.open_memmap(
        tmp_path / "p.npy", mode="w+", dtype=np.float16, shape=memory.shape
    )
    predictor(volume, probabilities=mapped)
    mapped.flush()
    np.testing.assert_allclose(np.load(tmp_path / "p.npy"), memory, atol=1e-3)
    volume.affine[0, 1] = 0.4
    with pytest.raises(GeometryError, match="scan: .* there are no probabilities then"):
        predictor(volume, probabilities=memory)

"""What a prediction takes is told before, and kept within what is granted."""

import time
from dataclasses import replace
from mmap import mmap

import numpy as np
import pytest

from lamina.data.plan import Normalisation, Plan
from lamina.errors import ResourceError
from lamina.geometry import affine_from
from lamina.inference import memory as memory_module
from lamina.inference.memory import Memory, held, taken_by
from lamina.inference.postprocess import STEP_BYTES, Step, postprocess
from lamina.inference.predictor import Predictor
from lamina.labels import LabelSet
from lamina.volume import Volume

MB = 2**20


def fresh(size):
    """Bytes from the system itself, not those that another test in this process has freed."""
    taken = np.frombuffer(mmap(-1, size), np.uint8)
    taken[:] = 1
    return taken


def memory(**changes):
    parts = {
        "program_bytes": 100,
        "prepared_bytes": 40,
        "preparing_bytes": 5,
        "slab_bytes": 30,
        "tile_bytes": 10,
        "indices_bytes": 3,
        "output_bytes": 6,
        "finishing_bytes": 0,
        "sw_batch_size": 4,
    }
    return Memory(**parts | changes)


def test_the_peak_is_the_worst_of_its_stages():
    assert memory().peak_bytes == 100 + 40 + 30 + 4 * 10 + 3
    assert memory(preparing_bytes=500).peak_bytes == 100 + 40 + 500
    assert memory(output_bytes=500).peak_bytes == 100 + 3 + 500
    assert memory(finishing_bytes=500).peak_bytes == 100 + 6 + 500


def test_windows_are_taken_together_as_memory_allows():
    assert memory().within(213, "a").sw_batch_size == 4
    assert memory().within(212, "a").sw_batch_size == 2
    assert memory().within(183, "a").sw_batch_size == 1
    with pytest.raises(ResourceError, match=r"big\.nii: takes 2\.00 GB of .* 0\.50 GB are gr"):
        memory(program_bytes=2e9).within(0.5e9, "big.nii")


@pytest.mark.parametrize("linux", [True, False])
def test_what_a_job_takes_for_a_while_is_seen(monkeypatch, tmp_path, linux):
    if not linux:
        monkeypatch.setattr(memory_module, "_RESET", tmp_path / "no" / "such file")

    def job():
        for_a_while = fresh(64 * MB)
        time.sleep(0.1)
        assert for_a_while.any()

    assert 60 * MB < taken_by(job) < 80 * MB
    assert taken_by(lambda: None) < 8 * MB


def predictor(**changes):
    plan = Plan(
        spatial_dims=3,
        channels=("CT",),
        labels=LabelSet(values={"ball": 300}),
        orientation="RAS",
        target_spacing=(1.0,) * 3,
        normalisation=(Normalisation(scheme="zscore"),),
        network="lightmedseg",
        patch_size=(32,) * 3,
        roi_size=(32,) * 3,
        batch_size=1,
        mirror_axes=(),
        epochs=1,
        steps_per_epoch=1,
    )
    return Predictor(plan=plan, **changes)


def scan(shape=(64, 48, 40)):
    image = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    return Volume(image, affine_from((1.0,) * 3), "scan.nii")


def greedy(batch):
    """Takes 2000 bytes a voxel for a while."""
    assert fresh(500 * batch.nbytes).any()
    return np.concatenate([np.zeros_like(batch), batch], axis=1)


def test_the_parts_are_those_of_the_scan_and_the_window():
    told = predictor(network=greedy, sw_batch_size=2).predicted_memory(scan())
    voxels = 64 * 48 * 40
    assert told.prepared_bytes == 4 * voxels
    assert told.slab_bytes == 4 * (3 * 48 * 48 * 40 + 2 * 32**3)
    assert (told.indices_bytes, told.output_bytes) == (voxels, 2 * voxels)
    assert told.tile_bytes == pytest.approx(2000 * 32**3, rel=0.15)
    assert told.program_bytes == pytest.approx(held(), rel=0.2)


def test_a_scan_that_would_not_fit_is_refused_before_the_network_sees_it():
    seen = []

    def look(batch):
        seen.append(len(batch))
        return np.concatenate([np.zeros_like(batch), batch], axis=1)

    segment = predictor(network=look, ram_bytes=1e6)
    for _ in range(2):
        with pytest.raises(ResourceError, match=r"scan\.nii: takes .* GB of memory to segment"):
            segment(scan())
    assert seen == [1]  # to see what a window takes, once for all scans


def test_a_limit_lets_fewer_windows_through_at_a_time_and_changes_nothing():
    seen = []

    def look(batch):
        seen.append(len(batch))
        return greedy(batch)

    free = predictor(network=look, sw_batch_size=4)
    small = scan((48, 40, 32))
    found = free(small).array
    assert max(seen) == 4
    seen.clear()
    granted = held() + 150 * MB
    close = predictor(network=look, sw_batch_size=4, ram_bytes=granted)
    np.testing.assert_array_equal(close(small).array, found)
    assert seen
    assert max(seen) < 4


def test_postprocessing_keeps_to_what_is_told_of_it():
    steps = (Step(structure="ball", operation="largest_component"),)
    label = scan((160, 160, 160))
    label = replace(label, array=np.where(label.array > -1, np.uint16(300), np.uint16(0)))
    segment = predictor(network=greedy, postprocessing=steps)
    told = segment.predicted_memory(label).finishing_bytes
    assert told == (2 + STEP_BYTES) * label.array.size
    assert taken_by(lambda: postprocess(label, segment.plan.labels, steps)) < told

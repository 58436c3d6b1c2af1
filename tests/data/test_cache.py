"""Prepared cases are whole or absent, made once, and made anew when what they depend on changes."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import SimpleITK as sitk
from PIL import Image

from lamina.data.cache import PreparedCase, open_cases, prepare_case
from lamina.data.case import Case
from lamina.data.fingerprint import survey
from lamina.data.layouts import read_cohort
from lamina.data.plan import Normalisation
from lamina.errors import DatasetError, FileError, GeometryError, LabelError
from lamina.geometry import affine_from
from lamina.io import read_labels
from lamina.labels import IGNORE_INDEX, LabelSet

SIZE = (14, 12, 10)


def arrays(seed=0):
    label = np.zeros(SIZE, np.uint8)
    label[2:6, 2:6, 2:6], label[3:5, 3:5, 3:5], label[0] = 5, 2, 9
    image = np.random.default_rng(seed).normal(300, 20, (1, *SIZE)).astype(np.float32)
    return image, label


@pytest.fixture
def case(tmp_path, write_case):
    return write_case(tmp_path, *arrays())


@pytest.fixture
def cache(tmp_path) -> Path:
    return tmp_path / "cache"


def state(cache: Path) -> dict[str, tuple[int, int]]:
    """Which files there are, each by its own identity and time."""
    files = (path for path in sorted(cache.rglob("*")) if path.is_file())
    return {str(p.relative_to(cache)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}


def test_a_prepared_case_holds_image_label_and_spacing(case, cache, plan_with):
    image, label = arrays()
    found = prepare_case(case, plan_with(orientation="ASR"), cache)
    assert (found.case_id, found.spacing) == ("case_1", (1, 1, 1))
    expected = np.select([label == 2, label == 5, label == 9], [1, 2, IGNORE_INDEX])
    np.testing.assert_array_equal(found.label[0], expected.transpose(1, 2, 0))
    assert found.image.dtype == np.float32
    assert np.corrcoef(found.image.ravel(), image[0].transpose(1, 2, 0).ravel())[0, 1] > 0.99
    assert found.image.mean() == pytest.approx(0, abs=1e-5)
    assert not any(path.name.startswith(".") for path in cache.iterdir())


def test_what_was_one_picture_in_colour_is_known_once_prepared(tmp_path, plan_with, cache):
    plan = plan_with(
        spatial_dims=2,
        channels=("red", "green", "blue"),
        normalisation=(Normalisation(scheme="zscore"),) * 3,
        orientation="LP",
        unit="px",
    )
    pixels = np.random.default_rng(0).integers(0, 256, (12, 9, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    for channel in range(3):
        Image.fromarray(pixels[..., channel]).save(tmp_path / f"b_{channel}.png")
    Image.new("L", (9, 12), 2).save(tmp_path / "mask.png")
    one = ((tmp_path / "a.png",), True)
    three = (tuple(tmp_path / f"b_{channel}.png" for channel in range(3)), False)
    for images, in_colour in (one, three):
        case = Case(case_id="c", group="c", images=images, label=tmp_path / "mask.png")
        prepared = prepare_case(case, plan, cache)
        assert prepared.in_colour == in_colour


def test_a_case_is_stored_without_its_empty_border(tmp_path, cache, plan_with, write_case):
    image, label = arrays()
    border = [(5, 7)] * 3
    label[0] = 0
    padded = np.pad(image, [(0, 0), *border], constant_values=-1024), np.pad(label, border)
    plan = plan_with(target_spacing=(1.3, 1, 1))
    plain = prepare_case(write_case(tmp_path / "plain", image, label), plan, cache / "plain")
    found = prepare_case(write_case(tmp_path, *padded), plan, cache)
    np.testing.assert_array_equal(found.image, plain.image)
    np.testing.assert_array_equal(found.label, plain.label)


def test_what_is_labelled_beyond_an_empty_border_is_stored(tmp_path, cache, plan_with, write_case):
    image, label = np.zeros((1, *SIZE), np.float32), np.zeros(SIZE, np.uint8)
    image[0, 4:6, 4:6, 4:6], label[5, 5, 3:5] = 300, 2
    found = prepare_case(write_case(tmp_path, image, label), plan_with(), cache)
    assert found.label.shape == (1, 2, 2, 3)
    assert len(found.positions[1]) == 2


def test_slices_that_are_seen_one_by_one_keep_their_own_distance(
    tmp_path, cache, plan_with, write_case
):
    case = write_case(tmp_path, *arrays(), affine_from((1, 1, 2.5)))
    whole = plan_with(target_spacing=(1.4, 1.2, 1))
    by_slice = replace(whole, slice_axis=2, patch_size=(16, 16, 1), roi_size=(16, 16, 1))
    assert prepare_case(case, whole, cache).spacing == pytest.approx((1.4, 1.2, 1))
    found = prepare_case(case, by_slice, cache)
    assert found.spacing == pytest.approx((1.4, 1.2, 2.5))
    assert found.label.shape == (1, 10, 10, 10)


def test_slanted_cases_are_refused_or_resampled(tmp_path, cache, plan_with, write_case, caplog):
    slanted = affine_from((1, 1, 1))
    slanted[1, 2] = 0.4
    case = write_case(tmp_path, *arrays(), slanted)
    with pytest.raises(GeometryError, match="--resample-oblique"):
        prepare_case(case, plan_with(), cache)
    assert not cache.exists()
    found = prepare_case(case, plan_with(), cache, resample_oblique=True)
    assert found.image.shape == found.label.shape == (1, 14, 16, 10)
    assert set(found.positions) == {1, 2}
    with pytest.raises(GeometryError, match="--resample-oblique"):
        prepare_case(case, plan_with(), cache)


def test_preparing_again_writes_nothing(case, cache, plan_with):
    prepare_case(case, plan_with(), cache)
    before = state(cache)
    assert set(before) == {
        f"case_1/{n}" for n in ("image.npy", "label.npy", "positions.npy", "case.json")
    }
    os.utime(case.images[0])
    prepare_case(case, plan_with(patch_size=(8, 8, 8), batch_size=9, epochs=7), cache)
    assert state(cache) == before


@pytest.mark.parametrize(
    "changes",
    [
        {"target_spacing": (1.0, 1.0, 1.5)},
        {"orientation": "LPS"},
        {"channels": ("PET",)},
        {"normalisation": (Normalisation(scheme="ct", low=0, high=500, mean=300, std=20),)},
        {"labels": LabelSet(values={"shell": 5, "core": 2}, ignore=9)},
        {"labels": LabelSet(values={"core": 2, "shell": 5, "rim": 9})},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_case_is_made_anew_when_the_plan_changes(case, cache, plan_with, changes):
    plan = plan_with(**changes)
    prepare_case(case, plan_with(), cache)
    before = state(cache)
    found = prepare_case(case, plan, cache)
    assert state(cache)["case_1/image.npy"] != before["case_1/image.npy"]
    fresh = prepare_case(case, plan, cache / "fresh")
    np.testing.assert_array_equal(found.image, fresh.image)
    np.testing.assert_array_equal(found.label, fresh.label)


@pytest.mark.parametrize("kind", ["images", "label"])
def test_a_case_is_made_anew_when_a_file_changes(case, cache, plan_with, write_case, kind):
    before = prepare_case(case, plan_with(), cache)
    old = np.array(before.image), np.array(before.label)
    image, label = arrays(seed=1)
    label[10:] = 2
    other = write_case(cache.parent / "other", image, label)
    if kind == "images":
        other.images[0].replace(case.images[0])
    else:
        other.label.replace(case.label)
    found = prepare_case(case, plan_with(), cache)
    assert np.array_equal(found.image, old[0]) == (kind == "label")
    assert np.array_equal(found.label, old[1]) == (kind == "images")


@pytest.mark.parametrize("changed", ["scan.raw", "truth.raw"])
def test_a_case_is_made_anew_when_voxels_behind_a_header_change(
    tmp_path, cache, plan_with, changed
):
    image, label = arrays()
    arrays_of = {"scan": image[0], "truth": label}
    for name, array in arrays_of.items():
        sitk.WriteImage(sitk.GetImageFromArray(array.T), tmp_path / f"{name}.mhd")
    scan, truth = tmp_path / "scan.mhd", tmp_path / "truth.mhd"
    case = Case(case_id="a", group="", images=(scan,), label=truth)
    before = prepare_case(case, plan_with(), cache)
    old = np.array(before.image), np.array(before.label)
    raw = tmp_path / changed
    raw.write_bytes(arrays_of[raw.stem][::-1].tobytes(order="F"))
    found = prepare_case(case, plan_with(), cache)
    assert np.array_equal(found.image, old[0]) == (changed == "truth.raw")
    assert np.array_equal(found.label, old[1]) == (changed == "scan.raw")


def test_a_case_is_made_anew_when_the_geometry_beside_arrays_changes(tmp_path, cache, plan_with):
    image, label = arrays()
    np.save(tmp_path / "scan.npy", image[0])
    np.save(tmp_path / "truth.npy", label)
    case = Case(
        case_id="a", group="", images=(tmp_path / "scan.npy",), label=tmp_path / "truth.npy"
    )
    depths = []
    for size in (1, 3):
        for name in ("scan", "truth"):
            geometry = {"spacing": [1, 1, size], "orientation": "RAS"}
            (tmp_path / f"{name}.json").write_text(json.dumps(geometry))
        depths.append(prepare_case(case, plan_with(), cache).image.shape[3])
    assert depths[0] < depths[1]


def test_positions_carry_the_class_they_stand_for(case, cache, plan_with):
    found = prepare_case(case, plan_with(target_spacing=(0.8, 1, 1)), cache)
    assert set(found.positions) == {1, 2}
    for index, positions in found.positions.items():
        assert (found.label[0][tuple(positions.T)] == index).all()
        everywhere = np.argwhere(found.label[0] == index)
        assert {*map(tuple, positions.tolist())} == {*map(tuple, everywhere.tolist())}


def test_positions_of_a_large_structure_are_an_even_sample(tmp_path, cache, plan_with, write_case):
    label = np.full((40, 40, 40), 2, np.uint8)
    case = write_case(tmp_path, np.zeros((1, *label.shape), np.uint8), label)
    positions = prepare_case(case, plan_with(), cache).positions[1]
    assert len(np.unique(positions, axis=0)) == len(positions) == 20_000
    np.testing.assert_allclose(positions.mean(axis=0), 19.5, atol=0.5)


@pytest.mark.parametrize("value", [0, 9])
def test_a_case_without_structures_is_kept(tmp_path, cache, plan_with, write_case, value):
    image, label = arrays()
    found = prepare_case(
        write_case(tmp_path, image, np.full_like(label, value)), plan_with(), cache
    )
    assert found.positions == {}
    assert set(np.unique(found.label)) == {0 if value == 0 else IGNORE_INDEX}


def test_a_case_that_cannot_be_used_leaves_what_was_there(
    case, cache, plan_with, write_case, tmp_path
):
    bad = replace(case, case_id="bad", label=None)
    with pytest.raises(LabelError, match="bad: has no label"):
        prepare_case(bad, plan_with(), cache)
    assert not cache.exists()
    prepare_case(case, plan_with(), cache)
    before = state(cache)
    image, label = arrays()
    label[0, 0, 0] = 77
    write_case(tmp_path, image, label)
    with pytest.raises(LabelError, match=r"\[77\]"):
        prepare_case(case, plan_with(), cache)
    assert state(cache) == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
@pytest.mark.parametrize("written", [1, 2, 3])
def test_an_interruption_leaves_no_half_case(case, cache, plan_with, monkeypatch, error, written):
    save, calls = np.save, iter(range(1, 99))

    def interrupted(*args):
        save(*args)
        if next(calls) == written:
            raise error

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises((KeyboardInterrupt, FileError)):
        prepare_case(case, plan_with(), cache)
    assert list(cache.iterdir()) == []


KILLED = """
import json, sys, time
from pathlib import Path
import numpy as np
from lamina.data.cache import prepare_case
from lamina.data.case import Case
from lamina.data.plan import Plan

def save(*args, save=np.save):
    save(*args)
    print("written", flush=True)
    time.sleep(60)

np.save = save
case, plan, cache = json.loads(sys.argv[1])
prepare_case(Case.from_dict(case), Plan.from_dict(plan), Path(cache))
"""


def test_a_kill_leaves_no_half_case_and_the_next_run_goes_on(case, cache, plan_with):
    plan = plan_with()
    arguments = json.dumps([case.as_dict(), plan.as_dict(), str(cache)])
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, arguments], stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout.readline() == "written\n"
        os.kill(writer.pid, signal.SIGKILL)
    assert not (cache / "case_1").exists()
    with pytest.raises(DatasetError, match=r"1 cases are not prepared: \['case_1'\]"):
        open_cases(cache, ("case_1",))
    prepare_case(case, plan, cache)
    (found,) = open_cases(cache, ("case_1",))
    assert found.image.shape == (1, *SIZE)


def test_more_cases_than_files_may_be_open(prepared_cases):
    many = [PreparedCase(case.folder) for case in prepared_cases for _ in range(10)]
    before = psutil.Process().num_fds()
    for case in many:
        assert case.image.shape == case.label.shape
        assert len(case.positions) == len(np.setdiff1d(case.label, (0, IGNORE_INDEX)))
    assert psutil.Process().num_fds() == before


def test_real_scans_of_very_different_scales_are_prepared_alike(shared, tmp_path, plan_with):
    cohort = read_cohort(shared / "data" / "hippocampus")
    assert len(cohort.cases) == 187
    cases = cohort.cases[:2] + cohort.cases[-1:]
    plan = plan_with(channels=cohort.channels, labels=cohort.labels)
    for case in cases:
        found = survey(case, cohort.channels, cohort.labels)
        prepared = prepare_case(case, plan, tmp_path)
        assert prepared.image.std() == pytest.approx(1, abs=1e-3)
        stored = read_labels(case.label).array
        for index, (name, value) in enumerate(cohort.labels.values.items(), start=1):
            count = np.count_nonzero(prepared.label == index)
            assert count == np.count_nonzero(stored == value) == found.facts.voxels[name] > 0


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "positions.npy"])
@pytest.mark.parametrize("kept_bytes", [None, 0, 60, 140])
def test_a_damaged_array_is_named_before_training(case, cache, plan_with, name, kept_bytes):
    damaged = prepare_case(case, plan_with(), cache).folder / name
    content = damaged.read_bytes()
    damaged.unlink()
    if kept_bytes is not None:
        damaged.write_bytes(content[:kept_bytes])
    with pytest.raises(FileError, match=rf"{name}: missing or damaged") as caught:
        open_cases(cache, ("case_1",))
    assert "lamina prepare" in caught.value.remedy

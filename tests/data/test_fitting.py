"""A budget decides what is trained, and what it cost is said."""

from dataclasses import replace
from math import prod

import pytest

from lamina.data.budget import Budget, NetworkCost, Scans
from lamina.data.fitting import choose
from lamina.data.plan import Normalisation, Plan
from lamina.data.slices import slice_axis
from lamina.errors import ConfigError
from lamina.labels import LabelSet

GB = 2**30
VOLUMES = Scans(median_shape=(128, 128, 96), spacing=(1.0, 1.0, 1.0), shapes=((128, 128, 96),) * 50)
STACKS = Scans(median_shape=(205, 180, 9), spacing=(1.4, 1.4, 8.0), shapes=((205, 180, 9),) * 50)
LIGHT = NetworkCost(
    network="light",
    spatial_dims=3,
    size_divisor=16,
    bytes_per_voxel=1000,
    seconds_per_voxel=1e-6,
    predict_seconds_per_voxel=3e-7,
)
HEAVY = replace(LIGHT, network="heavy", bytes_per_voxel=20_000, seconds_per_voxel=2e-5)
NARROW = replace(
    LIGHT, network_options={"channels": 4}, bytes_per_voxel=300, seconds_per_voxel=3e-7
)
PLENTY = Budget(memory_bytes=500 * GB)


@pytest.mark.parametrize(
    ("spacing", "axis"),
    [((1.0, 1.0, 1.0), 2), ((1.004, 1.0, 1.0), 2), ((1.02, 1.0, 1.0), 0), ((1.0, 3.0, 2.0), 1)],
)
def test_slices_run_along_one_axis_whoever_asks(spacing, axis):
    plan = Plan(
        spatial_dims=3,
        channels=("CT",),
        labels=LabelSet(values={"liver": 1}),
        orientation="RAS",
        target_spacing=spacing,
        normalisation=(Normalisation(scheme="zscore"),),
        patch_size=(32, 32, 32),
        roi_size=(32, 32, 32),
        batch_size=2,
        network="light",
        mirror_axes=(),
        epochs=1,
        steps_per_epoch=1,
    )
    assert slice_axis(plan) == replace(VOLUMES, spacing=spacing).slice_axis == axis


def names(given_up):
    return [sentence.partition(":")[0] for sentence in given_up]


def test_without_a_limit_the_first_is_taken_and_no_other_is_looked_at():
    def candidates():
        yield quick
        raise AssertionError("a second network was measured")

    quick = replace(LIGHT, seconds_per_voxel=1e-7)
    fit = choose(candidates(), VOLUMES, PLENTY)
    assert fit.cost is quick
    assert fit.patch_size == (128, 128, 96)
    assert fit.given_up == ()


def test_a_network_that_is_too_slow_gives_way_to_a_quicker_one():
    day, hour = (
        choose([HEAVY, LIGHT, NARROW], VOLUMES, replace(PLENTY, time_s=hours * 3600))
        for hours in (24, 1)
    )
    assert day.cost is HEAVY
    assert hour.cost is LIGHT
    assert names(hour.given_up)[0] == "heavy"
    assert 3_000 * hour.step_s <= 3600


def test_a_network_that_is_too_large_gives_way_to_a_smaller_one():
    fit = choose([HEAVY, LIGHT], VOLUMES, Budget(memory_bytes=0.15 * GB))
    assert fit.cost is LIGHT
    assert "does not fit into the memory" in fit.given_up[0]


def test_where_time_is_too_short_for_all_the_quickest_is_trained_and_this_is_said():
    fit = choose([LIGHT, NARROW], VOLUMES, replace(PLENTY, time_s=20))
    assert fit.cost is NARROW
    assert "too short" in fit.reasons["network"]
    assert names(fit.given_up)[:2] == ["light", "light (channels=4)"]
    assert any("15,000 steps" in sentence for sentence in fit.given_up)
    assert fit.epochs == 1


def test_what_takes_too_much_of_everything_is_refused():
    with pytest.raises(ConfigError, match="the smallest patch"):
        choose([HEAVY], VOLUMES, Budget(memory_bytes=1e6))


def test_the_program_itself_counts():
    half = Budget(memory_bytes=4 * GB, program_bytes=2 * GB)
    fit = choose([LIGHT], VOLUMES, half)
    assert fit.step_bytes <= 2 * GB
    assert fit.patch_size == choose([LIGHT], VOLUMES, Budget(memory_bytes=2 * GB)).patch_size


def test_time_that_a_shorter_patch_saved_is_not_spent_on_more_of_them():
    pictures = Scans(median_shape=(256, 256), spacing=(1.0, 1.0), shapes=((256, 256),) * 50)
    slow = replace(LIGHT, spatial_dims=2, seconds_per_voxel=6e-5)
    fit = choose([slow], pictures, PLENTY)
    assert 0 < prod(fit.patch_size) < 256 * 256
    assert 15_000 * fit.step_s <= 12 * 3600
    assert any("more takes too long" in sentence for sentence in fit.given_up)
    quick = choose(
        [replace(slow, seconds_per_voxel=1e-7)],
        replace(pictures, shapes=((128, 128),) * 50, median_shape=(128, 128)),
        PLENTY,
    )
    assert quick.batch_size > 2


def test_patches_are_shortened_for_time_but_not_below_what_shows_anything():
    fit = choose([LIGHT], VOLUMES, replace(PLENTY, time_s=2 * 3600))
    assert 3_000 * fit.step_s <= 2 * 3600
    tight = choose([LIGHT], VOLUMES, replace(PLENTY, time_s=60))
    assert tight.patch_size == (64, 64, 64)
    assert any(sentence.startswith("Patches of whole scans") for sentence in tight.given_up)


def test_without_a_time_a_run_is_to_end_by_the_morning():
    slow = choose([LIGHT], VOLUMES, PLENTY)
    assert 15_000 * slow.step_s <= 12 * 3600
    assert "a night allows 15,000 steps" in slow.reasons["patch_size"]


def test_patches_of_huge_scans_have_a_size_that_is_of_use():
    whole_body = Scans(
        median_shape=(512, 512, 900), spacing=(1.0, 1.0, 1.0), shapes=((512, 512, 900),) * 50
    )
    quick = replace(LIGHT, seconds_per_voxel=1e-9)
    fit = choose([quick], whole_body, PLENTY)
    assert 0.8 * 128**3 < prod(fit.patch_size) <= 128**3
    assert "of use" in fit.reasons["patch_size"]


def test_a_network_of_two_axes_sees_volumes_slice_by_slice():
    fit = choose([replace(LIGHT, spatial_dims=2)], STACKS, PLENTY)
    assert fit.slice_axis == 2
    assert fit.patch_size == (208, 176, 1)
    assert "8 mm apart" in fit.reasons["slice_axis"]
    small = choose([replace(LIGHT, spatial_dims=2)], STACKS, Budget(memory_bytes=0.02 * GB))
    assert small.patch_size[2] == 1
    assert prod(small.patch_size) * 2 * 1000 <= 0.02 * GB


@pytest.mark.parametrize(
    ("size", "patch"), [((102, 69), (128, 96)), ((128, 163), (128, 160)), ((20, 20), (32, 32))]
)
def test_patches_of_pictures_hold_nearly_all_of_the_median_picture(size, patch):
    pictures = Scans(median_shape=size, spacing=(1.0, 1.0), shapes=(size,) * 50)
    fit = choose([replace(LIGHT, spatial_dims=2, size_divisor=32)], pictures, PLENTY)
    assert fit.patch_size == patch


def test_cubes_are_sliced_across_their_last_axis():
    assert VOLUMES.slice_axis == 2
    assert replace(VOLUMES, spacing=(3.0, 1.0, 1.0)).slice_axis == 0


def test_reasons_do_not_claim_what_too_little_time_prevents():
    fit = choose([LIGHT], VOLUMES, replace(PLENTY, time_s=10))
    assert fit.patch_size == (64, 64, 64)
    assert "fits" not in fit.reasons["patch_size"]
    assert "longer than the 10 seconds granted" in fit.reasons["epochs"]
    assert "minutes" in fit.given_up[0]


def test_the_first_network_is_the_strongest_within_a_time_and_the_default_without():
    assert choose([LIGHT], VOLUMES, PLENTY).reasons["network"].startswith("The default")
    day = replace(PLENTY, time_s=24 * 3600)
    assert choose([HEAVY, LIGHT], VOLUMES, day).reasons["network"].startswith("The strongest")

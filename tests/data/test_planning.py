"""Plans fit the data and the budget, and say why."""

import json
import math
from dataclasses import asdict, fields, replace
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.data.budget import Budget, NetworkCost
from lamina.data.fingerprint import CaseFacts, Fingerprint
from lamina.data.plan import Plan
from lamina.data.planning import make_plan
from lamina.errors import ConfigError
from lamina.geometry import affine_from, resampled_grid
from lamina.labels import LabelSet

LABELS = LabelSet(values={"liver": 1, "lesion": 2})
COST = NetworkCost(
    network="lightmedseg",
    spatial_dims=3,
    size_divisor=8,
    bytes_per_voxel=1000,
    seconds_per_voxel=1e-6,
    predict_seconds_per_voxel=1e-6 / 3,
)
PLENTY = Budget(memory_bytes=64e9)
STATS = {
    "min": -900.0,
    "p00_5": -120.0,
    "median": 50.0,
    "mean": 60.0,
    "std": 40.0,
    "p99_5": 240.0,
    "max": 3000.0,
}
GIVEN = {
    "spatial_dims",
    "channels",
    "labels",
    "network_options",
    "overlap",
    "unit",
    "blending",
    "estimates",
    "given_up",
    "reasons",
}


def fingerprint_of(spacings, shapes=None, channels=("MR",)) -> Fingerprint:
    shapes = shapes or [(64,) * len(spacings[0])] * len(spacings)
    cases = [
        CaseFacts(
            case_id=f"case_{number}",
            shape=tuple(shape),
            spacing=tuple(spacing),
            orientation="RAS"[: len(shape)],
            intensity=(STATS,) * len(channels),
            voxels={"liver": 9},
            oddities=(),
        )
        for number, (spacing, shape) in enumerate(zip(spacings, shapes, strict=True))
    ]
    return Fingerprint(
        spatial_dims=len(spacings[0]),
        orientation="RAS"[: len(spacings[0])],
        channels=channels,
        cases=tuple(cases),
        foreground_intensity=(STATS,) * len(channels),
    )


def plan_of(fingerprint, labels=LABELS, cost=COST, budget=PLENTY) -> Plan:
    seen = replace(cost, spatial_dims=min(cost.spatial_dims, fingerprint.spatial_dims))
    return make_plan(fingerprint, labels, [seen], budget)


def step_bytes(plan: Plan, cost: NetworkCost = COST) -> float:
    return cost.bytes_per_voxel * plan.batch_size * prod(plan.patch_size)


def test_every_choice_has_a_reason_and_every_reason_a_choice():
    for spacing in [(1.0, 1.0, 1.0), (1.0, 1.0)]:
        plan = plan_of(fingerprint_of([spacing]))
        choices = {field.name for field in fields(Plan)} - GIVEN
        assert plan.reasons.keys() == choices
        assert all(reason.endswith(".") for reason in plan.reasons.values())


def test_a_spacing_that_was_asked_for_is_taken_and_must_fit_the_axes():
    seen, scans = COST, fingerprint_of([(1, 1, 1), (1.2, 1.1, 1.5)])
    plan = make_plan(scans, LABELS, [seen], PLENTY, (2, 2, 3.5))
    assert plan.target_spacing == (2.0, 2.0, 3.5)
    assert plan.reasons["target_spacing"] == "Asked for."
    for wrong in [(2, 2), (2, 0, 2)]:
        with pytest.raises(
            ConfigError, match="3 sizes above 0 are needed, one for each axis of RAS"
        ):
            make_plan(scans, LABELS, [seen], PLENTY, wrong)


def test_spacing_is_the_median():
    plan = plan_of(fingerprint_of([(1, 1, 1), (1.2, 1.1, 1.5), (9, 1.4, 1.6)]))
    assert plan.target_spacing == (1.2, 1.1, 1.5)
    assert "median" in plan.reasons["target_spacing"]


@pytest.mark.parametrize("spacing", [(0.46875, 0.46875, 0.9), (0.00065, 0.00065, 0.002), (1, 1, 5)])
def test_scans_that_share_a_spacing_are_not_resampled(spacing):
    noisy = [tuple(x * (1 + 1e-9 * number) for x in spacing) for number in range(3)]
    plan = plan_of(fingerprint_of(noisy))
    assert "nothing is resampled" in plan.reasons["target_spacing"]
    for found in noisy:
        affine = affine_from(found)
        same, shape = resampled_grid(affine, (40, 41, 42), plan.target_spacing)
        assert shape == (40, 41, 42)
        assert (same == affine).all()


def test_a_coarse_axis_is_resampled_to_the_finest_that_occurs():
    thick = [(0.8, 0.8, z) for z in (3.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 5.0, 6.0)]
    plan = plan_of(fingerprint_of(thick))
    assert plan.target_spacing == pytest.approx((0.8, 0.8, 4.6))
    assert "axis 2 is over 3 times coarser" in plan.reasons["target_spacing"]


def test_a_coarse_axis_never_becomes_finer_than_the_others():
    mixed = [(0.9, 0.8, z) for z in (0.5, 0.5, 5.0, 5.0, 5.0)]
    assert plan_of(fingerprint_of(mixed)).target_spacing == (0.9, 0.8, 0.9)


def test_only_ct_shares_one_scale():
    plan = plan_of(fingerprint_of([(1, 1, 1)], channels=("ct", "PET", "T1")))
    first, *others = plan.normalisation
    assert (first.scheme, first.low, first.high) == ("ct", -120, 240)
    assert (first.mean, first.std) == (60, 40)
    assert [how.scheme for how in others] == ["zscore", "zscore"]
    assert "Hounsfield" in plan.reasons["normalisation"]


def test_a_small_scan_becomes_one_patch():
    plan = plan_of(fingerprint_of([(1, 1, 1)], [(35, 51, 37)]))
    assert plan.patch_size == plan.roi_size == (32, 48, 40)
    assert plan.batch_size == 2


def test_patches_shrink_where_they_are_longest_in_mm():
    # Two patches of 64 x 64 x 64 voxels are 524 MB; the last axis is 192 mm, the others 64 mm.
    fingerprint = fingerprint_of([(1, 1, 3)])
    plan = plan_of(fingerprint, budget=Budget(memory_bytes=300e6, device="GPU memory"))
    assert plan.patch_size == (64, 64, 32)
    assert "0.3 GB of GPU memory" in plan.reasons["patch_size"]


dimensions = st.sampled_from([2, 3])


@st.composite
def circumstances(draw):
    dims = draw(dimensions)
    sizes = st.lists(st.integers(1, 600), min_size=dims, max_size=dims)
    spacings = st.lists(st.floats(0.2, 8), min_size=dims, max_size=dims)
    number = draw(st.integers(1, 4))
    shapes = [draw(sizes) for _ in range(number)]
    fingerprint = fingerprint_of([draw(spacings) for _ in range(number)], shapes)
    cost = replace(
        COST,
        size_divisor=draw(st.sampled_from([1, 8, 16, 32])),
        bytes_per_voxel=draw(st.floats(10, 20_000)),
    )
    return fingerprint, cost, Budget(memory_bytes=draw(st.floats(1e6, 1e11)))


@settings(deadline=None)
@given(circumstances())
def test_the_memory_budget_is_kept_or_refused(given_):
    fingerprint, cost, budget = given_
    smallest = 2 * cost.size_divisor**fingerprint.spatial_dims * cost.bytes_per_voxel
    if smallest > budget.memory_bytes:
        with pytest.raises(ConfigError, match="memory budget .* the smallest patch"):
            plan_of(fingerprint, cost=cost, budget=budget)
        return
    plan = plan_of(fingerprint, cost=cost, budget=budget)
    assert all(side > 0 and side % cost.size_divisor == 0 for side in plan.patch_size)
    assert 2 <= plan.batch_size <= 16
    assert step_bytes(plan, cost) <= budget.memory_bytes * (1 + 1e-9)
    assert plan.estimates["training_memory_gb"] * 2**30 == pytest.approx(
        step_bytes(plan, cost), abs=2**20
    )


def test_a_time_budget_shortens_the_run():
    fingerprint = fingerprint_of([(1, 1, 1)] * 40)
    free = plan_of(fingerprint)
    assert free.epochs * free.steps_per_epoch >= 15_000
    short = plan_of(fingerprint, budget=Budget(memory_bytes=64e9, time_s=600))
    assert 0.8 * 600 < short.estimates["training_s"] <= 600
    assert "10 minutes" in short.reasons["epochs"]
    long = plan_of(fingerprint, budget=Budget(memory_bytes=64e9, time_s=1e7))
    assert long.epochs == free.epochs


def test_little_time_is_filled_and_not_spent_on_validation():
    """Of scans whose validation takes eleven minutes, an hour holds few."""
    fingerprint = fingerprint_of([(1, 1, 1)] * 100, [(250, 250, 100)] * 100)
    cost = replace(COST, seconds_per_voxel=3e-6, predict_seconds_per_voxel=1e-6)
    plan = plan_of(fingerprint, cost=cost, budget=Budget(memory_bytes=4e9, time_s=3600))
    told = plan.estimates
    assert 0.95 * 3600 < told["training_s"] <= 3600
    training_s = told["step_s"] * plan.steps_per_epoch * plan.epochs
    assert training_s > 0.6 * told["training_s"]
    share = 1 - told["step_s"] * plan.steps_per_epoch / told["epoch_s"]
    assert f"about {round(100 * share)} % of the time" in plan.reasons["steps_per_epoch"]


def test_more_time_never_means_fewer_steps_and_never_more_than_a_full_run():
    """Of scans whose validation takes as long as thousands of steps, a full run has few epochs."""
    fingerprint = fingerprint_of([(1, 1, 1)] * 100, [(64, 64, 32)] * 100)
    cost = replace(COST, predict_seconds_per_voxel=1e-4)
    full_s = plan_of(fingerprint, cost=cost).estimates["training_s"]
    steps = []
    for share in (0.1, 0.3, 0.6, 0.9, 0.95, 0.999, 1.001):
        budget = Budget(memory_bytes=64e9, time_s=share * full_s)
        plan = plan_of(fingerprint, cost=cost, budget=budget)
        steps.append(plan.epochs * plan.steps_per_epoch)
    assert steps == sorted(steps)
    assert steps[0] < 2000
    assert 15_000 <= steps[-1] < 15_000 + plan.epochs


def test_validation_takes_a_small_share_of_the_time():
    for size in [(64, 64, 32), (72, 64, 40), (160, 160, 96)]:
        plan = plan_of(fingerprint_of([(1, 1, 1)] * 100, [size] * 100))
        half = [side / 2 for side in plan.roi_size]
        windows = math.prod(
            1 + max(0, math.ceil((n - 2 * h) / h)) for n, h in zip(size, half, strict=True)
        )
        forward_passes = 3 * plan.batch_size * plan.steps_per_epoch
        assert 20 * windows <= 0.11 * forward_passes
    assert plan_of(fingerprint_of([(1, 1, 1)] * 3)).steps_per_epoch == 50


@pytest.mark.parametrize(
    "name", ["kidney_left", "Right lung", "LeftAtrium", "kidney_L", "r-kidney", "hippocampus lh"]
)
def test_sides_of_the_body_are_never_mirrored(name):
    plan = plan_of(fingerprint_of([(1, 1, 1)]), LabelSet(values={"spine": 1, name: 2}))
    assert plan.mirror_axes == ()
    assert name in plan.reasons["mirror_axes"]


@pytest.mark.parametrize("dims", [2, 3])
def test_other_anatomy_is_mirrored_left_to_right_only(dims):
    labels = LabelSet(values={"liver": 1, "Posterior": 2, "cortex_1": 3, "L3 vertebra": 4})
    plan = plan_of(fingerprint_of([(1,) * dims]), labels)
    assert [plan.orientation[axis] for axis in plan.mirror_axes] == ["R"]


def test_a_plan_comes_back_from_json_as_it_went():
    labels = LabelSet(values={"b": 7, "a": -1}, regions={"both": ("a", "b")}, ignore=3)
    plan = plan_of(fingerprint_of([(0.9, 1, 3.3), (1, 1, 9)], channels=("CT", "PET")), labels)
    back = Plan.from_dict(json.loads(json.dumps(plan.as_dict(), allow_nan=False)))
    assert back == plan
    assert back.labels.foreground == ("b", "a")
    assert asdict(back) == asdict(plan)


def test_everything_wrong_with_a_stored_plan_is_listed():
    stored = plan_of(fingerprint_of([(1, 1, 1)])).as_dict()
    del stored["orientation"]
    stored |= {"batch_size": "many", "patch_size": [32, 2.5, 32], "spacing": 1}
    stored["normalisation"] = [{"scheme": "minmax"}]
    with pytest.raises(ConfigError) as caught:
        Plan.from_dict(stored)
    message = str(caught.value)
    assert message.startswith("5 settings are wrong")
    for fault in ("orientation", "batch_size = 'many'", "patch_size.1 = 2.5", "spacing: unknown"):
        assert fault in message
    assert "normalisation.0.scheme = 'minmax'" in message


def test_a_plan_has_one_entry_per_axis():
    stored = plan_of(fingerprint_of([(1, 1, 1)])).as_dict()
    with pytest.raises(ConfigError, match="target_spacing has 2 entries, roi_size has 4 entries"):
        Plan.from_dict(stored | {"target_spacing": [1, 1], "roi_size": [32] * 4})


def test_structures_without_a_name_are_never_mirrored():
    both = plan_of(fingerprint_of([(1, 1, 1)]), LabelSet(values={"label_1": 1, "label_2": 2}))
    assert both.mirror_axes == ()
    one = plan_of(fingerprint_of([(1, 1, 1)]), LabelSet(values={"label_1": 1}))
    assert one.mirror_axes == (0,)


@pytest.mark.parametrize("name", ["KidneyL", "LKidney", "lobus sinister", "Atrium dextrum"])
def test_other_ways_to_name_a_side(name):
    plan = plan_of(fingerprint_of([(1, 1, 1)]), LabelSet(values={"spine": 1, name: 2}))
    assert plan.mirror_axes == ()

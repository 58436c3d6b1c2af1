"""Patches balanced by class: rare structures are seen as often as common ones."""

from collections import Counter

import numpy as np
import pytest

from lamina.data.cache import prepare_case
from lamina.data.sampling import PatchSampler, random_for


@pytest.fixture(scope="module")
def uneven_cases(tmp_path_factory, plan_with, write_case):
    """Four cases that all have one structure, and the first of them another."""
    folder, rng, cases = tmp_path_factory.mktemp("uneven"), np.random.default_rng(0), []
    for number in range(4):
        label = np.zeros((12, 12, 12), np.uint8)
        label[:4] = 2
        label[-2:, -2:, -2:] = 5 if number == 0 else 0
        image = rng.normal(0, 1, (1, 12, 12, 12)).astype(np.float32)
        case = write_case(folder, image, label, case_id=f"case_{number}")
        cases.append(prepare_case(case, plan_with(), folder / "cache"))
    return cases


def sampler_of(cases, balance, share=1.0, patch_size=(1, 1, 1)):
    return PatchSampler(
        cases=cases,
        patch_size=patch_size,
        batch_size=1,
        seed=3,
        oversample_foreground=share,
        balance=balance,
    )


def classes_seen(sampler, count=400):
    places = [sampler.place_for(step, 0, random_for(3, step, 0)) for step in range(count)]
    seen = Counter(int(case.label[0][start]) for case, start in places)
    return {index: times / count for index, times in seen.items()}


def test_a_structure_of_one_case_is_seen_as_often_as_one_of_all(uneven_cases):
    by_case = classes_seen(sampler_of(uneven_cases, "case"))
    by_class = classes_seen(sampler_of(uneven_cases, "class"))
    assert by_case[2] == pytest.approx(1 / 8, abs=0.05)
    assert by_class[2] == pytest.approx(1 / 2, abs=0.08)
    assert by_class[1] + by_class[2] == pytest.approx(1)


def test_the_share_of_background_is_kept(uneven_cases):
    seen = classes_seen(sampler_of(uneven_cases, "class", share=0.0))
    assert seen[0] == pytest.approx(8 / 12, abs=0.08)


def test_cases_without_structures_can_be_cut(prepared_cases):
    sampler = sampler_of(prepared_cases[-1:], "class", patch_size=(8, 8, 8))
    case, start = sampler.place_for(0, 0, random_for(3, 0, 0))
    assert case is prepared_cases[-1]
    assert all(0 <= low <= 4 for low in start)


@pytest.mark.parametrize(
    ("balance", "places"),
    [
        ("case", ["1 -3 0 4", "0 -2 8 8", "3 -4 0 8", "2 0 2 0", "0 -1 6 4"]),
        ("class", ["1 -3 0 4", "0 -3 8 8", "3 -4 0 8", "0 -2 8 8", "0 -3 8 8"]),
    ],
)
def test_places_are_drawn_as_ever_so_that_runs_of_before_go_on(uneven_cases, balance, places):
    sampler = sampler_of(uneven_cases, balance, share=0.5, patch_size=(16, 4, 4))
    drawn = [sampler.place_for(step, 0, random_for(3, step, 0)) for step in range(5)]
    shown = [" ".join([case.case_id[-1], *map(str, start)]) for case, start in drawn]
    assert shown == places

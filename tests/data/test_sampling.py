"""Patches are a pure function of seed, step and slot, and show what they are meant to show."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lamina.data.sampling import PatchSampler, random_for

numbers = st.tuples(st.integers(0, 2**40), st.integers(0, 64))


@pytest.fixture(scope="module")
def sampler(prepared_cases) -> PatchSampler:
    return PatchSampler(
        cases=prepared_cases,
        patch_size=(10, 10, 10),
        batch_size=3,
        seed=7,
        oversample_foreground=0.5,
    )


def choice(sampler, step, slot):
    case, start = sampler.place_for(step, slot, random_for(sampler.seed, step, slot))
    return case.case_id, start


def starts_in(case, sampler, count):
    alone = replace(sampler, cases=[case])
    return [alone.place_for(step, 0, random_for(sampler.seed, step, 0))[1] for step in range(count)]


@settings(deadline=None)
@given(number=numbers, seed=st.integers(0, 2**63))
def test_a_generator_depends_on_its_numbers_alone(number, seed):
    first, again = random_for(seed, *number), random_for(seed, *number)
    first.normal(size=100)
    random_for(seed, *number).random()
    first = random_for(seed, *number)
    np.testing.assert_array_equal(first.random(8), again.random(8))


def test_generators_of_different_numbers_share_no_draws():
    keys = [(seed, step, slot) for seed in range(3) for step in range(20) for slot in range(5)]
    draws = np.concatenate([random_for(*key).integers(0, 2**63, 50) for key in keys])
    assert len(np.unique(draws)) == len(draws)


def test_the_order_of_questions_changes_no_answer(sampler):
    asked = [(step, slot) for step in range(12) for slot in range(3)]
    forwards = {key: choice(sampler, *key) for key in asked}
    backwards = {key: choice(sampler, *key) for key in reversed(asked)}
    assert forwards == backwards
    other = replace(sampler, seed=8)
    assert forwards != {key: choice(other, *key) for key in asked}


def test_each_case_is_seen_equally_often(sampler):
    """Rounds of five cases do not fit into batches of three: a round is whole all the same."""
    for first in (0, 5 * 1000):
        seen = [divmod(number, 3) for number in range(first, first + 35)]
        ids = [sampler.case_for(*place).case_id for place in seen]
        assert set(Counter(ids).values()) == {7}
        rounds = [ids[start : start + 5] for start in range(0, 35, 5)]
        assert all(len(set(round_)) == 5 for round_ in rounds)
        assert len({tuple(round_) for round_ in rounds}) > 3


def test_foreground_patches_hold_their_structure(prepared_cases):
    sampler = PatchSampler(
        cases=prepared_cases,
        patch_size=(6, 6, 6),
        batch_size=1,
        seed=0,
        oversample_foreground=1.0,
    )
    held = Counter()
    for case in prepared_cases[:-1]:
        for start in starts_in(case, sampler, 40):
            window = tuple(slice(low, low + 6) for low in start)
            patch = case.label[0][window]
            assert np.isin(patch, (1, 2)).any()
            held.update(np.unique(patch).tolist())
    assert min(held[1], held[2]) > 40


def test_foreground_patches_are_centred_on_structures_large_and_small_alike(prepared_cases):
    case = prepared_cases[0]
    sampler = PatchSampler(
        cases=[case], patch_size=(4, 4, 4), batch_size=1, seed=0, oversample_foreground=1.0
    )
    starts = starts_in(case, sampler, 300)
    free = [start for start in starts if (np.array(start) < (16, 14, 8)).all()]
    centres = [int(case.label[0][tuple(low + 2 for low in start)]) for start in free]
    assert set(centres) == {1, 2}
    single = replace(sampler, patch_size=(1, 1, 1))
    starts = starts_in(case, single, 300)
    drawn = Counter(int(case.label[0][start]) for start in starts)
    assert drawn[1] / 300 == pytest.approx(0.5, abs=0.1)
    assert drawn[1] + drawn[2] == 300


def test_a_case_smaller_than_the_patch_lies_anywhere_in_it(prepared_cases):
    case = prepared_cases[1]
    sampler = PatchSampler(
        cases=[case], patch_size=(16, 8, 8), batch_size=1, seed=0, oversample_foreground=1.0
    )
    starts = starts_in(case, sampler, 100)
    assert {start[0] for start in starts} == set(range(-7, 1))


def test_the_share_of_foreground_is_kept(prepared_cases):
    case = prepared_cases[0]
    shares = {}
    for wanted in (0.0, 0.3, 1.0):
        sampler = PatchSampler(
            cases=[case],
            patch_size=(2, 2, 2),
            batch_size=1,
            seed=1,
            oversample_foreground=wanted,
        )
        starts = starts_in(case, sampler, 300)
        windows = [tuple(slice(low, low + 2) for low in start) for start in starts]
        shares[wanted] = np.mean([np.isin(case.label[0][w], (1, 2)).any() for w in windows])
    assert shares[1.0] == 1
    assert shares[0.0] < 0.15
    assert shares[0.3] == pytest.approx(0.3 + 0.7 * shares[0.0], abs=0.08)


def test_a_case_without_structures_is_cut_anywhere(prepared_cases):
    sampler = PatchSampler(
        cases=prepared_cases,
        patch_size=(8, 8, 8),
        batch_size=1,
        seed=0,
        oversample_foreground=1.0,
    )
    starts = starts_in(prepared_cases[-1], sampler, 60)
    for axis in range(3):
        assert {start[axis] for start in starts} == {0, 1, 2, 3, 4}


@settings(deadline=None)
@given(
    patch=st.tuples(*[st.integers(1, 40)] * 3),
    case=st.integers(0, 4),
    number=numbers,
    share=st.sampled_from([0.0, 1.0]),
)
def test_a_patch_covers_the_case_or_lies_within_it(prepared_cases, patch, case, number, share):
    sampler = PatchSampler(
        cases=prepared_cases[case : case + 1],
        patch_size=patch,
        batch_size=2,
        seed=0,
        oversample_foreground=share,
    )
    chosen, start = sampler.place_for(*number, random_for(0, *number))
    for low, length, size in zip(start, patch, chosen.label.shape[1:], strict=True):
        if length <= size:
            assert 0 <= low <= size - length
        else:
            assert low <= 0
            assert low + length >= size

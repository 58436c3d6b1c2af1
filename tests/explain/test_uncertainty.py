"""Uncertainty: sure of the same is none, sure of different things is disagreement."""

from dataclasses import replace

import numpy as np
import pytest

from lamina.explain.uncertainty import Agreeing, Tally, Uncertainty, by_structure, entropy, views_of
from lamina.inference.mirroring import mirrored
from small_bundles import small_bundle

PLAN = replace(small_bundle("lightmedseg").plan, mirror_axes=(1,))
SHAPE = (4, 6, 5)


def sure(index, shape=SHAPE, classes=3):
    logits = np.full((1, classes, *shape), -20, np.float32)
    logits[:, index] = 20
    return logits


def of(*answers):
    """Views that answer so, whatever they see."""
    return lambda batch: iter(answers)


def test_entropy_is_one_where_all_is_equally_likely_and_none_where_one_is_certain():
    even = np.full((4, 3), 0.25, np.float32)
    assert entropy(even, exclusive=True) == pytest.approx(1)
    assert entropy(np.eye(4, dtype=np.float32), exclusive=True) == pytest.approx(0, abs=1e-6)
    half = np.full((2, 3), 0.5, np.float32)
    assert entropy(half, exclusive=False) == pytest.approx(1)
    assert entropy(np.array([[0.0], [1.0]], np.float32), exclusive=False).max() < 1e-6


def test_views_that_are_sure_of_the_same_are_certain():
    seer = Uncertainty(of(sure(1), sure(1)), PLAN)
    whole, apart = seer.finish(seer(np.zeros((1, 1, *SHAPE), np.float32))[0])
    assert whole.max() < 1e-5
    assert apart.max() < 1e-5
    assert seer.tally.take() == {"rim": 1.0}


def test_views_that_are_sure_of_different_things_disagree():
    seer = Uncertainty(of(sure(1), sure(2)), PLAN)
    whole, apart = seer.finish(seer(np.zeros((1, 1, *SHAPE), np.float32))[0])
    np.testing.assert_allclose(whole, np.log(2) / np.log(3), atol=1e-5)
    np.testing.assert_allclose(apart, whole, atol=1e-5)
    assert seer.tally.take() == {"rim": 0, "core": 0}


def test_a_view_in_doubt_is_uncertain_and_agrees_with_itself():
    seer = Uncertainty(of(np.zeros((1, 3, *SHAPE), np.float32)), PLAN)
    whole, apart = seer.finish(seer(np.zeros((1, 1, *SHAPE), np.float32))[0])
    np.testing.assert_allclose(whole, 1, atol=1e-5)
    assert apart.max() < 1e-5
    assert seer.tally.alone
    assert seer.tally.take() == {}


def test_the_tally_is_the_dice_of_all_pairs_of_views():
    rng = np.random.default_rng(0)
    logits = [rng.normal(size=(1, 3, *SHAPE)).astype(np.float32) for _ in range(3)]
    tally = Tally(PLAN)
    assert len(list(tally.watch(iter(logits)))) == 3
    maps, expected = [each[0].argmax(0) for each in logits], {}
    for index, name in ((1, "rim"), (2, "core")):
        masks = [each == index for each in maps]
        pairs = [(masks[a], masks[b]) for a, b in ((0, 1), (0, 2), (1, 2))]
        shared = sum(2 * (a & b).sum() for a, b in pairs)
        wanted = shared / sum(a.sum() + b.sum() for a, b in pairs)
        expected[name] = pytest.approx(wanted)
    assert tally.take() == expected
    assert tally.take() == {}


def test_agreeing_views_give_the_logits_of_mirroring():
    weights = np.random.default_rng(1).normal(size=(3, *SHAPE)).astype(np.float32)
    network = lambda batch: batch * weights  # noqa: E731
    batch = np.random.default_rng(2).normal(size=(2, 1, *SHAPE)).astype(np.float32)
    seer = Agreeing(views_of([network], PLAN, tta=True), PLAN)
    np.testing.assert_allclose(seer(batch), mirrored(network, PLAN)(batch), rtol=1e-5)
    assert set(seer.tally.take()) <= {"rim", "core"}
    members = Agreeing(views_of([network, network], PLAN, tta=False), PLAN)
    np.testing.assert_allclose(members(batch), network(batch), rtol=1e-6)
    assert set(members.tally.take().values()) == {1.0}


def test_means_by_structure_are_over_its_own_voxels():
    indices = np.array([[0, 1], [1, 0]], np.uint8)
    found = by_structure({"entropy": np.array([[9, 0.2], [0.4, 9]])}, indices, PLAN)
    assert found == {"rim": {"entropy": pytest.approx(0.3)}}

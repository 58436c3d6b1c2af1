"""Beginning from other weights, with parts that stay as they are."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from lamina.errors import ConfigError
from lamina.training.transfer import freeze, load_fitting


def network(num_classes, *extra):
    layers = nn.Conv3d(1, 4, 3), nn.BatchNorm3d(4), nn.Conv3d(4, num_classes, 1), *extra
    return nn.Sequential(*layers)


def test_what_fits_is_loaded_and_all_the_rest_is_named():
    source, target = network(3), network(5, nn.Conv3d(5, 5, 1))
    source[1].running_mean.fill_(0.7)
    weights = source.state_dict() | {"old": torch.zeros(1)}
    head = target[2].weight.clone()
    told = load_fitting(target, weights)
    assert_close(target[0].weight, source[0].weight, rtol=0, atol=0)
    assert_close(target[1].running_mean, torch.full((4,), 0.7))
    assert torch.equal(target[2].weight, head)
    assert told.reshaped == ("2.weight", "2.bias")
    assert told.missing == ("3.weight", "3.bias")
    assert told.left_over == ("old",)
    assert len(told.loaded) == 7


def test_weights_of_another_network_are_refused():
    with pytest.raises(ConfigError, match="No weight fits"):
        load_fitting(network(3), {"encoder.weight": torch.zeros(2)})


def test_frozen_parts_stay_as_they_are_through_training(new_run):
    run = new_run()
    kept = freeze(run.network, ["0.*"])
    assert kept == ("0.weight", "0.bias")
    before = [p.clone() for p in run.network.parameters()]
    run()
    after = list(run.network.parameters())
    assert_close(after[:2], before[:2], rtol=0, atol=0)
    assert not any(torch.equal(a, b) for a, b in zip(after[2:], before[2:], strict=True))
    averaged = run.last["state_dict"]["average.module.0.weight"]
    assert_close(averaged, before[0], rtol=0, atol=0)


@pytest.mark.parametrize(("pattern", "kept"), [("1.*", True), ("*.bias", False)])
def test_batch_statistics_of_frozen_parts_stay_as_they_are(new_run, pattern, kept):
    run = new_run()
    run.network[1] = nn.BatchNorm3d(4)
    run.network[1].running_mean.fill_(0.7)
    freeze(run.network, [pattern])
    run()
    averaged = run.last["state_dict"]["average.module.1.running_mean"]
    for mean in (run.network[1].running_mean, averaged):
        assert torch.equal(mean, torch.full((4,), 0.7)) is kept


@pytest.mark.parametrize(
    ("patterns", "fault"),
    [
        (["0.*", "encoder.*"], r"frozen = 'encoder.\*': fits no weight .* called 0.weight, 3.bias"),
        (["*"], "leaves nothing to learn"),
    ],
)
def test_patterns_that_make_no_sense_are_refused(new_run, patterns, fault):
    with pytest.raises(ConfigError, match=fault):
        freeze(new_run().network, patterns)

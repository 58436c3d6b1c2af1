"""bfloat16 on a CPU trains deep layers, whose grids are smaller than their kernels, rightly.

What this guards against damages the heap, so it is never provoked here: the watched network alone
is run.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from lamina.training.small_grids import SmallGrids


@pytest.fixture
def watch():
    callback = SmallGrids()
    watched = []

    def watched_in_bf16(network):
        watched.append(SimpleNamespace(network=network))
        callback.on_fit_start(None, watched[-1])
        return callback

    yield watched_in_bf16
    for module in watched:
        callback.teardown(None, module, "fit")


def gradient(network, image, *, bf16):
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        found = network(image)
    found.float().square().sum().backward()
    weight = next(network.parameters())
    told, weight.grad = weight.grad, None
    return found.dtype, told


@pytest.mark.parametrize(
    ("side", "kernel", "dilation", "dtype"),
    [
        (2, 3, 1, torch.float32),
        (4, 3, 2, torch.float32),
        (6, 7, 1, torch.float32),
        (3, 3, 1, torch.bfloat16),
        (7, 3, 3, torch.bfloat16),
    ],
)
@pytest.mark.parametrize("dims", [2, 3])
def test_only_grids_below_the_kernel_leave_bfloat16(watch, dims, side, kernel, dilation, dtype):
    layer = nn.Conv3d if dims == 3 else nn.Conv2d
    pad = dilation * (kernel - 1) // 2
    torch.manual_seed(0)
    network = nn.Sequential(layer(4, 4, kernel, dilation=dilation, padding=pad, groups=2))
    image = torch.randn(2, 4, *[9] * (dims - 1), side)
    _, expected = gradient(network, image, bf16=False)
    watch(network)
    used, first = gradient(network, image, bf16=True)
    _, second = gradient(network, image, bf16=True)
    assert used == dtype
    assert torch.equal(first, second)
    assert (first - expected).abs().max() < 0.05 * expected.abs().max()


def test_a_failing_convolution_does_not_switch_autocast_off(watch):
    network = nn.Conv2d(4, 4, 3, padding=1)
    watch(network)
    with torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError, match="channels"):
            network(torch.randn(1, 3, 2, 2))
        assert torch.is_autocast_enabled("cpu")


def test_the_network_is_left_as_it_was(watch):
    network = nn.Conv2d(4, 4, 3, padding=1)
    watch(network).teardown(None, None, "fit")
    assert not network._forward_hooks
    assert not network._forward_pre_hooks


def test_runs_of_one_seed_in_bfloat16_end_with_the_same_bits(new_run):
    """Of a network that halves its patches until they are smaller than its kernels."""

    def deep():
        torch.manual_seed(0)
        halving = [nn.Conv3d(8, 8, 3, stride=2, padding=1) for _ in range(3)]
        last = nn.Conv3d(8, 3, 3, padding=1)
        first = nn.Conv3d(1, 8, 3, padding=1)
        return nn.Sequential(first, *halving, last, nn.Upsample(scale_factor=8))

    one, other = new_run("one"), new_run("other")
    for run in (one, other):
        run.network = deep()
        run(epochs=1, precision="bf16")
    other.assert_same_bits(one)

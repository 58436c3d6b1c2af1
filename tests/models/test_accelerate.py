"""Fast forms against the operators that they stand for."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from lamina.models import build
from lamina.models.accelerate import for_inference, keep_freed_memory, simplified
from lamina.models.accelerate.algebra import SummedLMS
from lamina.models.accelerate.convolution import (
    DilatedDepthwise,
    DirectConvolution,
    folded,
    is_dilated_depthwise,
    is_direct,
)
from lamina.models.accelerate.forms import fast
from lamina.models.accelerate.rows import applied, measured, moments, to_map, to_rows
from lamina.models.accelerate.steps import Chain, Pointwise
from lamina.models.glims import DACB, InstanceNorm
from lamina.models.layers.convolution import conv
from lamina.models.layers.lms import LMS

pytestmark = pytest.mark.usefixtures("without_gradients")


@pytest.fixture
def without_gradients():
    torch.manual_seed(0)
    with torch.no_grad():
        yield


def volume(c: int, *size: int) -> torch.Tensor:
    x = torch.randn(1, c, *size) + 0.5
    return x.contiguous(memory_format=torch.channels_last_3d)


def assert_same(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def shaken(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    return module.eval()


@pytest.mark.parametrize("size", [(6, 6, 6), (7, 5, 8), (1, 2, 13)])
@pytest.mark.parametrize("dilation", [2, 3])
def test_dilated_convolution_of_interleaved_grids(size, dilation):
    layer = conv(3, 5, 5, 3, dilation=dilation, groups=5)
    assert is_dilated_depthwise(layer)
    x = volume(5, *size)
    assert_same(DilatedDepthwise(layer)(x), layer(x))


def test_other_convolutions_are_not_taken_for_dilated_depthwise_ones():
    others = (
        conv(3, 4, 4, 3, groups=4),
        conv(3, 4, 4, 3, dilation=2),
        conv(3, 4, 8, 3, dilation=2, groups=4),
        nn.Conv3d(4, 4, 3, dilation=2, groups=4),
        nn.Conv3d(4, 4, 3, dilation=2, padding=2, groups=4, padding_mode="replicate"),
    )
    assert not any(is_dilated_depthwise(layer) for layer in others)


@pytest.mark.parametrize("options", [{"dilation": 2}, {"stride": 2, "bias": False}], ids=str)
@pytest.mark.parametrize("channels", [1, 4])
def test_convolutions_of_small_maps_are_done_directly(channels, options):
    layer, x = conv(3, channels, 5, 3, **options), volume(channels, 7, 6, 5)
    assert is_direct(layer)
    assert_same(DirectConvolution(layer)(x), layer(x))


def test_grouped_and_padded_by_name_convolutions_are_left_alone():
    others = (
        conv(3, 4, 4, 3, groups=2),
        nn.Conv3d(4, 4, 3, padding="same"),
        nn.Conv3d(4, 4, 3, padding=1, padding_mode="replicate"),
        conv(2, 4, 4, 3),
    )
    assert not any(is_direct(layer) for layer in others)


@pytest.mark.parametrize("kernels", [(3, 5, 7, 9), (5, 7, 9, 11), (3, 3, 5, 3)])
@pytest.mark.parametrize("size", [(13, 6), (9, 4, 7)])
def test_four_widths_and_the_input_are_one_convolution(size, kernels):
    norm = nn.BatchNorm2d if len(size) == 2 else nn.InstanceNorm3d
    block, x = shaken(LMS(len(size), 8, norm, kernels)), torch.randn(2, 8, *size)
    assert_same(SummedLMS(block)(x), block(x))


def test_a_simplified_network_takes_fewer_operators_and_is_a_copy():
    network = shaken(build("lgmsnet_2d", in_channels=1, num_classes=2)).train()
    short, x = simplified(network), torch.randn(1, 1, 64, 32)
    assert network.training
    assert len(list(short.modules())) < len(list(network.modules()))
    expected = network.eval()(x)
    assert (short(x) - expected).abs().max() < 1e-3 * expected.abs().max()


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dims", [2, 3])
def test_pointwise_convolution_is_a_matrix_product(dims, bias):
    layer, x = conv(dims, 5, 7, 1, bias=bias), torch.randn(2, 5, *(4, 3, 6)[:dims])
    assert_same(Pointwise(layer)(x), layer(x))


@pytest.mark.parametrize(("voxels", "channels"), [(1, 3), (97, 3), (4096, 8), (300, 200)])
def test_moments_are_those_of_the_columns(voxels, channels):
    rows = torch.randn(voxels, channels) + 300
    mean, variance = moments(rows)
    exact = rows.double()
    torch.testing.assert_close(mean, exact.mean(0).float())
    torch.testing.assert_close(variance, exact.var(0, correction=0).float(), rtol=1e-3, atol=1e-4)


def test_moments_of_pieces_are_joined(monkeypatch):
    monkeypatch.setattr("lamina.models.accelerate.rows.CHUNK", 1)  # pieces of 256 rows
    rows = torch.linspace(0, 9, 1000)[:, None].repeat(1, 3)
    out, (mean, variance) = measured(lambda x: 2 * x, [rows])
    assert_same(out, 2 * rows)
    assert_same(mean, out.mean(0))
    assert_same(variance, out.var(0, correction=0))


def test_steps_take_all_sources_and_leave_them(monkeypatch):
    monkeypatch.setattr("lamina.models.accelerate.rows.CHUNK", 1)
    a, b = torch.randn(600, 3), torch.randn(600, 4)
    kept = a.clone(), b.clone()
    layer = conv(3, 7, 2, 1)
    found = applied(lambda *x: torch.cat(x, 1), [a, b], product=Pointwise(layer).product)
    assert_same(found, F.linear(torch.cat([a, b], 1), layer.weight.flatten(1), layer.bias))
    assert torch.equal(a, kept[0])
    assert torch.equal(b, kept[1])


ACTIVATIONS = (
    nn.ReLU(),
    nn.LeakyReLU(0.1),
    nn.PReLU(init=-0.3),
    nn.PReLU(6, init=0.3),
    nn.SiLU(),
    nn.GELU(),
    nn.ELU(2.0),
    nn.Sigmoid(),
)
NORMS = (
    nn.InstanceNorm3d(6),
    nn.InstanceNorm3d(6, affine=True),
    nn.GroupNorm(1, 6),
    nn.GroupNorm(3, 6),
    nn.GroupNorm(6, 6, affine=False),
    InstanceNorm(6, affine=True),
    nn.BatchNorm3d(6),
)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("norm", NORMS, ids=str)
def test_chains_equal_their_layers_and_leave_what_is_not_theirs(norm, activation):
    layers = nn.Sequential(activation, norm, activation, conv(3, 6, 6, 1), norm, activation)
    layers, x = shaken(deepcopy(layers)), volume(6, 4, 5, 6)
    before, expected = x.clone(), layers(x)
    parts = [Pointwise(layer) if isinstance(layer, nn.Conv3d) else layer for layer in layers]
    assert_same(Chain(parts, fresh=False)(x), expected)
    assert torch.equal(x, before)
    assert_same(Chain(parts, fresh=True)(x), expected)


def test_rows_are_a_view_of_channels_last_memory():
    x = volume(3, 4, 5, 6)
    assert to_rows(x).data_ptr() == x.data_ptr()
    assert torch.equal(to_map(to_rows(x), x.shape[2:]), x)


@pytest.mark.parametrize("size", [(9, 6, 7), (1, 1, 2)])
def test_dilated_block_of_glims(size):
    block = shaken(DACB(6, (1, 2, 3)))
    x = volume(6, *size)
    before, expected = x.clone(), block(x)
    assert_same(fast(deepcopy(block))(x), expected)
    assert torch.equal(x, before)


@pytest.mark.parametrize("transposed", [False, True])
def test_batch_normalisation_goes_into_the_convolution_before(transposed):
    layer = nn.ConvTranspose3d(3, 5, 2, stride=2) if transposed else nn.Conv3d(3, 5, 3)
    norm = nn.BatchNorm3d(5)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    layers, x = shaken(nn.Sequential(layer, norm, nn.ReLU())), volume(3, 5, 6, 7)
    short = folded(list(layers))
    assert len(short) == 2
    assert_same(nn.Sequential(*short)(x), layers(x))


def test_a_normalisation_after_an_activation_stays():
    layers = [nn.Conv3d(3, 5, 3), nn.GELU(), nn.BatchNorm3d(5)]
    assert folded(layers) == layers


def test_the_plain_network_still_trains_after_a_copy_was_made_fast():
    network = build("lightmedseg", in_channels=1, num_classes=2).train()
    fast_network = for_inference(network)
    assert network.training
    assert all(p.requires_grad for p in network.parameters())
    assert not any(p.requires_grad for p in fast_network.parameters())
    ours = {p.data_ptr() for p in network.parameters()}
    assert ours.isdisjoint(p.data_ptr() for p in fast_network.parameters())


@pytest.mark.parametrize(
    "options",
    [{"spatial_dims": 2}, {"anchors": False, "lspm": False}, {"spb": "l2"}, {"ghost": False}],
    ids=str,
)
def test_lightmedseg_of_any_configuration_and_size(options):
    network = shaken(build("lightmedseg", in_channels=2, num_classes=3, **options))
    x = torch.randn(2, 2, *(17, 33, 20)[: options.get("spatial_dims", 3)])
    assert_same(for_inference(network)(x), network(x))


def test_keeping_memory_can_be_taken_back():
    assert keep_freed_memory() == keep_freed_memory(keep=False)

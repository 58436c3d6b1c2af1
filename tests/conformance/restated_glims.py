"""GLIMS once more, from its specification alone: functions of the published weights.

An oracle that shares nothing with the network it is held against: no modules, no renaming, one
window after the other. Every function takes the weights of its part by their published names,
relative to that part, and volumes ``(B, C, D, H, W)``; within a Swin stage they are channels-last,
``(B, D, H, W, C)``. All sizes are those of the weights.
"""

from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

Weights = dict[str, Tensor]

WINDOW, SHIFT = 7, 3
DILATED = {"conv_3x3": 1, "conv_3x3_dil": 2, "conv_3x3_dil2": 3}
MERGED = ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 0), (0, 0, 1), (1, 1, 1))
"""First voxels of the sub-grids that patch merging joins: two twice, two never."""


def restated_glims(weights: Weights, image: Tensor) -> list[Tensor]:
    """Return the logits of the four heads, finest first."""

    def run(function, name, *inputs):
        return function(part(weights, name), *inputs)

    x = run(cna, "stem", image)
    x, skip1 = run(dmsf, "dmsf_1", x)
    x, skip2 = run(dmsf, "dmsf_2", x)
    x, skip3 = run(dmsf, "dmsf_3", x)
    x = run(swin_stage, "t3.layer", x)
    x, skip4 = run(dmsf, "dmsf_4", x)
    x, skip5 = run(swin_stage_down, "t4_pre.layer", x)
    x = run(swin_stage, "t4.layer", x)
    x = run(swin_stage_up, "t4_post.layer", x, run(csab, "csab5", skip5))
    x4 = run(dmsu, "dmsu_4", x, run(csab, "csab4", skip4))
    x = run(swin_stage, "t3_up.layer", x4)
    x3 = run(dmsu, "dmsu_3", x, run(csab, "csab3", skip3))
    x2 = run(dmsu, "dmsu_2", x3, run(csab, "csab2", skip2))
    x1 = run(dmsu, "dmsu_1", x2, run(csab, "csab1", skip1))
    return [run(convolution, f"out{n}.conv.conv", x) for n, x in enumerate((x1, x2, x3, x4), 1)]


def part(weights: Weights, name: str) -> Weights:
    """Return the weights below ``name``, by the rest of their names."""
    start = f"{name}."
    return {key.removeprefix(start): x for key, x in weights.items() if key.startswith(start)}


def convolution(w: Weights, x: Tensor) -> Tensor:
    """Kernel 1 with stride 1, or kernel 2 with stride 2: the stride is the kernel's size."""
    return F.conv3d(x, w["weight"], w["bias"], stride=w["weight"].shape[-1])


def normalised(x: Tensor, slope: Tensor) -> Tensor:
    """Instance normalisation without gain and offset, then a leaky slope for what is negative."""
    return F.prelu(F.instance_norm(x, eps=1e-5), slope)


def cna(w: Weights, x: Tensor) -> Tensor:
    """Convolution, normalisation, activation."""
    return normalised(convolution(part(w, "conv"), x), w["adn.A.weight"])


def cna_transposed(w: Weights, x: Tensor) -> Tensor:
    """The same with a transposed convolution, which doubles the size."""
    x = F.conv_transpose3d(x, w["conv.weight"], w["conv.bias"], stride=2)
    return normalised(x, w["adn.A.weight"])


def dacb(w: Weights, x: Tensor) -> Tensor:
    """Depthwise convolutions of three dilations side by side, mixed and added to their input."""
    joined = torch.cat(
        [dilated(part(w, name), x, dilation) for name, dilation in DILATED.items()], dim=1
    )
    mixed = cna(part(w, "conv_1x1_2"), cna(part(w, "conv_1x1"), joined))
    return normalised(mixed + x, w["prelu2.weight"])


def dilated(w: Weights, x: Tensor, dilation: int) -> Tensor:
    """One of them, normalised channel by channel with a gain and an offset."""
    channels = x.shape[1]
    kernel, bias = w["conv.weight"], w["conv.bias"]
    x = F.conv3d(x, kernel, bias, padding=dilation, dilation=dilation, groups=channels)
    x = F.group_norm(x, channels, w["norm.weight"], w["norm.bias"], eps=1e-5)
    return F.prelu(x, w["prelu.weight"])


def dmsf(w: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the volume of half the size, and the skip connection of the whole size."""
    skip = dacb(part(w, "l2"), dacb(part(w, "l1"), x))
    return cna(part(w, "ds.conv_3x3"), skip), skip


def dmsu(w: Weights, x: Tensor, skip: Tensor) -> Tensor:
    """Double the size and take up the skip connection."""
    x = cna_transposed(part(w, "up.convT"), x)
    x = cna(part(w, "conv1x1"), torch.cat([x, skip], dim=1))
    return dacb(part(w, "l2"), dacb(part(w, "l1"), x))


def csab(w: Weights, x: Tensor) -> Tensor:
    """Weigh every channel and every voxel."""
    channels = channel_gate(part(w, "ChannelGate.mlp"), x)
    return x * (channels * spatial_gate(part(w, "SpatialGate.spatial")))


def channel_gate(w: Weights, x: Tensor) -> Tensor:
    """Return ``(B, C, 1, 1, 1)`` in 0..1."""

    def mlp(pooled):
        hidden = F.relu(F.linear(pooled, w["1.weight"], w["1.bias"]))
        return F.linear(hidden, w["3.weight"], w["3.bias"])

    gate = torch.sigmoid(mlp(x.mean(dim=(2, 3, 4))) + mlp(x.amax(dim=(2, 3, 4))))
    return gate[:, :, None, None, None]


def spatial_gate(w: Weights) -> Tensor:
    """Return one number in 0..1: layer normalisation of a single channel leaves its offset alone.

    The convolution before it is thus without effect, and left out.
    """
    return torch.sigmoid(F.prelu(w["norm.bias"], w["prelu.weight"]))


def swin_stage(w: Weights, x: Tensor) -> Tensor:
    """Position embeddings and blocks, then layer normalisation without gain and offset."""
    return channels_first(plain_layer_norm(blocks(w, positioned(w, x))))


def swin_stage_down(w: Weights, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the volume of half the size, and the skip connection of the whole size."""
    skip = blocks(w, positioned(w, x))
    down = merge(part(w, "downsample"), skip)
    return channels_first(plain_layer_norm(down)), channels_first(plain_layer_norm(skip))


def swin_stage_up(w: Weights, x: Tensor, skip: Tensor) -> Tensor:
    """Double the size, take up the skip connection; no normalisation at the end."""
    x = positioned(w, channels_first(expand(part(w, "upsample"), channels_last(x))))
    return channels_first(blocks(w, cna(part(w, "conv1x1"), torch.cat([x, skip], dim=1))))


def positioned(w: Weights, x: Tensor) -> Tensor:
    return x + w["position_embeddings"].reshape(1, *x.shape[1:])


def blocks(w: Weights, x: Tensor) -> Tensor:
    """Run all blocks of a stage, channels first -> channels last."""
    x = channels_last(x)
    depth = len({name.split(".")[1] for name in w if name.startswith("blocks.")})
    for number in range(depth):
        x = block(part(w, f"blocks.{number}"), x, shifted=number % 2 == 1)
    return x


def block(w: Weights, x: Tensor, *, shifted: bool) -> Tensor:
    x = x + windowed(part(w, "attn"), layer_norm(part(w, "norm1"), x), shifted=shifted)
    return x + mlp(part(w, "mlp"), layer_norm(part(w, "norm2"), x))


def mlp(w: Weights, x: Tensor) -> Tensor:
    hidden = F.linear(x, w["linear1.weight"], w["linear1.bias"])
    return F.linear(F.prelu(hidden, w["fn.weight"]), w["linear2.weight"], w["linear2.bias"])


def windowed(w: Weights, x: Tensor, *, shifted: bool) -> Tensor:
    """Attention within windows, one window after the other; zeros at the end fill up the last."""
    n = x.shape[1]
    size = min(WINDOW, n)
    shift = SHIFT if shifted and n > WINDOW else 0
    padding = -n % size
    x = F.pad(x, (0, 0, 0, padding, 0, padding, 0, padding))
    x = x.roll((-shift,) * 3, dims=(1, 2, 3))
    region = regions(x.shape[1]) if shift else torch.zeros(x.shape[1:4], dtype=torch.long)
    result = torch.zeros_like(x)
    for start in product(range(0, n + padding, size), repeat=3):
        window = tuple(slice(first, first + size) for first in start)
        everywhere = (slice(None), *window)
        result[everywhere] = attention(w, x[everywhere], region[window])
    return result.roll((shift,) * 3, dims=(1, 2, 3))[:, :n, :n, :n]


def regions(n: int) -> Tensor:
    """Number the parts of a shifted grid whose voxels were neighbours before the shift."""
    axis = torch.zeros(n, dtype=torch.long)
    axis[n - WINDOW : n - SHIFT] = 1
    axis[n - SHIFT :] = 2
    return 9 * axis[:, None, None] + 3 * axis[None, :, None] + axis[None, None, :]


def attention(w: Weights, x: Tensor, region: Tensor) -> Tensor:
    """Attention among the voxels of one window, -100 between those of different regions."""
    table = w["relative_position_bias_table"]
    batch, tokens, channels, heads = len(x), region.numel(), x.shape[-1], table.shape[1]
    qkv = F.linear(x.reshape(batch, tokens, channels), w["qkv.weight"], w["qkv.bias"])
    q, k, v = qkv.reshape(batch, tokens, 3, heads, channels // heads).permute(2, 0, 3, 1, 4)
    # Smaller windows have the places of the first voxels of a whole one, not their own.
    place = relative_position_index()[:tokens, :tokens]
    bias = table[place].movedim(-1, 0)
    apart = region.flatten()[:, None] != region.flatten()[None, :]
    scores = q * (channels // heads) ** -0.5 @ k.transpose(-1, -2) + bias - 100.0 * apart
    joined = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, tokens, channels)
    return F.linear(joined, w["proj.weight"], w["proj.bias"]).reshape(x.shape)


def relative_position_index() -> Tensor:
    """Return the row of the bias table for every pair of voxels of a window, ``(343, 343)``."""
    d, h, w = torch.tensor(list(product(range(WINDOW), repeat=3))).T
    reach = WINDOW - 1
    d, h, w = (x[:, None] - x[None, :] + reach for x in (d, h, w))
    return d * (2 * reach + 1) ** 2 + h * (2 * reach + 1) + w


def merge(w: Weights, x: Tensor) -> Tensor:
    """Half the size, twice the channels."""
    joined = torch.cat([x[:, d::2, h::2, w::2] for d, h, w in MERGED], dim=-1)
    return F.linear(layer_norm(part(w, "norm"), joined), w["reduction.weight"])


def expand(w: Weights, x: Tensor) -> Tensor:
    """Twice the size, half the channels."""
    batch, *size, channels = x.shape
    parts = F.linear(x, w["expand.weight"]).reshape(batch, *size, 2, 2, 2, channels // 2)
    result = x.new_zeros(batch, *(2 * n for n in size), channels // 2)
    for p1, p2, p3 in product(range(2), repeat=3):
        result[:, p3::2, p1::2, p2::2] = parts[:, :, :, :, p1, p2, p3]
    return layer_norm(part(w, "norm_layer"), result)


def layer_norm(w: Weights, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], w["weight"], w["bias"], eps=1e-5)


def plain_layer_norm(x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], eps=1e-5)


def channels_last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)


def channels_first(x: Tensor) -> Tensor:
    return x.movedim(-1, 1)

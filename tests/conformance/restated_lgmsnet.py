"""LGMSNet in evaluation mode, restated from its description as one plain function of the weights.

It shares nothing with the network it is there to check: weights go by their published names, their
names and shapes tell widths, depths and splits, and every step is spelled out, slow as it may be.
Sizes must be multiples of 32. Blocks name their section of the specification.

``w`` is all weights, ``name`` what a layer is called, ``prefix`` what the names of all layers of a
block begin with.
"""

from itertools import product

import torch
from torch.nn import functional as F

HEADS, HEAD_CHANNELS, PATCH = 4, 8, 2


def restated_lgmsnet(weights, image):
    """Published name -> tensor and ``(B, C, *S)`` -> logits ``(B, num_classes, *S)`` (1.5)."""
    w = Weights(weights)
    x1 = encoder(w, "encoder1.", cbr(w, "stem.conv.0", "stem.conv.1", image))
    x2 = encoder(w, "encoder2.", pool(x1))
    x3 = encoder(w, "encoder3.", pool(x2))
    x4 = gms(w, "encoder4.0.", pool(x3))
    x5 = gms(w, "encoder5.0.", pool(x4))
    y = gms(w, "Up_conv5.", torch.cat([x4, up(w, "Up5.up.", x5)], dim=1))
    y = fusion(w, "Up_conv4.0.conv.", torch.cat([x3, up(w, "Up4.up.", y)], dim=1))
    y = gms(w, "Up_conv4.1.", y)
    y = fusion(w, "Up_conv3.conv.", torch.cat([x2, up(w, "Up3.up.", y)], dim=1))
    y = fusion(w, "Up_conv2.conv.", torch.cat([x1, up(w, "Up2.up.", y)], dim=1))
    return conv(w, "Conv_1x1", y)


class Weights(dict):
    """The weights by name; what a layer does not have is ``None``."""

    def __missing__(self, name):
        return None


def conv(w, name, x, groups=1):
    """Convolution of stride 1 that keeps the size; a bias where there is one."""
    kernel, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    convolve = {4: F.conv2d, 5: F.conv3d}[kernel.ndim]
    return convolve(x, kernel, bias, padding=kernel.shape[-1] // 2, groups=groups)


def norm(w, name, x):
    """Batch normalisation where statistics are kept, else instance normalisation (1, NORM)."""
    mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    if mean is None:
        return F.instance_norm(x, eps=1e-5)
    gain, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    return F.batch_norm(x, mean, variance, gain, bias, training=False, eps=1e-5)


def cbs(w, prefix, x):
    """Convolution, norm, SiLU."""
    return F.silu(norm(w, f"{prefix}1", conv(w, f"{prefix}0", x)))


def cbr(w, convolution, normalisation, x):
    """Convolution with bias, norm, ReLU."""
    return F.relu(norm(w, normalisation, conv(w, convolution, x)))


def pool(x):
    """Largest of every 2 voxels along each axis."""
    return {4: F.max_pool2d, 5: F.max_pool3d}[x.ndim](x, kernel_size=2, stride=2)


def encoder(w, prefix, x):
    """Local blocks, as many as there are, then a 1x1 to the next width (1.5)."""
    depth = 0
    while f"{prefix}{depth}.local_dwc.weight" in w:
        x = lms(w, f"{prefix}{depth}.", x)
        depth += 1
    return cbs(w, f"{prefix}{depth}.", x)


def lms(w, prefix, x):
    """Local multi-scale block (1.1): ``(B, c, *S) -> (B, c, *S)``."""
    names = "local_dwc", "global_dwc_s", "global_dwc_m", "global_dwc_l"
    branches = []
    for name, chunk in zip(names, x.chunk(4, dim=1), strict=True):
        branches.append(conv(w, f"{prefix}{name}", chunk, groups=chunk.shape[1]))
    gain, bias = w[f"{prefix}norm_act.0.weight"], w[f"{prefix}norm_act.0.bias"]
    y = F.group_norm(torch.cat(branches, dim=1) + x, 4, gain, bias, eps=1e-5)
    y = F.gelu(y)
    y = cbs(w, f"{prefix}conv_1x1_bn.", y)
    y = cbs(w, f"{prefix}conv_nxn_bn.", y)
    return y + x


def gms(w, prefix, x):
    """Global multi-scale block (1.2): ``(B, c_in, *S) -> (B, c, *S)``."""
    y = cbs(w, f"{prefix}conv1.", x)
    y = cbs(w, f"{prefix}conv2.", y)
    channels = len(w[f"{prefix}transformer.layers.0.0.norm.weight"])
    attended = transformer(w, f"{prefix}transformer.layers.0.", y[:, :channels])
    convolved = branch(w, f"{prefix}conv_spilt.", y[:, channels:])
    y = cbs(w, f"{prefix}conv3.", torch.cat([attended, convolved], dim=1))
    return cbs(w, f"{prefix}conv4.", torch.cat([y, x], dim=1))


def branch(w, prefix, x):
    """Two depthwise convolutions of the channels that are not attended to (1.2, 5)."""
    dims, channels = x.ndim - 2, x.shape[1]
    three, one = "x".join("3" * dims), "x".join("1" * dims)
    y = conv(w, f"{prefix}dwconv{three}", x, groups=channels)
    y = F.relu(norm(w, f"{prefix}bn1", y))
    y = conv(w, f"{prefix}dwconv{one}", y, groups=channels)
    return x + norm(w, f"{prefix}bn2", y)


def transformer(w, prefix, x):
    """One pre-norm layer over the voxels of each place within 2x2(x2) patches alone (1.2, 6)."""
    out = torch.empty_like(x)
    for offset in product(range(PATCH), repeat=x.ndim - 2):
        place = (slice(None), slice(None), *(slice(start, None, PATCH) for start in offset))
        coarse = x[place]  # (B, t, *S/2)
        tokens = coarse.flatten(2).transpose(1, 2)  # (B, n, t)
        tokens = tokens + attention(w, f"{prefix}0.", tokens)
        tokens = tokens + feed_forward(w, f"{prefix}1.net.", tokens)
        out[place] = tokens.transpose(1, 2).reshape(coarse.shape)
    return out


def attention(w, prefix, tokens):
    """Norm, then 4 heads of 8 channels; scores are scaled by the root of a head's channels."""
    projected = linear(w, f"{prefix}to_qkv", layer_norm(w, f"{prefix}norm", tokens))
    queries, keys, values = projected.chunk(3, dim=-1)
    heads = []
    for head in range(HEADS):
        own = slice(head * HEAD_CHANNELS, (head + 1) * HEAD_CHANNELS)
        q, k, v = queries[..., own], keys[..., own], values[..., own]
        scores = q @ k.transpose(1, 2) * HEAD_CHANNELS**-0.5  # (B, n, n)
        heads.append(scores.softmax(dim=-1) @ v)
    return linear(w, f"{prefix}to_out.0", torch.cat(heads, dim=-1))


def feed_forward(w, prefix, tokens):
    """Norm, widening, SiLU, narrowing."""
    hidden = linear(w, f"{prefix}1", layer_norm(w, f"{prefix}0", tokens))
    return linear(w, f"{prefix}4", F.silu(hidden))


def linear(w, name, tokens):
    return F.linear(tokens, w[f"{name}.weight"], w[f"{name}.bias"])


def layer_norm(w, name, tokens):
    return F.layer_norm(tokens, tokens.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], eps=1e-5)


def fusion(w, prefix, x):
    """Skip and upsampled, first apart, then together (1.3): ``(B, 2 c, *S) -> (B, c, *S)``."""
    x = norm(w, f"{prefix}2", F.gelu(conv(w, f"{prefix}0", x, groups=2)))
    x = norm(w, f"{prefix}5", F.gelu(conv(w, f"{prefix}3", x)))
    return norm(w, f"{prefix}8", F.gelu(conv(w, f"{prefix}6", x)))


def up(w, prefix, x):
    """Twice the size, then another width (1.4)."""
    mode = {4: "bilinear", 5: "trilinear"}[x.ndim]
    x = F.interpolate(x, scale_factor=2, mode=mode, align_corners=False)
    return cbr(w, f"{prefix}1", f"{prefix}2", x)

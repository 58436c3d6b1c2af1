"""MPU-Net and its baseline, restated from their description as plain functions of the weights.

They share nothing with the networks they are there to check: every step is spelled out, slow as it
may be, without dropout. Names of weights are the description's: ``l1`` to ``l5`` encode, ``s1`` to
``s4`` and ``g5`` reduce, ``u1`` to ``u3`` upsample, ``o1`` to ``o4`` decode, ``p1`` to ``p4`` are
heads; widths follow from the weights. Sizes must be multiples of 8, for the baseline of 16.

``w`` is all weights, ``name`` what a layer is called or the names of a block's layers begin with.
Where ``training``, batch normalisation uses the batch's own statistics.
"""

import torch
from torch.nn import functional as F


def restated_mpunet(w, image, elu_alpha, training=False):
    """``(B, 1, D, H, W)`` -> maps of probabilities P1, P2, P3 and P, all of the image's size (2.2).

    ``elu_alpha`` is a number, or ``"channels"``: as many as the layer before it returns.
    """

    def down(name, x):
        return reduced(w, name, x, elu_alpha, training)

    l1 = units(w, "l1", 2, image) + image
    s1 = down("s1", l1)
    l2 = units(w, "l2", 2, s1) + s1
    s2 = down("s2", l2)
    l3 = units(w, "l3", 2, s2) + s2
    s3 = down("s3", l3)
    l4 = units(w, "l4", 2, s3) + s3
    s4 = down("s4", l4)
    l5 = units(w, "l5", 2, s4) + s4
    g5 = position_attention_module(w, "pam", down("g5", l5), training)
    o1 = gate(w, "o1.gate", decoded(w, "o1", l4) + g5, g5, training)
    u1 = upsampled(w, "u1", o1)
    o2 = gate(w, "o2.gate", decoded(w, "o2", torch.cat([u1, l3], dim=1)) + u1, u1, training)
    u2 = upsampled(w, "u2", o2)
    o3 = gate(w, "o3.gate", decoded(w, "o3", torch.cat([u2, l2], dim=1)) + u2, u2, training)
    u3 = upsampled(w, "u3", o3)
    o4 = gate(w, "o4.gate", decoded(w, "o4", torch.cat([u3, l1], dim=1)) + u3, u3, training)
    p1 = head(w, "p1", o1, image)
    p2 = head(w, "p2", o2, image)
    p3 = head(w, "p3", o3, image)
    p4 = head(w, "p4", o4, image)
    return p1, p2, p3, (p1 + p2 + p3 + p4) / 4


def restated_baseline(w, image):
    """``(B, 1, D, H, W)`` -> four maps of probabilities, coarse to fine, as large as it (1)."""
    t1 = F.relu(F.max_pool3d(conv(w, "enc1", image), 2))
    t2 = F.relu(F.max_pool3d(conv(w, "enc2", t1), 2))
    t3 = F.relu(F.max_pool3d(conv(w, "enc3", t2), 2))
    b = F.relu(F.max_pool3d(conv(w, "enc4", t3), 2))
    d1 = F.relu(resized(conv(w, "dec1", b), t3)) + t3
    d2 = F.relu(resized(conv(w, "dec2", d1), t2)) + t2
    d3 = F.relu(resized(conv(w, "dec3", d2), t1)) + t1
    d4 = F.relu(resized(conv(w, "dec4", d3), image))
    return [head(w, f"p{place}", x, image) for place, x in enumerate((b, d1, d2, d4), start=1)]


def conv(w, name, x, dilation=1):
    """Convolution of stride 1 that keeps the size."""
    kernel = w[f"{name}.weight"]
    padding = dilation * (kernel.shape[-1] // 2)
    return F.conv3d(x, kernel, w[f"{name}.bias"], padding=padding, dilation=dilation)


def batch_norm(w, name, x, training):
    gain, bias = w[f"{name}.weight"], w[f"{name}.bias"]
    if training:
        return F.batch_norm(x, None, None, gain, bias, training=True, eps=1e-5)
    mean, variance = w[f"{name}.running_mean"], w[f"{name}.running_var"]
    return F.batch_norm(x, mean, variance, gain, bias, training=False, eps=1e-5)


def prelu(w, name, x):
    return F.prelu(x, w[f"{name}.weight"])


def resized(x, like):
    """As large as ``like``, trilinearly."""
    return F.interpolate(x, size=like.shape[2:], mode="trilinear", align_corners=False)


def units(w, name, count, x, dilation=1):
    """As many times convolution and PReLU: Enc and Dec (2.1)."""
    for place in range(1, count + 1):
        x = prelu(w, f"{name}.prelu{place}", conv(w, f"{name}.conv{place}", x, dilation))
    return x


def decoded(w, name, x):
    """Dec (2.1), or where its weights are there the two branches in its place (2.3)."""
    if f"{name}.merge.conv1.weight" not in w:
        return units(w, name, 3, x)
    near, far = units(w, f"{name}.near", 2, x), units(w, f"{name}.far", 2, x, dilation=2)
    return units(w, f"{name}.merge", 1, torch.cat([near, far], dim=1))


def reduced(w, name, x, elu_alpha, training):
    """Down (2.1): a kernel of 2 halves the size, one of 3 keeps it."""
    x = F.max_pool3d(x, 3, stride=1, padding=1)
    kernel, bias = w[f"{name}.conv.weight"], w[f"{name}.conv.bias"]
    stride, padding = {2: (2, 0), 3: (1, 1)}[kernel.shape[-1]]
    x = F.conv3d(x, kernel, bias, stride=stride, padding=padding)
    x = batch_norm(w, f"{name}.bn", x, training)
    return F.elu(x, alpha=float(x.shape[1] if elu_alpha == "channels" else elu_alpha))


def upsampled(w, name, x):
    """Up (2.1)."""
    x = F.conv_transpose3d(x, w[f"{name}.conv.weight"], w[f"{name}.conv.bias"], stride=2)
    return prelu(w, f"{name}.prelu", x)


def gate(w, name, x, g, training):
    """Gate (2.1): ``x``, weighed voxel by voxel by what it and ``g`` say."""
    of_x = batch_norm(w, f"{name}.x.bn", conv(w, f"{name}.x.conv", x), training)
    of_g = batch_norm(w, f"{name}.g.bn", conv(w, f"{name}.g.conv", g), training)
    both = conv(w, f"{name}.psi.conv", F.relu(of_x + of_g))
    return x * torch.sigmoid(batch_norm(w, f"{name}.psi.bn", both, training))


def position_attention_module(w, name, x, training):
    """PAM (2.1)."""
    x = batch_norm(w, f"{name}.bn1", conv(w, f"{name}.conv1", x), training)
    x = position_attention(w, f"{name}.attention", prelu(w, f"{name}.prelu1", x))
    x = batch_norm(w, f"{name}.bn2", conv(w, f"{name}.conv2", x), training)
    return prelu(w, f"{name}.prelu2", x)


def position_attention(w, name, x):
    """Position attention (2.1); ``share`` is its lambda."""
    query = conv(w, f"{name}.query", x).flatten(2)  # (B, c, N)
    key = conv(w, f"{name}.key", x).flatten(2)
    value = conv(w, f"{name}.value", x).flatten(2)
    attention = (query.transpose(1, 2) @ key).softmax(dim=-1)  # (B, N of queries, N of keys)
    attended = value @ attention.transpose(1, 2)
    return w[f"{name}.share"] * attended.reshape(x.shape) + x


def head(w, name, x, image):
    """Head (2.1): probabilities as large as the image."""
    return resized(conv(w, name, x), image).softmax(dim=1)

"""The whole of MPU-Net and of its baseline against the restatement of their specification.

In float64 the two agree to rounding, so that a wrong turn anywhere cannot hide behind it.
"""

import re

import pytest
import torch
from restated_mpunet import restated_baseline, restated_mpunet

from lamina.models import configure

TOLERANCE = 1e-10

UNITS = "conv1", "prelu1", "conv2", "prelu2", "conv3", "prelu3"
POOL = ""
"""Layers without weights."""
MPUNET = {
    "stem": ("l1.", UNITS),
    **{f"encoder.{i}": (f"l{i + 2}.", UNITS) for i in range(4)},
    **{f"reductions.{i}": (f"s{i + 1}.", (POOL, "conv", "bn")) for i in range(4)},
    "guides.0.0": ("g5.", (POOL, "conv", "bn")),
    "guides.0.1": ("pam.", ("conv1", "bn1", "prelu1", "attention", "conv2", "bn2", "prelu2")),
    **{f"guides.{i}": (f"u{i}.", ("conv", "prelu")) for i in (1, 2, 3)},
    **{f"decoder.{i}.block": (f"o{i + 1}.", UNITS) for i in range(4)},
    **{
        f"decoder.{i}.block.{branch}": (f"o{i + 1}.{branch}.", UNITS)
        for i in range(4)
        for branch in ("near", "far", "merge")
    },
    **{f"decoder.{i}.gate.features": (f"o{i + 1}.gate.x.", ("conv", "bn")) for i in range(4)},
    **{f"decoder.{i}.gate.guide": (f"o{i + 1}.gate.g.", ("conv", "bn")) for i in range(4)},
    **{f"decoder.{i}.gate.weigh": (f"o{i + 1}.gate.psi.", (POOL, "conv", "bn")) for i in range(4)},
    "heads": ("p", "1234"),
}
"""Where the network's layers are -> what the restatement calls them, in turn."""
BASELINE = {
    **{f"encoder.{i}": (f"enc{i + 1}", ("",)) for i in range(4)},
    "decoder": ("dec", "1234"),
    "heads": ("p", "4321"),
}


def renamed(layers, name):
    """What the restatement calls a weight of the network."""
    for place, (ours, inner) in layers.items():
        if match := re.match(rf"{place}\.(\d)(\..+)", name):
            return ours + inner[int(match[1])] + match[2]
    raise KeyError(name)


def shaken(config, layers):
    """A network none of whose weights is what it starts as, and the weights by the new names."""
    torch.manual_seed(0)
    network = config.build().double()
    for name, x in network.state_dict().items():
        if x.is_floating_point():
            x += 0.2 * torch.randn_like(x) * (1.0 if x.ndim == 1 else x.std())
        if name.endswith("running_var"):
            x.abs_()
    weights = {renamed(layers, name): x.clone() for name, x in network.state_dict().items()}
    assert len(weights) == len(network.state_dict())
    return network, weights


def check(logits, probabilities):
    found = logits.softmax(dim=1)
    assert found.shape == probabilities.shape
    torch.testing.assert_close(found, probabilities, atol=TOLERANCE, rtol=0)


def check_all(logits, probabilities):
    """Networks return their finest logits first, the specification its coarsest map."""
    for x, p in zip(reversed(logits), probabilities, strict=True):
        check(x, p)


@pytest.mark.parametrize("multiscale_block", [False, True])
@pytest.mark.parametrize("elu_alpha", ["channels", 1.0])
@torch.no_grad()
def test_the_network_computes_what_its_specification_says(elu_alpha, multiscale_block):
    config = configure(
        "mpunet",
        in_channels=1,
        num_classes=3,
        width=4,
        dropout=0.0,
        elu_alpha=elu_alpha,
        multiscale_block=multiscale_block,
    )
    network, weights = shaken(config, MPUNET)
    image = torch.randn(2, 1, 16, 24, 32, dtype=torch.float64)
    *_, mean = restated_mpunet(weights, image, elu_alpha)
    check(network.eval()(image), mean)
    check_all(network.train()(image), restated_mpunet(weights, image, elu_alpha, training=True))


@torch.no_grad()
def test_the_baseline_computes_what_its_specification_says():
    config = configure("mpunet_unet", in_channels=1, num_classes=3)
    network, weights = shaken(config, BASELINE)
    image = torch.randn(1, 1, 32, 16, 48, dtype=torch.float64)
    maps = restated_baseline(weights, image)
    check(network.eval()(image), maps[-1])
    check_all(network.train()(image), maps)

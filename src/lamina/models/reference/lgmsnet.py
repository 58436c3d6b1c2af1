"""LGMSNet's checkpoints: https://github.com/cq-dong/LGMSNet at commit 4089497.

Both of its networks: ``MKtinyvit4_CT`` for images and ``MKtinyvit4_CT3D`` for volumes.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lamina.models.lgmsnet import LGMSNetConfig
from lamina.models.reference import REFERENCES, Reference

if TYPE_CHECKING:
    from torch import Tensor

_GMS = ("encoder4.0", "encoder5.0", "Up_conv5", "Up_conv4.1")
_ATTENTION_NORM, _BRANCH_NORM = "transformer.layers.0.0.norm", "conv_spilt.bn1"

_BLOCKS = (
    (r"(^|\.)(conv|up)\.(?=\d)", r"\1"),
    # LMS
    (r"(^|\.)local_dwc\.", r"\1depthwise.0."),
    (r"(^|\.)global_dwc_s\.", r"\1depthwise.1."),
    (r"(^|\.)global_dwc_m\.", r"\1depthwise.2."),
    (r"(^|\.)global_dwc_l\.", r"\1depthwise.3."),
    (r"(^|\.)norm_act\.0\.", r"\1norm."),
    (r"(^|\.)conv_1x1_bn\.", r"\1squeeze."),
    (r"(^|\.)conv_nxn_bn\.", r"\1expand."),
    # GMS
    (r"(^|\.)conv1\.", r"\1local."),
    (r"(^|\.)conv2\.", r"\1mix."),
    (r"(^|\.)conv3\.", r"\1fuse."),
    (r"(^|\.)conv4\.", r"\1out."),
    (r"(^|\.)conv_spilt\.dwconv3x3(x3)?\.", r"\1branch.0."),
    (r"(^|\.)conv_spilt\.bn1\.", r"\1branch.1."),
    (r"(^|\.)conv_spilt\.dwconv1x1(x1)?\.", r"\1branch.3."),
    (r"(^|\.)conv_spilt\.bn2\.", r"\1branch.4."),
    (r"\.layers\.0\.0\.norm\.", ".norm."),
    (r"\.layers\.0\.0\.to_qkv\.", ".qkv."),
    (r"\.layers\.0\.0\.to_out\.0\.", ".out."),
    (r"\.layers\.0\.1\.net\.([01])\.", r".feed_forward.\1."),
    (r"\.layers\.0\.1\.net\.4\.", ".feed_forward.3."),
)

_STAGES = (
    (r"^encoder([45])\.0\.", r"encoder\1."),
    *((rf"^encoder{number}\.", f"encoder.{number - 1}.") for number in (1, 2, 3, 4, 5)),
    *((rf"^Up{number}\.", f"decoder.{5 - number}.up.") for number in (5, 4, 3, 2)),
    *((rf"^Up_conv{number}\.", f"decoder.{5 - number}.merge.") for number in (5, 4, 3, 2)),
    (r"^Conv_1x1\.", "head."),
)


def _configure(weights: Mapping[str, "Tensor"]) -> LGMSNetConfig:
    stem = weights["stem.conv.0.weight"]
    depths = tuple(_depth(weights, stage) for stage in (1, 2, 3))
    splits = tuple(
        (_width(weights, gms, _ATTENTION_NORM), _width(weights, gms, _BRANCH_NORM)) for gms in _GMS
    )
    d1, d2 = (_width(weights, f"encoder{k}.{depths[k - 1]}", "0") for k in (2, 3))
    return LGMSNetConfig(
        in_channels=stem.shape[1],
        num_classes=_width(weights, "Conv_1x1"),
        spatial_dims=stem.dim() - 2,
        channels=(stem.shape[0], d1, d2, sum(splits[0]), sum(splits[1])),
        depths=depths,
        splits=splits,
    )


def _depth(weights: Mapping[str, "Tensor"], stage: int) -> int:
    return sum(bool(re.match(rf"encoder{stage}\.\d+\.local_dwc\.weight", key)) for key in weights)


def _width(weights: Mapping[str, "Tensor"], *names: str) -> int:
    return weights[".".join((*names, "weight"))].shape[0]


REFERENCES.register("lgmsnet")(Reference(configure=_configure, names=_BLOCKS + _STAGES))

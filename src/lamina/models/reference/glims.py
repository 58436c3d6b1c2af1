"""GLIMS' checkpoints: https://github.com/yaziciz/GLIMS at commit a6a8062."""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lamina.models.glims import GLIMSConfig
from lamina.models.reference import REFERENCES, Reference

if TYPE_CHECKING:
    from torch import Tensor

_BLOCKS = (
    (r"(^|\.)ds\.conv_3x3\.", r"\1down."),
    # DACB
    (r"(^|\.)conv_3x3\.(conv|norm|prelu)\.", r"\1branches.0.\2."),
    (r"(^|\.)conv_3x3_dil\.", r"\1branches.1."),
    (r"(^|\.)conv_3x3_dil2\.", r"\1branches.2."),
    (r"(branches\.\d)\.conv\.", r"\1.0."),
    (r"(branches\.\d)\.norm\.", r"\1.1."),
    (r"(branches\.\d)\.prelu\.", r"\1.2."),
    (r"(^|\.)conv_1x1\.", r"\1expand."),
    (r"(^|\.)conv_1x1_2\.", r"\1project."),
    (r"(^|\.)prelu2\.", r"\1out.1."),
    # CSAB
    (r"(^|\.)ChannelGate\.mlp\.1\.", r"\1mlp.0."),
    (r"(^|\.)ChannelGate\.mlp\.3\.", r"\1mlp.2."),
    (r"(^|\.)SpatialGate\.spatial\.prelu\.", r"\1act."),
    (r"(^|\.)SpatialGate\.spatial\.", r"\1"),
    (r"(^|\.)prelu\.", r"\1spare."),
    # DMSF, DMSU
    (r"(^|\.)l1\.", r"\1blocks.0."),
    (r"(^|\.)l2\.", r"\1blocks.1."),
    (r"(^|\.)up\.convT\.", r"\1up."),
    (r"(^|\.)conv1x1\.", r"\1fuse."),
    (r"(^|\.)(stem|expand|project|down|up|fuse)\.conv\.", r"\1\2.0."),
    (r"\.adn\.A\.", ".2."),
    # Swin
    (r"\.attn\.relative_position_bias_table$", ".attention.bias_table"),
    (r"\.attn\.", ".attention."),
    (r"\.mlp\.linear1\.", ".mlp.0."),
    (r"\.mlp\.fn\.", ".mlp.1."),
    (r"\.mlp\.linear2\.", ".mlp.2."),
    (r"(^|\.)norm_layer\.", r"\1norm."),
)

_STAGES = (
    *((rf"^dmsf_{number}\.", f"encoder.{number - 1}.") for number in (1, 2, 3, 4)),
    *((rf"^dmsu_{number}\.", f"decoder.{number - 1}.") for number in (1, 2, 3, 4)),
    *((rf"^csab{number}\.", f"guidance.{number - 1}.") for number in (1, 2, 3, 4, 5)),
    *((rf"^out{number}\.conv\.conv\.", f"heads.{number - 1}.") for number in (1, 2, 3, 4)),
    (r"^(t3|t4|t3_up)\.layer\.position_embeddings$", r"\1.0.embeddings"),
    (r"^(t3|t4|t3_up)\.layer\.blocks\.", r"\1.1."),
    (r"^t4_pre\.layer\.position_embeddings$", "encoder.4.blocks.0.embeddings"),
    (r"^t4_pre\.layer\.blocks\.", "encoder.4.blocks.1."),
    (r"^t4_pre\.layer\.downsample\.", "encoder.4.down."),
    (r"^t4_post\.layer\.position_embeddings$", "decoder.4.up.1.embeddings"),
    (r"^t4_post\.layer\.upsample\.", "decoder.4.up.0."),
    (r"^t4_post\.layer\.", "decoder.4."),
)


def _configure(weights: Mapping[str, "Tensor"]) -> GLIMSConfig:
    feature_size, in_channels = weights["stem.conv.weight"].shape[:2]
    branches = ("conv_3x3", "conv_3x3_dil", "conv_3x3_dil2")
    known = [f"dmsf_1.l1.{branch}.conv.weight" in weights for branch in branches]
    t1, t2, bottleneck = (_stage(weights, name) for name in ("t3", "t4_pre", "t4"))
    side = 16 * _cube_root(weights["t4_pre.layer.position_embeddings"].shape[2])
    return GLIMSConfig(
        in_channels=in_channels,
        num_classes=weights["out1.conv.conv.weight"].shape[0],
        roi_size=(side, side, side),
        feature_size=feature_size,
        dilations=tuple(dilation for dilation, there in enumerate(known, start=1) if there),
        depths=(t1[0], t2[0], bottleneck[0]),
        heads=(t1[1], t2[1], bottleneck[1]),
        attention_guidance="csab1.ChannelGate.mlp.1.weight" in weights,
        deep_supervision="out2.conv.conv.weight" in weights,
    )


def _stage(weights: Mapping[str, "Tensor"], name: str) -> tuple[int, int]:
    """Return the number of blocks of a Swin stage and their heads; 0 and 1 where it is absent."""
    tables = rf"{name}\.layer\.blocks\.\d+\.attn\.relative_position_bias_table"
    found = [table for key, table in weights.items() if re.fullmatch(tables, key)]
    return (len(found), found[0].shape[1]) if found else (0, 1)


def _cube_root(number: int) -> int:
    root: int = round(number ** (1 / 3))
    if root**3 != number:
        raise ValueError(f"{number} position embeddings are no cube")
    return root


REFERENCES.register("glims")(
    Reference(
        configure=_configure,
        names=_BLOCKS + _STAGES,
        surplus=r"\.relative_position_index$",
    )
)

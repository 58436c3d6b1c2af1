"""DINO's vision transformers, as its authors and timm save them; our names are theirs.

Of a checkpoint of a whole pretraining run, the entry ``teacher`` is the one to read.
"""

from collections.abc import Mapping
from math import isqrt
from typing import TYPE_CHECKING

from lamina.models.reference import REFERENCES, Reference
from lamina.models.vit import ViTConfig

if TYPE_CHECKING:
    from torch import Tensor

_HEAD_WIDTH = 64
"""Of every published size: ViT-Ti, S, B, L."""


def _configure(published: Mapping[str, "Tensor"]) -> ViTConfig:
    width, in_channels, token_size, _ = published["patch_embed.proj.weight"].shape
    blocks = {name.split(".")[1] for name in published if name.startswith("blocks.")}
    return ViTConfig(
        in_channels=in_channels,
        image_size=token_size * isqrt(published["pos_embed"].shape[1] - 1),
        token_size=token_size,
        width=width,
        depth=len(blocks),
        num_heads=width // _HEAD_WIDTH,
        mlp_ratio=published["blocks.0.mlp.fc1.weight"].shape[0] // width,
    )


REFERENCES.register("dino")(
    Reference(configure=_configure, names=(), surplus=r"^((head|fc_norm|pre_logits)\.|mask_token$)")
)

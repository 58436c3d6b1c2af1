"""GLIMS' blocks against recorded runs of the authors' code."""

import pytest
from torch import nn

from lamina.models.glims import CSAB, DACB, DecoderLevel, EncoderLevel, unit
from lamina.models.layers.convolution import downsampling_conv, upsampling_conv
from lamina.models.layers.swin import (
    PatchExpanding,
    PatchMerging,
    PositionEmbedding,
    SwinBlocks,
    TokenNorm,
)
from lamina.models.reference import REFERENCES

GLIMS = REFERENCES.get("glims")
C, DILATIONS = 12, (1, 2, 3)


def dacbs():
    return nn.Sequential(DACB(C, DILATIONS), DACB(C, DILATIONS))


def swin(side, heads):
    grid = (side,) * 3
    return PositionEmbedding(24, grid), SwinBlocks(24, 2, heads, grid, released=True)


BLOCKS = {
    "glims_dacb": lambda: DACB(C, DILATIONS),
    "glims_csab": lambda: CSAB(C, released=True),
    "glims_dmsf": lambda: EncoderLevel(
        dacbs(), unit(downsampling_conv(3, C, 24), 24), nn.Identity()
    ),
    "glims_dmsu": lambda: DecoderLevel(C, unit(upsampling_conv(3, 24, C), C), dacbs()),
    "glims_patch_expand": lambda: PatchExpanding(8),
}
STAGES = {
    "glims_swin_stage12": ("t3", "t3", lambda: nn.Sequential(*swin(12, 6), TokenNorm())),
    "glims_swin_stage6_down": (
        "t4_pre",
        "encoder.4",
        lambda: EncoderLevel(
            nn.Sequential(*swin(6, 12)), PatchMerging(24, released=True), TokenNorm()
        ),
    ),
    "glims_swin_stage6_up": ("t4_post", "decoder.4", lambda: up_stage(*swin(6, 12))),
}


def up_stage(position, blocks):
    return DecoderLevel(24, nn.Sequential(PatchExpanding(48), position), blocks)


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_compute_what_the_authors_code_does(recorded, name):
    recorded(name).check(BLOCKS[name](), rename=GLIMS.rename)


def test_patch_merging_computes_what_the_authors_code_does(recorded):
    merging = PatchMerging(8, released=True)
    recorded("glims_patch_merging").check(
        merging,
        rename=GLIMS.rename,
        call=lambda tokens: merging(tokens.movedim(-1, 1)).movedim(1, -1),
    )


@pytest.mark.parametrize("name", STAGES)
def test_swin_stages_compute_what_the_authors_code_does(recorded, name):
    published, ours, build = STAGES[name]
    recorded(name).check(
        build(),
        rename=lambda key: GLIMS.rename(f"{published}.{key}").removeprefix(f"{ours}."),
        surplus=GLIMS.surplus,
    )

"""Regions that overlap, made from label maps that say one structure a voxel."""

import torch

from lamina.data.decision import decided
from lamina.labels import LabelSet
from lamina.losses import build_loss
from lamina.losses.deep_supervision import DeepSupervision
from lamina.training.regions import RegionTargets

LABELS = LabelSet(
    values={"necrosis": 1, "oedema": 2, "enhancing": 4},
    regions={
        "core": ("necrosis", "enhancing"),
        "whole": ("necrosis", "oedema", "enhancing"),
        "rim": ("enhancing",),
    },
    ignore=9,
)
TARGET = torch.tensor([[0, 1, 2, 3, 255]], dtype=torch.uint8)


def test_a_voxel_lies_in_every_region_that_its_structure_is_part_of():
    masks = RegionTargets(build_loss("region_dice_ce"), LABELS).masks(TARGET)
    assert masks.tolist() == [[[0, 1, 0, 1, 255], [0, 1, 1, 1, 255], [0, 0, 0, 1, 255]]]


def test_regions_drawn_over_each_other_are_the_structures_again():
    masks = RegionTargets(build_loss("region_dice_ce"), LABELS).masks(TARGET)[0, :, :4]
    logits = (masks.float() - 0.5).numpy()
    assert decided(logits, drawing=LABELS.region_drawing).tolist() == [0, 1, 2, 3]


def test_the_truth_costs_nothing_at_any_size_of_the_heads():
    target = torch.randint(0, 4, (2, 8, 8), generator=torch.Generator().manual_seed(0))
    loss = RegionTargets(build_loss("region_dice_ce"), LABELS)
    heads = [(loss.masks(target[:, ::step, ::step]).float() - 0.5) * 200 for step in (1, 2)]
    assert DeepSupervision(loss)(heads, target).item() < 1e-4
    assert DeepSupervision(loss)([-head for head in heads], target).item() > 1

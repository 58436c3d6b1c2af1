"""Student and teacher of DINO, which share one shape, and the loss between them.

Caron et al.: *Emerging Properties in Self-Supervised Vision Transformers*, ICCV 2021, Fig. 2.
"""

import math
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import replace
from itertools import groupby

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lamina.losses.dino import DINOLoss
from lamina.models.vit import DINOHead, ViT
from lamina.training.dino_config import DINOConfig


class Branch(nn.Module):
    """Student or teacher: transformer and projection head."""

    def __init__(self, vit: ViT, head: DINOHead) -> None:
        super().__init__()
        self.vit = vit
        self.head = head

    def forward(self, views: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Views ``(B, C, *size)`` -> features ``(views * B, D)``, scores ``(B, K)`` of each."""
        stacks = [torch.cat(list(same)) for _, same in groupby(views, lambda view: view.shape)]
        features = torch.cat([self.vit(stack) for stack in stacks])
        return features, list(self.head(features).split(len(views[0])))


class Distillation(nn.Module):
    """Student, teacher and loss, which together are what a checkpoint holds.

    Args:
        vit: The transformer to start from; it becomes the teacher's.
        config: Of the run.
    """

    probabilities: Tensor
    """Sum of the teacher's outputs in this epoch."""

    def __init__(self, vit: ViT, config: DINOConfig) -> None:
        super().__init__()
        head = DINOHead(vit.config.width, config.num_outputs, hidden=config.head_width)
        student = replace(vit.config, drop_path=config.drop_path).build()
        student.load_state_dict(vit.state_dict())
        self.student = Branch(student, deepcopy(head))
        self.teacher = Branch(vit, head).requires_grad_(False).eval()
        self.loss = DINOLoss(
            config.num_outputs,
            student_temp=config.student_temp,
            teacher_temp=config.teacher_temp,
            center_momentum=config.center_momentum,
        )
        self.register_buffer("probabilities", torch.zeros(config.num_outputs))

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move the teacher's weights towards the student's."""
        for mean, value in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mean.lerp_(value, 1 - momentum)

    @torch.no_grad()
    def measure(self, features: Tensor, scores: Sequence[Tensor]) -> tuple[float, float]:
        """Add up the teacher's outputs; return their mean entropy and the features' deviation."""
        logits = (torch.cat(list(scores)).float() - self.loss.center) / self.loss.teacher_temp
        outputs = logits.softmax(dim=1)
        self.probabilities += outputs.mean(dim=0)
        spread = F.normalize(features.float()).std(dim=0).square().mean().sqrt()
        entropy = -(outputs * logits.log_softmax(dim=1)).sum(dim=1).mean()
        return float(entropy), float(spread) * math.sqrt(features.shape[1])

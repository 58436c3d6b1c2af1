"""Self-distillation: a student learns to say of one view what its teacher says of another.

Caron et al.: *Emerging Properties in Self-Supervised Vision Transformers* (DINO), ICCV 2021, arXiv
2104.14294. It is no loss of segmentation, and so is not among :data:`lamina.losses.LOSSES`.
"""

from collections.abc import Sequence
from math import cos, pi

import torch
from torch import Tensor, nn


def teacher_momentum(progress: float, start: float = 0.996) -> float:
    """Return the share of its own weights that the teacher keeps in a step (DINO, section 3.1).

    It rises from ``start`` to 1 along a cosine; ``progress`` is 0 at the first step, 1 at the last.
    """
    return 1 - (1 - start) * (1 + cos(pi * progress)) / 2


class DINOLoss(nn.Module):
    """Cross-entropy between teacher and student, over all pairs of different views.

    With K scores s(j) of the student for each view j, t(i) of the teacher for each global view i,
    and the centre c (DINO, Eq. 1-4)::

        p(i) = softmax((t(i) - c) / teacher_temp)      without gradient
        q(j) = softmax(s(j) / student_temp)
        loss = mean over all pairs i != j and samples of  - sum p(i) log q(j)
        c   <- center_momentum c + (1 - center_momentum) mean over views i and samples of t(i)

    Two global and n local views make 2 (n + 1) pairs; with n = 0 this is DAI-Net's Eq. 2. The
    centre is a buffer, saved with the rest of the state.

    Args:
        num_outputs: Scores K.
        student_temp: Temperature of the student.
        teacher_temp: Temperature of the teacher; may be changed between steps.
        center_momentum: Share of the centre that an update keeps.
    """

    center: Tensor

    def __init__(
        self,
        num_outputs: int,
        *,
        student_temp: float = 0.1,
        teacher_temp: float = 0.04,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.student_temp = student_temp
        self.teacher_temp = teacher_temp
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(num_outputs))

    def forward(self, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
        """Return the loss, computed in float32; the centre stays as it is.

        Args:
            student: Scores ``(B, K)`` of each view, the global ones first.
            teacher: Scores ``(B, K)`` of each global view, in the same order.
        """
        with torch.autocast(self.center.device.type, enabled=False):
            truths = [self._probabilities(scores) for scores in teacher]
            guesses = [(s.float() / self.student_temp).log_softmax(dim=1) for s in student]
            terms = [
                -(truth * guess).sum(dim=1).mean()
                for i, truth in enumerate(truths)
                for j, guess in enumerate(guesses)
                if i != j
            ]
            return torch.stack(terms).mean()

    @torch.no_grad()
    def update_center(self, teacher: Sequence[Tensor]) -> None:
        """Move the centre towards the mean of the scores that :meth:`forward` has had.

        With several processes, give each the scores of all.
        """
        mean = torch.cat(list(teacher)).float().mean(dim=0)
        self.center.lerp_(mean, 1 - self.center_momentum)

    @torch.no_grad()
    def _probabilities(self, scores: Tensor) -> Tensor:
        return ((scores.float() - self.center) / self.teacher_temp).softmax(dim=1)

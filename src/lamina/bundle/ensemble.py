"""Several networks that decide together, and how their weights lie in one bundle.

Logits are averaged, not probabilities. All members are one network trained on different folds, so
their logits have one scale, and everything after them is linear or looks at their order: blending
of windows, resampling, the largest class, a region's threshold at 0. The mean may therefore be
taken window by window, one scan's logits are in memory instead of one per member, and nothing
behind the network needs to know how many there are. For classes it is the geometric mean of the
members' probabilities: a class that one member rules out does not win by the others' indifference.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

MEMBER = "member_"
"""What names of weights begin with in an ensemble: ``member_0/``, ``member_1/``, ..."""

Weights = Mapping[str, Tensor]


class Ensemble(nn.Module):
    """Networks of one kind; their logits are averaged."""

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, image: Tensor) -> Tensor:
        """Return the mean logits ``(B, K, *S)``, float32, of an image ``(B, C, *S)``."""
        logits = [member(image).float() for member in self.members]
        return torch.stack(logits).mean(0)


def joined(members: Sequence[Weights]) -> dict[str, Tensor]:
    """Put the weights of several networks beside each other; those of one keep their names."""
    if len(members) == 1:
        return dict(members[0])
    return {
        f"{MEMBER}{number}/{name}": tensor
        for number, weights in enumerate(members)
        for name, tensor in weights.items()
    }


def parted(weights: Weights, num_members: int) -> list[dict[str, Tensor]]:
    """Undo :func:`joined`; names of no such member stay with the first, where they do not fit."""
    if num_members == 1:
        return [dict(weights)]
    members: list[dict[str, Tensor]] = [{} for _ in range(num_members)]
    places = {f"{MEMBER}{number}": number for number in range(num_members)}
    for name, tensor in weights.items():
        head, _, rest = name.partition("/")
        if head in places:
            members[places[head]][rest] = tensor
        else:
            members[0][name] = tensor
    return members

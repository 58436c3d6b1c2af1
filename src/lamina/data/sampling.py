"""Which patch is seen when: a pure function of seed, step and slot.

Nothing is drawn from a stream whose state would have to be saved. A run that was killed and resumed
asks for the same steps and gets the same patches, whatever the number of loader workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator, Philox

from lamina.data.cache import PreparedCase

_ORDER_STREAM = 2**63
"""Counter word that keeps the shuffling of cases apart from every step's draws."""


def random_for(seed: int, step: int, slot: int) -> Generator:
    """Return one patch's generator: same numbers, same draws; other numbers, independent."""
    return Generator(Philox(key=seed, counter=[0, 0, step, slot]))


@dataclass(frozen=True, kw_only=True)
class PatchSampler:
    """Chooses case and centre of every patch.

    Cases come in shuffled rounds, so that each is seen equally often; of the patches, a share is
    centred on a voxel of a structure drawn evenly from those in the case, the rest lie anywhere.
    """

    cases: Sequence[PreparedCase]
    patch_size: tuple[int, ...]
    batch_size: int
    seed: int
    oversample_foreground: float
    """Probability that a patch is centred on foreground, 0 to 1."""

    def case_for(self, step: int, slot: int) -> PreparedCase:
        """Return the case that the patch is cut from."""
        round_, place = divmod(step * self.batch_size + slot, len(self.cases))
        order = random_for(self.seed, round_, _ORDER_STREAM).permutation(len(self.cases))
        return self.cases[int(order[place])]

    def start_for(self, case: PreparedCase, rng: Generator) -> tuple[int, ...]:
        """Return the patch's first voxel, outside the case where the patch is larger."""
        size = np.array(case.label.shape[1:])
        patch = np.array(self.patch_size)
        low, high = np.minimum(0, size - patch), np.maximum(0, size - patch)
        wants_foreground = rng.random() < self.oversample_foreground
        start = rng.integers(low, high + 1)
        if wants_foreground and (positions := case.positions):
            structure = rng.choice(sorted(positions))
            centre = rng.choice(positions[structure])
            inside = np.clip(centre - patch // 2, low, high)
            start = np.where(size > patch, inside, start)
        return tuple(int(x) for x in start)

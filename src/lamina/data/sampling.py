"""Which patch is seen when: a pure function of seed, step and slot.

Nothing is drawn from a stream whose state would have to be saved. A run that was killed and resumed
asks for the same steps and gets the same patches, whatever the number of loader workers.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.random import Generator, Philox

from lamina.data.cache import PreparedCase

_ORDER_STREAM = 2**63
"""Counter word that keeps the shuffling apart from every step's draws."""


def random_for(seed: int, step: int, slot: int) -> Generator:
    """Return one patch's generator: same numbers, same draws; other numbers, independent."""
    return Generator(Philox(key=seed, counter=[0, 0, step, slot]))


def in_rounds(seed: int, number: int, count: int) -> int:
    """Return which of ``count`` things comes at ``number``; they come in shuffled rounds."""
    round_, place = divmod(number, count)
    return int(random_for(seed, round_, _ORDER_STREAM).permutation(count)[place])


@dataclass(frozen=True, kw_only=True)
class PatchSampler:
    """Chooses case and centre of every patch.

    Of the patches, a share is centred on a voxel of a structure, the rest lie anywhere. Balanced by
    case, cases come in shuffled rounds, so that each is seen equally often, and the structure is
    drawn evenly from those in the case. Balanced by class, it is drawn evenly from those in any
    case, and then a case that has it: one that only few have is seen as often as the others.
    """

    cases: Sequence[PreparedCase]
    patch_size: tuple[int, ...]
    batch_size: int
    seed: int
    oversample_foreground: float
    """Probability that a patch is centred on foreground, 0 to 1."""
    balance: Literal["case", "class"] = "case"

    def place_for(
        self, step: int, slot: int, rng: Generator
    ) -> tuple[PreparedCase, tuple[int, ...]]:
        """Return the case that the patch is cut from, and its first voxel there.

        It lies outside the case along axes on which the patch is larger.
        """
        case, structure = self.case_for(step, slot), 0
        wants_foreground = rng.random() < self.oversample_foreground
        if wants_foreground and self.balance == "class" and self._holders:
            structure = int(rng.choice(sorted(self._holders)))
            case = self.cases[int(rng.choice(self._holders[structure]))]
        room = np.array(case.label.shape[1:]) - self.patch_size
        low, end = np.minimum(0, room), np.maximum(0, room) + 1
        start = rng.integers(low, end)
        if wants_foreground and (positions := case.positions):
            centre = rng.choice(positions[structure or rng.choice(sorted(positions))])
            around = np.clip(centre - np.array(self.patch_size) // 2, low, end - 1)
            start = np.where(end > 1, around, start)  # a patch that covers the case lies anywhere
        return case, tuple(int(x) for x in start)

    def case_for(self, step: int, slot: int) -> PreparedCase:
        """Return the case whose turn it is."""
        number = step * self.batch_size + slot
        return self.cases[in_rounds(self.seed, number, len(self.cases))]

    @cached_property
    def _holders(self) -> dict[int, list[int]]:
        """Class index -> which cases have it."""
        holders = defaultdict(list)
        for number, case in enumerate(self.cases):
            for structure in case.positions:
                holders[structure].append(number)
        return dict(holders)
